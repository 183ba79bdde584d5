"""An installation to shoot at: every part a process of its own, started by the command line that an operator uses.

Parts are known by name (`broker`, `database`, `cluster`, `scheduler-1`, `worker-2`, …); each can be killed, stopped,
continued and started again. What is here looks at the parts from the outside only.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
import psycopg
import redis

from routing.config import settings
from routing.store.store import Store
from tests import parts
from tests.chaos import wire as wires

ROOT = Path(__file__).parents[2]
MAX_PODS = 8
CONCURRENCY = 2
DEPLOYMENT, PLAIN_DEPLOYMENT, BARE_DEPLOYMENT = "chaos", "plain", "bare"
BARE_NUMBER = 2
NUMBERS = {DEPLOYMENT: 0, PLAIN_DEPLOYMENT: 1, BARE_DEPLOYMENT: BARE_NUMBER}
"""Deployment -> the database of the broker's server."""
PLAIN_APP, BARE_APP = "tests.chaos.plainapp:app", "tests.chaos.bareapp:app"
CONFIG = """
deployment = "{deployment}"
home = "{folder}/home"
[broker]
url = "{broker}"
[results]
url = "{results}"
[database]
url = "{database}"
[dags]
folder = "{folder}/dags"
refresh_s = 2.0
[scheduler]
infra_retries = 100
infra_retry_delay_s = 0.3
[kubernetes]
kubeconfig = "{kubeconfig}"
[queues.kubernetes]
side = "kubernetes"
image = "podyard:chaos"
max_pods = {max_pods}
{more}
"""
POD_ENV = 'env = {{ PODYARD_DAGS__FOLDER = "{folder}/dags", PYTHONPATH = "{root}", PLAIN_TRACE = "{folder}/trace" }}'
BARE_ENV = """credentials = "inherit"
env = {{ PYTHONPATH = "{root}", BARE_BROKER = "{broker}", BARE_LEDGER = "{folder}/ledger" }}"""


class Process(Protocol):
    """What all parts have in common."""

    process: subprocess.Popen[bytes] | None


@dataclass(kw_only=True)
class Command:
    """A part that is one command: `module` with its words."""

    name: str
    words: tuple[str, ...]
    folder: Path
    module: str = "routing.cli"
    config: str = "podyard.toml"
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = parts.start(
            [sys.executable, "-m", self.module, *self.words],
            log=self.folder / f"{self.name}.log",
            env={"PODYARD_CONFIG": str(self.folder / self.config), **self.env},
            cwd=self.folder,
        )


@dataclass(kw_only=True)
class Broker:
    """Valkey with its append-only file: the broker, the result backend, or both in one."""

    server: parts.Valkey

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self.server.process

    def start(self) -> None:
        command = parts.valkey_server.prepare(self.server.folder, self.server.address)
        self.server.process = parts.start(command, log=self.server.folder / "valkey.log", cwd=self.server.folder)


@dataclass(kw_only=True)
class Database:
    """PostgreSQL; a kill is a crash of the whole server, of which only what was committed is left."""

    server: parts.Postgres

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return self.server.process

    def start(self) -> None:
        self.server._run()


@dataclass(kw_only=True)
class Cluster:
    """The local cluster. Killed, it takes all pods with it and remembers none: a cluster that lost its nodes."""

    home: Path
    words: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "dispatcher.localcluster", "--home", self.home, "--port", "0", *self.words]
        self.process = parts.start(command, log=self.home.with_name("cluster.log"))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What an installation consists of."""

    database: str = "postgres"
    """Or `sqlite`."""
    cluster_words: tuple[str, ...] = ("--faults",)
    numbers: tuple[int, ...] = (1, 2)
    """One of each part of ours for each number."""
    is_split: bool = False
    """The result backend is a server of its own, the API server is reached over a wire, and a Celery application beside
    the DAGs has a worker and a dispatcher of its own."""
    has_bare: bool = False
    """A Celery application without a result backend has a worker and a dispatcher of its own, too."""


@dataclass(kw_only=True)
class Installation:
    """The parts by name, and the ways to look at them that do not go through our code."""

    folder: Path
    shape: Shape = field(default_factory=Shape)
    parts: dict[str, Any] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    wire: wires.Wire | None = None

    @property
    def trace(self) -> Path:
        """The file to which bodies append."""
        return self.folder / "trace"

    @property
    def ledger(self) -> Path:
        """The file to which bodies of the application without a result backend append."""
        return self.folder / "ledger"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "cluster" / "kubeconfig"

    @property
    def settings(self) -> settings.Settings:
        return settings.load(self.folder / "podyard.toml", environ={})

    def broker(self, number: int = 0) -> "redis.Redis[bytes]":
        """A client of the broker; 1 is that of the Celery application beside the DAGs."""
        return redis.Redis.from_url(self.address("broker", number), socket_timeout=5)

    def results(self, number: int = 0) -> "redis.Redis[bytes]":
        """A client of the result backend; 1 is that of the Celery application beside the DAGs."""
        return redis.Redis.from_url(self.address("results", number), socket_timeout=5)

    def address(self, name: str, number: int = 0) -> str:
        """The URL of a Valkey database: `broker` or `results`, which may be the same server."""
        return str(self.parts[name if name in self.parts else "broker"].server.address.url(number))

    @property
    def plain_env(self) -> dict[str, str]:
        """What the Celery application beside the DAGs is told."""
        return {
            "PLAIN_BROKER": self.address("broker", 1),
            "PLAIN_RESULTS": self.address("results", 1),
            "PLAIN_TRACE": str(self.trace),
            "PYTHONPATH": str(ROOT),
        }

    @property
    def nodes(self) -> set[str]:
        """The node names of workers and dispatchers of DAGs."""
        return {f"{name}@chaos" for name in self.parts if name.partition("-")[0] in ("worker", "dispatcher")}

    @contextlib.contextmanager
    def sql(self) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
        """Plain SQL on the record."""
        with _connection(self.settings.database.url) as connection:

            def ask(query: str) -> list[dict[str, Any]]:
                cursor = connection.execute(query)
                names = [column[0] for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

            yield ask

    def pods(self) -> list[dict[str, Any]]:
        """All pods, as the API server has them."""
        from tests.integration import yard_parts

        return list(yard_parts.api_get(self.kubeconfig, "/api/v1/pods")["items"])

    # --- what can be done to a part

    def is_up(self, name: str) -> bool:
        """Whether it runs and is not stopped."""
        process = self.parts[name].process
        return process is not None and process.poll() is None and name not in self.stopped

    def kill(self, name: str) -> None:
        """SIGKILL. A database server is made to crash as a whole: PostgreSQL's own immediate shutdown."""
        process = self.parts[name].process
        if isinstance(self.parts[name], Database):
            process.send_signal(signal.SIGQUIT)
        else:
            process.kill()
        process.wait(20)
        if isinstance(self.parts[name], Command) or name == "broker":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 0)

    def start(self, name: str) -> None:
        """Start it again; it may take a while until it is of use."""
        self.stopped.discard(name)
        self.parts[name].start()

    def stop(self, name: str) -> None:
        """SIGSTOP: it stands still, with all its threads and connections; a database with all its sessions."""
        self.stopped.add(name)
        self._signal(name, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        self.stopped.discard(name)
        process = self.parts[name].process
        if process is not None and process.poll() is None:
            self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: int) -> None:
        os.kill(self.parts[name].process.pid, number)
        for session in self.children(name) if isinstance(self.parts[name], Database) else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                session.send_signal(number)

    def children(self, name: str) -> list[psutil.Process]:
        """The processes that a part has forked."""
        process = self.parts[name].process
        try:
            return [] if process is None else psutil.Process(process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def close(self) -> None:
        """End all of it."""
        for name in list(self.stopped):
            self.go_on(name)
        for part in self.parts.values():
            if isinstance(part, Database):
                part.server.stop()
            elif part.process is not None:
                parts.stop(part.process, how=signal.SIGKILL if isinstance(part, Command) else signal.SIGTERM)
        if self.wire is not None:
            self.wire.close()


@contextlib.contextmanager
def running(folder: Path, shape: Shape | None = None) -> Iterator[Installation]:
    """An installation, ready to work."""
    installation = Installation(folder=folder, shape=shape or Shape())
    try:
        _start(installation)
        yield installation
    finally:
        installation.close()


def _start(installation: Installation) -> None:
    folder, made, shape = installation.folder, installation.parts, installation.shape
    shutil.copytree(Path(__file__).parent / "dagfiles", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    made["broker"] = Broker(server=parts.Valkey.start(folder / "valkey", databases=16))
    if shape.is_split:
        made["results"] = Broker(server=parts.Valkey.start(folder / "results", databases=16))
    made["cluster"] = Cluster(home=folder / "cluster", words=shape.cluster_words)
    made["cluster"].start()
    url = f"sqlite:///{folder / 'podyard.db'}"
    if shape.database == "postgres":
        server = parts.Postgres.start()
        made["database"] = Database(server=server)
        name = server.create_database()
        with server.connect() as connection:  # a crash must not lose what was committed
            connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = on".encode())
        url = server.url(name)
    parts.eventually(installation.kubeconfig.exists, 60, what="the cluster's kubeconfig")
    kubeconfig = _wired(installation) if shape.is_split else installation.kubeconfig
    _configure(installation, "podyard.toml", DEPLOYMENT, database=url, kubeconfig=kubeconfig)
    with contextlib.closing(Store.open(url)) as store:
        store.upgrade()
    for number in shape.numbers:
        for role, words in (
            ("scheduler", ()),
            (
                "worker",
                ("--concurrency", str(CONCURRENCY), "--name", f"worker-{number}@chaos", "--loglevel", "WARNING"),
            ),
            ("dispatcher", ("--name", f"dispatcher-{number}@chaos")),
        ):
            name = f"{role}-{number}"
            made[name] = Command(name=name, words=(role, *words), folder=folder)
    if shape.is_split:
        _configure(installation, "plain.toml", PLAIN_DEPLOYMENT, database=url, kubeconfig=kubeconfig)
        made |= {one.name: one for one in _plain_commands(installation)}
    if shape.has_bare:
        _configure(installation, "bare.toml", BARE_DEPLOYMENT, database=url, kubeconfig=kubeconfig)
        made |= {one.name: one for one in _bare_commands(installation)}
    for part in made.values():
        if isinstance(part, Command):
            part.start()


def _wired(installation: Installation) -> Path:
    """A kubeconfig whose server is at the other end of a wire."""
    text = installation.kubeconfig.read_text()
    match = re.search(r"https://127\.0\.0\.1:(\d+)", text)
    assert match is not None, text
    installation.wire = wires.Wire(to_port=int(match[1]))
    found = installation.folder / "kubeconfig"
    found.write_text(text[: match.start(1)] + str(installation.wire.port) + text[match.end(1) :])
    return found


def _configure(installation: Installation, name: str, deployment: str, *, database: str, kubeconfig: Path) -> None:
    number, folder = NUMBERS[deployment], installation.folder
    pods = BARE_ENV if deployment == BARE_DEPLOYMENT else POD_ENV
    (installation.folder / name).write_text(
        CONFIG.format(
            deployment=deployment,
            folder=installation.folder,
            broker=installation.address("broker", number),
            results=installation.address("results", number),
            database=database,
            kubeconfig=kubeconfig,
            max_pods=MAX_PODS,
            more=pods.format(folder=folder, root=ROOT, broker=installation.address("broker", number)),
        )
    )


def _plain_commands(installation: Installation) -> tuple[Command, ...]:
    folder, env = installation.folder, installation.plain_env
    common: dict[str, Any] = {"folder": folder, "config": "plain.toml", "env": env}
    celery = ("-A", PLAIN_APP, "worker", "-c", "2", "-Q", "plain", "-n", "plainworker@chaos", "-l", "INFO")
    return (
        Command(name="plainworker", module="celery", words=(*celery, "--without-gossip", "--without-mingle"), **common),
        Command(
            name="plaindispatcher",
            words=("dispatcher", "--app", PLAIN_APP, "--name", "plaindispatcher@chaos"),
            **common,
        ),
    )


def _bare_commands(installation: Installation) -> tuple[Command, ...]:
    folder = installation.folder
    env = {
        "BARE_BROKER": installation.address("broker", BARE_NUMBER),
        "BARE_LEDGER": str(installation.ledger),
        "PYTHONPATH": str(ROOT),
    }
    common: dict[str, Any] = {"folder": folder, "config": "bare.toml"}
    celery = ("-A", BARE_APP, "worker", "-c", "1", "-Q", "bare", "-n", "bareworker@chaos", "-l", "INFO")
    return (
        Command(
            name="bareworker",
            module="celery",
            words=(*celery, "--without-gossip", "--without-mingle"),
            env={**env, "BARE_WORKER": "1"},
            **common,
        ),
        Command(
            name="baredispatcher",
            words=("dispatcher", "--app", BARE_APP, "--name", "baredispatcher@chaos"),
            env=env,
            **common,
        ),
    )


@contextlib.contextmanager
def _connection(url: str) -> Iterator[Any]:
    if url.startswith("sqlite"):
        import sqlite3

        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=15)) as connection:
            yield connection
    else:
        with psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5) as connection:
            yield connection
