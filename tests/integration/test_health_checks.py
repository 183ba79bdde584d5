"""Health checks on a real server that answers and refuses what Celery does."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kombu.exceptions
import pytest
import redis
from celery import Celery

from dispatcher.worker import health_checks, process_health
from routing.cli import reach
from routing.monitoring import health
from routing.store import Store, rows
from tests import parts


@pytest.fixture
def server(tmp_path: Path) -> Iterator[parts.Valkey]:
    found = parts.Valkey.start(tmp_path / "valkey", databases=2)
    yield found
    found.stop()


def application(server: parts.Valkey, **conf: Any) -> Celery:
    app = Celery("shop", broker=server.address.url(0), backend=server.address.url(1), set_as_current=False)
    app.conf.update(conf)
    return app


def fill(client: "redis.Redis[bytes]") -> None:
    """Memory is full, and nothing is thrown away."""
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)


def follow_nobody(client: "redis.Redis[bytes]") -> None:
    """A replica that only reads."""
    client.config_set("replica-serve-stale-data", "yes")
    client.replicaof("127.0.0.1", "1")


def fail_to_save(client: "redis.Redis[bytes]") -> None:
    """MISCONF: a snapshot could not be written, and writes are refused until one can."""
    client.config_set("stop-writes-on-bgsave-error", "yes")
    client.config_set("save", "3600 1")
    about = {**client.config_get("dir"), **client.config_get("dbfilename")}
    Path(about["dir"], about["dbfilename"]).mkdir()
    client.bgsave()
    parts.eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 10)


@pytest.mark.parametrize(
    ("refuse", "words"),
    [(fill, "maxmemory"), (follow_nobody, "read only"), (fail_to_save, "MISCONF")],
    ids=["its memory is full", "a read-only replica", "its disk cannot be written"],
)
def test_a_server_that_refuses_writes_is_away(
    server: parts.Valkey, refuse: Callable[["redis.Redis[bytes]"], None], words: str
) -> None:
    """As broker and as result backend; it answers questions all the while."""
    app = application(server)
    health_checks.BrokerCheck(app).run()
    health_checks.ResultBackendCheck(app).run()
    with redis.Redis.from_url(server.address.url(0)) as client:
        refuse(client)
        assert client.info("server")
    refusals = (redis.exceptions.ResponseError, kombu.exceptions.OperationalError)
    with pytest.raises(refusals, match=words):
        health_checks.BrokerCheck(app).run()
    with pytest.raises(refusals, match=words):
        health_checks.ResultBackendCheck(app).run()


def test_a_part_that_starts_does_not_wait_for_room(server: parts.Valkey) -> None:
    """It says that the broker is full; who reads from it is what makes room. `config check` calls it wrong."""
    with redis.Redis.from_url(server.address.url(0)) as client:
        fill(client)
    assert f"{reach.REFUSES}command not allowed when used memory" in reach.broker_of(application(server))


def test_a_user_who_may_not_write_the_key_is_let_in(server: parts.Valkey) -> None:
    """Access by key patterns of the application's own: what the user may, only the application's work shows."""
    with redis.Redis.from_url(server.address.url(0)) as client:
        client.acl_setuser(
            "shop", enabled=True, passwords=["+sesame"], keys=["shop*"], channels=["*"], categories=["+@all"]
        )
    url = f"redis://shop:sesame@127.0.0.1:{server.address.port}"
    app = Celery("shop", broker=f"{url}/0", backend=f"{url}/1", set_as_current=False)
    health_checks.BrokerCheck(app).run()
    health_checks.ResultBackendCheck(app).run()


def test_the_key_is_the_applications_own_and_goes_by_itself(server: parts.Valkey) -> None:
    """Under the prefix of its broker, and of its result backend."""
    app = application(
        server,
        broker_transport_options={"global_keyprefix": "shop."},
        result_backend_transport_options={"global_keyprefix": "shop."},
    )
    health_checks.BrokerCheck(app).run()
    health_checks.ResultBackendCheck(app).run()
    for number in (0, 1):
        with redis.Redis.from_url(server.address.url(number)) as client:
            (key,) = client.keys("*")
            assert key.startswith(b"shop.")
            assert 0 < client.ttl(key) <= 60


def test_an_application_without_a_result_backend_lacks_none() -> None:
    """Celery's default."""
    health_checks.ResultBackendCheck(Celery("shop", set_as_current=False)).run()


ENDING = """
from pathlib import Path
from celery import Celery, bootsteps
from routing.worker import self_report

app = Celery("shop", broker={url!r}, set_as_current=False)
app.conf.podyard = {{"health_folder": {folder!r}, "kubeconfig": {kubeconfig!r}}}

class Fails(bootsteps.StartStopStep):
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent):
        if Path({folder!r}, "fail").exists():
            raise ValueError("UNBLOCKED, a replica")

app.steps["consumer"].add(Fails)
"""


@pytest.mark.parametrize("kind", ["worker", "dispatcher"])
def test_who_ends_by_itself_stays_expected_and_who_is_stopped_does_not(
    tmp_path: Path, valkey: parts.ValkeyDatabase, local_cluster: parts.LocalCluster, kind: str
) -> None:
    """A worker that an error ends has code 1 and a file that says why; after SIGTERM there is none."""
    folder = tmp_path / "health"
    folder.mkdir()
    text = ENDING.format(url=valkey.url, folder=str(folder), kubeconfig=str(local_cluster.kubeconfig))
    if kind == "worker":
        text += f"app.steps['worker'].add(self_report.step_into(Path({str(folder)!r})))\n"
    (tmp_path / "ending.py").write_text(text)
    pool = {"worker": ["-P", "solo"], "dispatcher": ["-P", "custom"]}[kind]
    env = {"CELERY_CUSTOM_WORKER_POOL": "dispatcher.pool:KubernetesPool", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    command = [sys.executable, "-m", "celery", "-A", "ending:app", "worker", "-l", "INFO", "-Q", "kubernetes", *pool]

    running = parts.start(command, log=tmp_path / "stopped.log", env=env, cwd=tmp_path)
    parts.eventually(lambda: list(process_health.read(folder)), 30, what="it has written")
    parts.eventually(lambda: "ready." in (tmp_path / "stopped.log").read_text(), 30, what="it is ready")
    assert parts.stop(running, timeout_s=20) == 0
    assert list(process_health.read(folder)) == []

    (folder / "fail").touch()
    failing = parts.start(command, log=tmp_path / "failed.log", env=env, cwd=tmp_path)
    failing.wait(60)
    (left,) = process_health.read(folder)
    assert (left.kind, left.trouble(now=datetime.now(UTC))) == (
        kind,
        "it ended by itself: ValueError: UNBLOCKED, a replica",
    )


def test_a_scheduler_that_was_killed_is_not_called_ready(tmp_path: Path) -> None:
    """What it said before is in the record until its successor speaks: a part that starts again is waited for."""
    store = Store.open(f"sqlite:///{tmp_path}/podyard.db")
    store.upgrade()
    now = datetime.now(UTC)

    def said(pid: int) -> None:
        row = rows.ProcessRow(
            name="scheduler", kind="scheduler", host=socket.gethostname(), pid=pid, started_at=now, seen_at=now
        )
        store.save_presence(consumers=(), processes=(row,), since=now)

    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    said(killed.pid)
    assert not health.is_scheduling(store, since=now)
    said(os.getpid())
    assert health.is_scheduling(store, since=now)
    store.close()
