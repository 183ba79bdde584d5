"""The certificate is one that strict clients take, for this address and no other."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dispatcher.localcluster import certificate


def _shake_hands(folder: Path, pair: certificate.Pair, name: str, *, trusted: str) -> None:
    chain = folder / "chain.pem"
    chain.write_text(pair.key + pair.certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    client = ssl.create_default_context(cadata=trusted)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                connection.sendall(b"hello")
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, client.wrap_socket(ours, server_hostname=name) as connection:
            assert connection.recv(5) == b"hello"
    finally:
        thread.join(10)


def test_strict_verifiers_take_it(tmp_path: Path) -> None:
    """By address and by name; and what it was signed by is all that is trusted."""
    pair = certificate.make(now=datetime.now(UTC))
    for name in ("127.0.0.1", "localhost"):
        _shake_hands(tmp_path, pair, name, trusted=pair.authority)


def test_another_address_or_authority_or_time_is_refused(tmp_path: Path) -> None:
    """It vouches for the loopback only, and not for ever."""
    now = datetime.now(UTC)
    pair, other = certificate.make(now=now), certificate.make(now=now)
    old = certificate.make(now=now - timedelta(days=400))
    for used, name, trusted in ((pair, "127.0.0.2", pair), (pair, "127.0.0.1", other), (old, "127.0.0.1", old)):
        with pytest.raises(ssl.SSLCertVerificationError):
            _shake_hands(tmp_path, used, name, trusted=trusted.authority)
