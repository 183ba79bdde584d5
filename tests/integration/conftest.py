"""Parts that several files of this ring begin with; a file that needs another one overrides the fixture by its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.localcluster.faults import client
from tests import parts
from tests.integration.yard_parts import Yard, pods_of


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: parts.Valkey,
    local_cluster_server: parts.LocalCluster,
) -> Iterator[Yard]:
    """One dispatcher for all tests that leave it alone."""
    with Yard(
        folder=tmp_path_factory.mktemp("yard"),
        broker=valkey_server.fresh().url,
        kubeconfig=local_cluster_server.kubeconfig,
        deployment="shared-yard",
    ) as yard:
        yard.dispatcher()
        yield yard


@pytest.fixture
def yard(
    tmp_path: Path, valkey: parts.ValkeyDatabase, local_cluster: parts.LocalCluster, deployment: str
) -> Iterator[Yard]:
    """Processes of one test, to kill and restart; none of them yet."""
    with Yard(folder=tmp_path, broker=valkey.url, kubeconfig=local_cluster.kubeconfig, deployment=deployment) as yard:
        yield yard


@pytest.fixture(scope="module")
def faulty_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.LocalCluster]:
    """A local cluster of this file that takes faults and counts its requests."""
    cluster = parts.LocalCluster.start(tmp_path_factory.mktemp("faulty") / "cluster", "--faults")
    yield cluster
    cluster.stop()


@pytest.fixture
def faults(faulty_cluster: parts.LocalCluster) -> Iterator[client.Faults]:
    """The faults of `faulty_cluster`, taken back after the test; its counters begin at zero."""
    found = client.Faults.of(faulty_cluster.kubeconfig)
    found.reset_stats()
    yield found
    found.clear()


@pytest.fixture
def no_pod_left(yard: Yard) -> Iterator[None]:
    """For files that share a yard: the next test begins when no pod of this one is left."""
    yield
    parts.eventually(lambda: not pods_of(yard), 20, what="no pod is left over")
