"""The home folder of a local cluster: one cluster at a time, and what clients know it by over its lives."""

import contextlib
import fcntl
import json
import os
import secrets
import ssl
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from dispatcher.localcluster import certificate, kubeconfig
from dispatcher.localcluster.objects import times

_IDENTITY = "identity.json"
_IDENTITY_S = 300 * 86400.0


class ClusterError(Exception):
    """The local cluster cannot start; the message says what to do."""


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """The home folder, private and ours alone; raises ClusterError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ClusterError(
            f"the folder {folder} cannot be used: {error.strerror}; name another one with --home"
        ) from error
    try:
        try:
            # flock and no file with a number: the kernel releases it also for a process that was killed.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            raise ClusterError(
                f"a local cluster already runs in {folder} (process {holder}); use its kubeconfig "
                f"{folder / 'kubeconfig'}, stop it, or name another folder with --home"
            ) from error
        # The number is for people; the lock itself is flock's, which a killed process cannot leave behind.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What clients know a cluster by; kept over restarts, so that a kubeconfig that was read stays true."""

    token: str
    port: int
    certificate: str
    key: str
    authority: str
    """The certificate that vouches for it."""
    made_at: float


def new_identity() -> Identity:
    """For a first life."""
    pair = certificate.make(now=times.now())
    return Identity(
        token=secrets.token_urlsafe(32),
        port=0,
        certificate=pair.certificate,
        key=pair.key,
        authority=pair.authority,
        made_at=times.now().timestamp(),
    )


def read_identity(folder: Path) -> Identity | None:
    """The identity of the last life; None where there was none, or it grows old."""
    try:
        past = msgspec.json.decode((folder / _IDENTITY).read_bytes(), type=Identity)
    # A file that cannot be read is as none: the next life gets a new identity and writes it over.
    except (OSError, msgspec.DecodeError):
        return None
    return past if times.now().timestamp() - past.made_at < _IDENTITY_S else None


def keep_identity(folder: Path, identity: Identity, *, port: int) -> None:
    """For the next life."""
    kubeconfig.write_private(folder / _IDENTITY, json.dumps(asdict(replace(identity, port=port))))


def tls(folder: Path, identity: Identity) -> ssl.SSLContext:
    """The server's side of TLS."""
    chain = folder / "tls.pem"
    kubeconfig.write_private(chain, identity.key + identity.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    # HTTP/2 is not spoken here, and clients that offer it must not choose it.
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # a ticket is two more packets per connection, and nobody here resumes a session
    return context
