"""Real parts for tests: Valkey, PostgreSQL and the local cluster as processes that die with the test session.

Fixtures in `conftest.py` start them once per session; a test that needs to kill or restart one starts its own here.
"""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import psutil
import psycopg
import redis

from routing.standalone import valkey as valkey_server

T = TypeVar("T")
PR_SET_PDEATHSIG = 1
PATIENCE = 6 if "PYTEST_XDIST_WORKER" in os.environ else 2
"""How many times longer `eventually` waits than a quiet machine needs, and where other tests use the same cores."""


def eventually(
    predicate: Callable[[], T],
    timeout_s: float = 10.0,
    *,
    every_s: float = 0.02,
    what: str = "",
    is_promise: bool = False,
) -> T:
    """The first truthy value of `predicate`; AssertionError with its last value (or error) after `timeout_s`.

    An AssertionError or LookupError raised by the predicate counts as "not yet". `timeout_s` says when to give up, and
    is longer where files of tests run side by side, unless it `is_promise`: what users are told.
    """
    timeout_s *= 1 if is_promise else PATIENCE
    deadline = time.monotonic() + timeout_s
    while True:
        seen: Any
        try:
            seen = predicate()
        except (AssertionError, LookupError) as error:
            seen = error
        else:
            if seen:
                return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or predicate}; last seen: {seen!r}")
        time.sleep(every_s)


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: pwd.struct_passwd | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own; the kernel kills it when the test session ends, however it ends.

    `env` is added to this process's environment. Output goes to `log`. On other systems than Linux only `stop` ends it.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
            process_group=0,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl; it must come after the change of user
        )


def stop(process: subprocess.Popen[bytes], *, timeout_s: float = 10.0, how: int = signal.SIGTERM) -> int:
    """End a program and what is left of its process group; gives its exit code."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def listening() -> Iterator[int]:
    """A loopback port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


@dataclass(kw_only=True)
class Valkey:
    """A Valkey server; each test has a database number of its own, emptied before it is given out."""

    folder: Path
    address: valkey_server.Address
    process: subprocess.Popen[bytes]
    databases: int
    _given: int = -1

    @classmethod
    def start(cls, folder: Path, *, databases: int = 1024, address: valkey_server.Address | None = None) -> "Valkey":
        """Start a server with its files in `folder` (and at `address`, to restart one) and wait until it answers."""
        folder.mkdir(parents=True, exist_ok=True)
        address = address or valkey_server.new_address()
        command = valkey_server.prepare(folder, address, databases=databases)
        process = start(command, log=folder / "valkey.log", cwd=folder)
        eventually(
            lambda: is_alive(process, folder / "valkey.log") and valkey_server.is_ready(address),
            15,
            what="Valkey answers",
        )
        return cls(folder=folder, address=address, process=process, databases=databases)

    def fresh(self) -> "ValkeyDatabase":
        """An empty database of this server."""
        self._given = (self._given + 1) % self.databases
        database = ValkeyDatabase(server=self, number=self._given)
        with database.client() as client:
            client.flushdb()
        return database

    def stop(self) -> None:
        stop(self.process)

    def kill(self) -> None:
        """SIGKILL, as if the machine's out-of-memory killer had chosen it."""
        self.process.kill()
        self.process.wait(10)

    def restart(self) -> None:
        """Start again on the same files, at the same address."""
        self.process = Valkey.start(self.folder, databases=self.databases, address=self.address).process


@dataclass(frozen=True, kw_only=True)
class ValkeyDatabase:
    """One database number of a server."""

    server: Valkey
    number: int

    @property
    def url(self) -> str:
        """`redis://:password@127.0.0.1:port/number`, for broker, result backend and redis-py alike."""
        return self.server.address.url(self.number)

    @contextlib.contextmanager
    def client(self) -> Iterator["redis.Redis[bytes]"]:
        with contextlib.closing(redis.Redis.from_url(self.url)) as client:
            yield client


@dataclass(kw_only=True)
class Postgres:
    """A PostgreSQL server on a unix socket, from the wheel's binaries.

    Started as root it runs as the existing user `nobody` (PostgreSQL refuses root); no user is made. The wheel's own
    start code is not used: it would make one.
    """

    folder: Path
    binaries: Path
    user: pwd.struct_passwd | None
    process: subprocess.Popen[bytes] | None = None
    _made: list[str] = field(default_factory=list)

    @classmethod
    def start(cls) -> "Postgres":
        user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        folder = Path(tempfile.mkdtemp(prefix="podyard-pg-", dir="/tmp"))  # short: a socket's path is limited
        folder.chmod(0o755)
        server = cls(folder=folder, binaries=_readable_binaries(folder, user), user=user)
        try:
            server._initialise()
            server._run()
        except BaseException:
            server.stop()
            raise
        return server

    def _initialise(self) -> None:
        private = self.folder / "run"
        private.mkdir(mode=0o700)
        if self.user:
            os.chown(private, self.user.pw_uid, self.user.pw_gid)
        answer = subprocess.run(
            [
                *(self.binaries / "initdb", "-D", private / "data", "-U", "podyard", "-A", "trust", "-E", "UTF8"),
                *("--locale=C", "--no-sync", "--no-instructions"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=private,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            check=False,
            user=self.user.pw_uid if self.user else None,
            group=self.user.pw_gid if self.user else None,
            extra_groups=[] if self.user else None,
        )
        assert answer.returncode == 0, f"initdb failed: {answer.stdout}\n{answer.stderr}"

    def _run(self) -> None:
        private = self.folder / "run"
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(private),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "100",
            "shared_buffers": "32MB",
            "autovacuum": "off",
        }
        settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        log = self.folder / "postgres.log"
        command = [self.binaries / "postgres", "-D", private / "data", *settings]
        self.process = process = start(command, log=log, cwd=private, user=self.user)
        eventually(lambda: is_alive(process, log) and self._answers(), 30, what="PostgreSQL answers")

    def _answers(self) -> bool:
        try:
            with self.connect("postgres"):
                return True
        except psycopg.OperationalError:
            return False

    def connect(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        return psycopg.connect(host=str(self.folder / "run"), user="podyard", dbname=database, autocommit=True)

    def create_database(self, *, template: str = "template1") -> str:
        """Make a database as a copy of `template` (which nobody may be connected to); gives its name."""
        name = f"t{len(self._made)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        self._made.append(name)
        return name

    def drop_database(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())

    def url(self, database: str) -> str:
        """The address of a database as SQLAlchemy reads it."""
        return f"postgresql+psycopg://podyard@/{database}?host={self.folder / 'run'}"

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, the server and its sessions stand still: connections are open and nothing answers."""
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        tree = [server, *server.children(recursive=True)]
        for one in tree:
            one.suspend()
        try:
            yield
        finally:
            for one in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.resume()

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, how=signal.SIGINT)  # "fast": ends sessions, then itself
        shutil.rmtree(self.folder, ignore_errors=True)


def _readable_binaries(folder: Path, user: pwd.struct_passwd | None) -> Path:
    """The folder of PostgreSQL's programs; a copy in `folder` where `user` may not read the installed ones."""
    import importlib.util

    spec = importlib.util.find_spec("pgserver")
    assert spec is not None, "no PostgreSQL binaries: pip install 'podyard[dev]'"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    installed = package / "pginstall" / "bin"
    if user is None or _runs(installed / "postgres", user):
        return installed
    shutil.copytree(package / "pginstall", folder / "pgserver" / "pginstall", symlinks=True)
    libraries = package.with_name("pgserver.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "pgserver.libs", symlinks=True)
    return folder / "pgserver" / "pginstall" / "bin"


def _runs(program: Path, user: pwd.struct_passwd) -> bool:
    try:
        answer = subprocess.run(
            [program, "--version"],
            check=False,
            capture_output=True,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
        )
    except OSError:
        return False
    return answer.returncode == 0


@dataclass(kw_only=True)
class LocalCluster:
    """The local cluster as a process; `kubeconfig` is there when it is ready."""

    home: Path
    process: subprocess.Popen[bytes]

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @classmethod
    def start(cls, home: Path, *words: str, env: Mapping[str, str] | None = None) -> "LocalCluster":
        """Start `python -m dispatcher.localcluster --home HOME --port 0 WORDS…` and wait for its kubeconfig."""
        home.mkdir(parents=True, exist_ok=True)
        log = home.with_name(f"{home.name}.log")
        (home / "kubeconfig").unlink(missing_ok=True)
        command = [sys.executable, "-m", "dispatcher.localcluster", "--home", home, "--port", "0", *words]
        process = start(command, log=log, env=env)
        eventually(
            lambda: is_alive(process, log) and (home / "kubeconfig").exists(), 20, what="the local cluster's kubeconfig"
        )
        return cls(home=home, process=process)

    def stop(self) -> None:
        stop(self.process)


def working_in(folder: Path) -> list[str]:
    """Command lines of all processes that work in the folder or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if process.pid != os.getpid() and (str(folder) in words or process.cwd().startswith(str(folder))):
                found.append(f"{process.pid} {words}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def is_alive(process: subprocess.Popen[bytes], log: Path) -> bool:
    """True while a program runs; RuntimeError with the end of its log once it has ended."""
    if process.poll() is None:
        return True
    raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {_tail(log)}")


def _tail(log: Path, *, size: int = 4000) -> str:
    with contextlib.suppress(OSError):
        file: IO[bytes]
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - size))
            return file.read().decode(errors="replace")
    return "(no log)"
