"""Fixtures of the ring: one Airflow for the session, on parts of the suite."""

import socket
from collections.abc import Iterator

import pytest

from tests import parts
from tests.airflow import installation


@pytest.fixture(scope="session")
def airflow_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.LocalCluster]:
    """A local cluster in whose pods `python` is the interpreter of the Airflow environment, as in its image."""
    home = tmp_path_factory.mktemp("airflow-cluster") / "home"
    cluster = parts.LocalCluster.start(home, "--python", str(installation.python()))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: parts.Postgres,
    valkey_server: parts.Valkey,
    airflow_cluster: parts.LocalCluster,
) -> Iterator[installation.Installation]:
    """An Airflow with a worker and a dispatcher."""
    name = postgres_server.create_database()
    made = installation.Installation(
        folder=tmp_path_factory.mktemp("airflow"),
        database=postgres_server.url(name),
        broker=valkey_server.fresh().url,
        kubeconfig=airflow_cluster.kubeconfig,
        port=_free_port(),
    )
    try:
        made.prepare()
        made.start_all()
        made.start_dispatcher()
        yield made
    finally:
        made.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
