"""Fixtures of the ring: one Airflow for the session, on parts of the suite."""

import signal
from collections.abc import Iterator

import pytest

from routing.standalone import layout
from tests import parts
from tests.airflow import installation


@pytest.fixture(scope="session")
def airflow_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.LocalCluster]:
    """A local cluster in whose pods `python` is the interpreter of the Airflow environment, as in its image."""
    home = tmp_path_factory.mktemp("airflow-cluster") / "home"
    cluster = parts.LocalCluster.start(home, "--faults", "--python", str(installation.python()))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def airflow_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.Valkey]:
    """A server of this ring alone, which may be killed."""
    server = parts.Valkey.start(tmp_path_factory.mktemp("airflow-valkey"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: parts.Postgres,
    airflow_valkey: parts.Valkey,
    airflow_cluster: parts.LocalCluster,
) -> Iterator[installation.Installation]:
    """An Airflow with a worker, a triggerer and a dispatcher. Tests that stop a part start it again."""
    name = postgres_server.create_database()
    made = installation.Installation(
        folder=tmp_path_factory.mktemp("airflow"),
        database=postgres_server.url(name),
        valkey=airflow_valkey,
        kubeconfig=airflow_cluster.kubeconfig,
        port=layout.free_port(),
    )
    try:
        made.prepare()
        made.start_all()
        made.start_dispatcher()
        yield made
    finally:
        made.stop(how=signal.SIGKILL)  # nothing of it is needed any more
