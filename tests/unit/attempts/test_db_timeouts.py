"""No call to PostgreSQL waits for ever: shown by a server that speaks its protocol, and is silent where a test asks."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from dispatcher.attempts import db_timeouts
from dispatcher.attempts.db_timeouts import Bounds

SHORT = Bounds(answer_s=0.2, lock_s=3.5)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


HELLO = (
    _message(b"R", struct.pack("!I", 0))
    + _message(b"S", b"server_version\0" + b"17.0\0")
    + _message(b"S", b"client_encoding\0UTF8\0")
    + _message(b"Z", b"I")
)


class Server:
    """Takes every statement and gives no rows; those that contain `silent_about` it does not answer."""

    def __init__(self, folder: Path) -> None:
        self.statements: list[str] = []
        self.silent_about = "pg_sleep"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / ".s.PGSQL.5432"))
        self._socket.listen()
        self.url = f"postgresql+psycopg://user@/base?host={folder}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No more connections."""
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), connection:
            stream = connection.makefile("rb")
            stream.read(struct.unpack("!I", stream.read(4))[0] - 4)
            connection.sendall(HELLO)
            status = b"I"
            while kind := stream.read(1):
                body = stream.read(struct.unpack("!I", stream.read(4))[0] - 4)
                if kind != b"Q":
                    continue
                statement = body.rstrip(b"\0").decode()
                self.statements.append(statement)
                if self.silent_about in statement:
                    continue
                word = statement.split()[0].upper()
                status = {"BEGIN": b"T", "COMMIT": b"I", "ROLLBACK": b"I"}.get(word, status)
                connection.sendall(_message(b"C", word.encode() + b"\0") + _message(b"Z", status))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One for each test."""
    found = Server(tmp_path)
    yield found
    found.close()


def engine_of(server: Server, bounds: Bounds | None = SHORT) -> sa.Engine:
    """An engine as our stores make it; it asks the server nothing about itself."""
    engine = sa.create_engine(server.url, connect_args=db_timeouts.arguments(), _initialize=False)
    db_timeouts.bound(engine, bounds)
    return engine


def test_a_statement_without_an_answer_ends_in_time_and_its_connection_with_it(server: Server) -> None:
    """An outage like any other: callers say so and try again, on a fresh connection."""
    engine = engine_of(server)
    with engine.connect() as connection:
        began = time.monotonic()
        with pytest.raises(sa.exc.OperationalError, match=r"no answer within 0\.2 s") as caught:
            connection.exec_driver_sql("SELECT pg_sleep(600)")
        assert time.monotonic() - began < 5
        assert caught.value.connection_invalidated
    server.silent_about = "nothing"
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(600)")
    engine.dispose()


def test_each_connection_is_told_its_bounds(server: Server) -> None:
    """As statements: connection poolers refuse options at start-up. What stands in them is milliseconds."""
    engine = engine_of(server)
    with engine.connect():
        pass
    assert server.statements == [
        "BEGIN",
        "SET lock_timeout = 3500",
        f"SET idle_in_transaction_session_timeout = {db_timeouts.IDLE_S * 1000}",
        "COMMIT",
    ]
    engine.dispose()


def test_the_usual_bounds_are_longer_than_our_statements_and_shorter_than_for_ever(server: Server) -> None:
    """The server's own bound of locks is the shorter one: it says that it is a lock."""
    engine = engine_of(server, None)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        assert driver.answer_s == Bounds().answer_s
    assert 0 < Bounds().lock_s < Bounds().answer_s < 60
    engine.dispose()


def test_a_migration_may_take_as_long_as_it_takes(server: Server) -> None:
    """Within its transaction, and no longer; also where it fails."""
    engine = engine_of(server)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        with db_timeouts.patience(connection):
            assert driver.answer_s is None
        assert driver.answer_s == SHORT.answer_s
        with pytest.raises(RuntimeError), db_timeouts.patience(connection):
            raise RuntimeError
        assert driver.answer_s == SHORT.answer_s
    assert server.statements.count("SET LOCAL lock_timeout = 0") == 2
    engine.dispose()


def test_a_host_that_is_gone_without_a_word_is_noticed() -> None:
    """By libpq's own bounds: for the connection, and for the network beneath it."""
    given = db_timeouts.arguments()
    assert given["connect_timeout"] == db_timeouts.CONNECT_S
    noticed_s = given["keepalives_idle"] + given["keepalives_interval"] * given["keepalives_count"]
    assert (noticed_s < 60, given["tcp_user_timeout"] < 60_000) == (True, True)
    known = {one.keyword.decode() for one in psycopg.pq.Conninfo.get_defaults()}
    assert set(given) <= known, "a word that libpq does not know keeps everybody from connecting"


def test_a_database_without_these_waits_is_left_as_it_is() -> None:
    """SQLite has its own time-out; nothing is bounded, nothing lifted."""
    engine = sa.create_engine("sqlite://")
    db_timeouts.bound(engine, SHORT)
    with engine.connect() as connection, db_timeouts.patience(connection):
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("error", "is_read_only"),
    [
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"), True),
        (psycopg.errors.UniqueViolation("duplicate key"), False),
        (psycopg.OperationalError("no answer"), False),
        (ValueError("of another kind"), False),
        (None, False),
    ],
    ids=repr,
)
def test_a_server_that_takes_no_writes_is_known_by_its_code(error: BaseException | None, is_read_only: bool) -> None:
    """A standby after a fail-over, or a disk that is full; words differ by language."""
    assert db_timeouts.is_read_only(error) is is_read_only
