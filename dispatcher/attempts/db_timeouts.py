"""PostgreSQL connections that do not wait for ever: not for an answer, not for a lock, not for a host that is gone.

A server that was stopped, or a network that swallows packets, leaves a client waiting without an error. Here a
statement that is not answered in time ends with one, and its connection with it, so that callers see an outage, say so
and try again. Used by the pods' table and by `routing.store`; on other databases it does nothing.
"""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

CONNECT_S = 5
IDLE_S = 60
"""A process of ours that stands still within a transaction loses its locks after this time."""
# TCP alone would wait for a peer that is gone for many minutes (two hours on an idle connection, by Linux' defaults).
NETWORK = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""libpq's words for a host that is gone without a word; the last is in milliseconds."""
READ_ONLY = "25006"
"""The SQLSTATE of a server that takes no writes: a standby after a fail-over, or one whose disk is full."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How long one statement may take, in seconds. Ours take milliseconds; migrations are given `call_timeouts`."""

    answer_s: float = 20.0
    """Until the server has answered."""
    lock_s: float = 10.0
    """For somebody else's lock: then the server says that it is a lock."""


def arguments() -> dict[str, Any]:
    """What `sqlalchemy.create_engine` is given as `connect_args`."""
    return {"connect_timeout": CONNECT_S, **NETWORK}


def bound(engine: sa.Engine, bounds: Bounds | None = None) -> None:
    """Bounds the waits of all connections of an engine, where it is one of PostgreSQL by psycopg."""
    bounds = bounds or Bounds()
    if engine.dialect.name != "postgresql" or engine.dialect.driver != "psycopg":
        return
    connection_class = _bounded(bounds.answer_s)

    # Bounded in the client: `statement_timeout` is kept by the server, which may be what stands still.
    @sa.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, words: Any, options: Any) -> Any:
        return connection_class.connect(*words, **options)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:  # not as start-up options, which connection poolers refuse
            cursor.execute(f"SET lock_timeout = {round(bounds.lock_s * 1000)}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_S * 1000}")
        # SET lasts for the session only where its transaction is committed: a rollback takes it back.
        connection.commit()


@contextlib.contextmanager
def patience(connection: sa.Connection) -> Iterator[None]:
    """Lifts the bounds for this transaction: a migration of large tables takes as long as it takes."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
    driver: Any = connection.connection.driver_connection
    usual_s, driver.answer_s = getattr(driver, "answer_s", None), None
    try:
        yield
    finally:
        driver.answer_s = usual_s


def is_read_only(error: BaseException | None) -> bool:
    """Whether a driver's error says that the server takes no writes now."""
    return getattr(error, "sqlstate", None) == READ_ONLY


def _bounded(seconds: float) -> Any:
    """The class of connections. Made where it is needed: SQLite needs no psycopg."""
    import psycopg

    if "timeout" not in inspect.signature(psycopg.Connection.wait).parameters:
        return psycopg.Connection  # an older psycopg, which cannot be bounded
    # A private name: where a release lacks it, `except ()` catches nothing and the error passes as it is.
    expired: Any = getattr(psycopg.errors, "_WaitTimeout", ())

    class Bounded(psycopg.Connection[Any]):
        answer_s: float | None = seconds

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            if timeout is not None or self.answer_s is None:
                return super().wait(gen, interval, timeout)
            try:
                return super().wait(gen, interval, self.answer_s)
            except expired:
                # Its answer may come yet, and would be taken for that of the next statement: this connection is over.
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {self.answer_s:g} s") from None

    return Bounded
