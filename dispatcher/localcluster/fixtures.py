"""A pytest plugin: a local cluster whose faults a test can ask for (docs/testing.md).

Loaded by every pytest that finds this package installed, so it imports nothing heavy before a fixture is used.
"""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dispatcher.localcluster.child import Child
    from dispatcher.localcluster.faults.client import Faults
    from dispatcher.localcluster.space import Space

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def podyard_cluster_process(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Child]":
    """The session's local cluster, with faults on; override it to start one with other words."""
    from dispatcher.localcluster import child

    with child.Child.start(tmp_path_factory.mktemp("podyard") / "cluster", "--faults") as process:
        yield process


@pytest.fixture
def podyard_cluster(podyard_cluster_process: "Child") -> "Iterator[Space]":
    """A namespace of this test in the session's local cluster: `.kubeconfig`, `.namespace`, `.env`, `.faults`."""
    from dispatcher.localcluster import space

    own = space.Space(kubeconfig=podyard_cluster_process.kubeconfig, namespace=f"test-{next(_numbers)}")
    own.open()
    yield own
    own.close()


@pytest.fixture
def podyard_faults(podyard_cluster: "Space") -> "Faults":
    """The faults of that cluster; all are taken back after the test."""
    return podyard_cluster.faults
