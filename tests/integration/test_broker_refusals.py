"""A broker that answers and refuses: it switches over, is read-only, loads, is full, kills or pauses its clients.

A connection that breaks is the known case. Here the server is there and says no, which kombu counts as a mistake of a
channel and not as a loss: without care that ends whoever hears it. Each case is made on a real server, while all
processes of both doors (DAGs and a Celery application) consume from it and store in it; nobody may end, and new work
must be done afterwards.
"""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis

from routing.standalone import valkey as valkey_server
from tests import parts
from tests.integration.yard_parts import Yard
from tests.terminal import PODYARD, inside, installed

DAGS = """
from routing import DAG, task

@task
def here():
    return 1

@task(queue="kubernetes")
def there(before):
    return before + 1

with DAG("both"):
    there(here())
"""
PARTS = ("scheduler", "worker", "dispatcher", "flower")
REFUSED_S = 6.0
"""How long each case lasts: longer than any time-out of a single call that it could hide behind."""
AGAIN_S = 60.0
NOWHERE = ("127.0.0.1", 1)
"""A primary that nobody runs: a replica of it keeps its data, as one does after a switch."""


class Doors:
    """All processes of an installation and of a Celery application, on one server."""

    def __init__(self, folder: Path, server: parts.Valkey, cluster: parts.LocalCluster) -> None:
        self.server = server
        self.folder = folder
        database = server.fresh()
        (folder / "dags").mkdir(parents=True)
        (folder / "dags/both.py").write_text(DAGS)
        port = valkey_server.new_address().port
        (folder / "podyard.toml").write_text(
            f"""
            deployment = "doors"
            [broker]
            url = "{database.url}"
            [results]
            url = "{database.url}"
            [kubernetes]
            kubeconfig = "{cluster.kubeconfig}"
            [flower]
            port = {port}
            basic_auth = "user:password"
            [dags]
            refresh_s = 0.5
            [worker]
            concurrency = 1
            [queues.kubernetes]
            env = {{ PODYARD_DAGS__FOLDER = "{folder}/dags" }}
            """
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "plain").mkdir()
        self.plain = Yard(
            folder=folder / "plain", broker=server.fresh().url, kubeconfig=cluster.kubeconfig, deployment="plain-doors"
        )

    def start(self) -> None:
        self.processes["plain worker"] = self.plain.worker()
        self.processes["plain dispatcher"] = self.plain.dispatcher()
        inside(self.folder, "db", "upgrade")
        for part in PARTS:
            log = self.folder / f"{part}.log"
            self.processes[part] = parts.start([PODYARD, part], log=log, cwd=self.folder)
        self.work()

    def work(self) -> None:
        """Has work done through each door, on both sides; AssertionError where some is not done."""
        self.check_alive()
        sent = [self.plain.send("add", 1, 2, queue=queue) for queue in ("default", "kubernetes")]
        parts.eventually(lambda: inside(self.folder, "dags", "show", "both").returncode == 0, AGAIN_S, what="the DAG")
        run = installed(self.folder, "dags", "trigger", "both", "--wait")
        assert run.returncode == 0, run
        for one in sent:
            parts.eventually(lambda one=one: one.state == "SUCCESS", AGAIN_S, what=f"{one.id} is done")
        self.check_alive()

    def check_alive(self) -> None:
        ended = {name: code for name, each in self.processes.items() if (code := each.poll()) is not None}
        assert not ended, f"ended: {ended}; logs in {self.folder}"

    def stop(self) -> None:
        self.plain.stop()
        for process in self.processes.values():
            parts.stop(process)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory, local_cluster_server: parts.LocalCluster) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    server = parts.Valkey.start(folder / "valkey")
    found = Doors(folder / "work", server, local_cluster_server)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        server.stop()


def admin(server: parts.Valkey) -> Any:
    return redis.Redis.from_url(server.address.url(), protocol=2)


@contextlib.contextmanager
def switched_over(server: parts.Valkey) -> Iterator[None]:
    """It is a replica now, which refuses writes; who waited for a message hears `UNBLOCKED`."""
    with contextlib.closing(admin(server)) as client:
        client.replicaof(*NOWHERE)
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextlib.contextmanager
def without_its_primary(server: parts.Valkey) -> Iterator[None]:
    """A replica that may not serve what it has: MASTERDOWN."""
    with contextlib.closing(admin(server)) as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof(*NOWHERE)
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")
            client.config_set("replica-serve-stale-data", "yes")


def configured(**options: str) -> Callable[[parts.Valkey], AbstractContextManager[None]]:
    """Other settings for a while."""

    @contextlib.contextmanager
    def case(server: parts.Valkey) -> Iterator[None]:
        with contextlib.closing(admin(server)) as client:
            names = {name.replace("_", "-"): value for name, value in options.items()}
            before = {name: value for each in names for name, value in client.config_get(each).items()}
            for name, value in names.items():
                client.config_set(name, value)
            try:
                yield
            finally:
                for name, value in before.items():
                    client.config_set(name, value)

    return case


@contextlib.contextmanager
def unable_to_save(server: parts.Valkey) -> Iterator[None]:
    """Its disk takes no snapshot any more, so that it refuses writes: MISCONF."""
    with contextlib.closing(admin(server)) as client:
        save = client.config_get("save")["save"]
        name = client.config_get("dbfilename")["dbfilename"]
        target = Path(client.config_get("dir")["dir"]) / name
        target.unlink(missing_ok=True)
        target.mkdir()  # nothing can be renamed to the name of a folder
        client.config_set("save", "3600 1")
        client.config_set("stop-writes-on-bgsave-error", "yes")
        try:
            client.bgsave()
            parts.eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 10)
            with pytest.raises(redis.ResponseError, match="MISCONF"):
                client.set("refused", 1)
            yield
        finally:
            target.rmdir()
            client.bgsave()
            parts.eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", 10)
            client.config_set("save", save)


@contextlib.contextmanager
def loading(server: parts.Valkey) -> Iterator[None]:
    """It was restarted and reads its file for some seconds: LOADING."""
    with contextlib.closing(admin(server)) as client, client.pipeline() as pipe:
        for number in range(3000):
            pipe.set(f"ballast-{number}", number)
        pipe.execute()
        client.execute_command("WAITAOF", 1, 0, 5000)
    server.kill()
    command = [*valkey_server.prepare(server.folder, server.address, databases=server.databases)]
    slow = ["--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"]
    server.process = parts.start([*command, *slow], log=server.folder / "valkey.log", cwd=server.folder)
    yield
    parts.eventually(lambda: valkey_server.is_ready(server.address), 60, what="the file is read")


@contextlib.contextmanager
def killing_clients(server: parts.Valkey) -> Iterator[None]:
    """Whoever is connected is cut off, again and again."""
    with contextlib.closing(admin(server)) as client:
        for _ in range(5):
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            time.sleep(0.2)
        yield


@contextlib.contextmanager
def pausing_clients(server: parts.Valkey) -> Iterator[None]:
    """Nobody gets an answer."""
    with contextlib.closing(admin(server)) as client:
        client.execute_command("CLIENT", "PAUSE", int(2 * REFUSED_S * 1000), "ALL")
        yield


@contextlib.contextmanager
def another_password(server: parts.Valkey) -> Iterator[None]:
    """The password was changed, and who was connected is cut off: WRONGPASS."""
    with contextlib.closing(admin(server)) as client:
        client.config_set("requirepass", "another")
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        try:
            yield
        finally:
            client.config_set("requirepass", server.address.password)


CASES: dict[str, Callable[[parts.Valkey], AbstractContextManager[None]]] = {
    "switched over": switched_over,
    "without its primary": without_its_primary,
    "without its replicas": configured(min_replicas_to_write="1"),
    "full": configured(maxmemory="1"),
    "unable to save": unable_to_save,
    "loading": loading,
    "killing clients": killing_clients,
    "pausing clients": pausing_clients,
    "another password": another_password,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_B19_nobody_ends_because_the_broker_refuses_for_a_while(doors: Doors, case: str) -> None:
    """Scheduler, workers, dispatchers and Flower of both doors live on, and new work is done afterwards."""
    with CASES[case](doors.server):
        time.sleep(REFUSED_S)  # the case itself: what it does to processes shows while it lasts
        doors.check_alive()

    doors.work()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", ["switched over", "unable to save"])
def test_B19_nobody_ends_though_the_broker_takes_no_writes_for_long(doors: Doors, case: str) -> None:
    """Twenty seconds, in which every call that is tried again has given up somewhere."""
    with CASES[case](doors.server):
        time.sleep(20)
        doors.check_alive()

    doors.work()


@pytest.mark.timeout(300)
def test_B19_a_broker_that_is_another_for_a_moment_ends_nobody(doors: Doors) -> None:
    """One second as a replica is enough for `UNBLOCKED … master -> replica`."""
    with switched_over(doors.server):
        time.sleep(1)

    doors.work()
