"""Rows of docs/failure-modes.md about the database: a real PostgreSQL that hangs, refuses, locks or takes no writes."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from dispatcher.attempts import db_timeouts
from routing.store import Store, store_errors
from routing.store.database import Database
from tests import parts

BOUNDS = db_timeouts.Bounds(answer_s=1.5, lock_s=0.5)


@pytest.fixture(scope="module")
def server() -> Iterator[parts.Postgres]:
    """A PostgreSQL of this module alone: it is stopped and filled up."""
    server = parts.Postgres.start()
    yield server
    server.stop()


@pytest.fixture
def name(server: parts.Postgres) -> str:
    """An empty database."""
    return server.create_database()


@pytest.fixture
def store(server: parts.Postgres, name: str) -> Iterator[Store]:
    """Its tables, by connections with short bounds."""
    store = Store(Database(server.url(name), bounds=BOUNDS))
    store.upgrade()
    yield store
    store.close()


def hold(store: Store) -> None:
    """A write of the scheduler's."""
    with store.writing() as book:
        book.take("scheduler", "somebody", lease_s=15.0, now=datetime.now(UTC))


def test_S1_a_database_that_hangs_is_away_within_a_bound_and_back_at_once(server: parts.Postgres, store: Store) -> None:
    """A server that stands still gives no error by itself; with the bound it is an outage like any other."""
    hold(store)
    with server.paused(), pytest.raises(store_errors.DatabaseUnavailable, match=r"no answer within 1\.5 s|timeout"):
        hold(store)
    hold(store)


def test_S5_a_server_without_free_connections_is_waited_for(server: parts.Postgres, name: str) -> None:
    """All are taken by somebody else: an outage with the server's words, over as soon as one is given back."""
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(Exception):
            for _ in range(100):
                taken.enter_context(server.connect())
        store = Store(Database(server.url(name), bounds=BOUNDS))
        with pytest.raises(store_errors.DatabaseUnavailable, match="too many clients"):
            store.check()
    parts.eventually(store.check, what="the next try finds a connection")
    store.close()


def test_S6_a_row_that_somebody_locked_is_told_and_waited_for(server: parts.Postgres, store: Store, name: str) -> None:
    """A person's open transaction does not stop the process for ever, and the message says that it is a lock."""
    hold(store)
    with server.connect(name) as person, person.transaction():
        person.execute("LOCK TABLE lease IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(store_errors.DatabaseUnavailable, match="lock timeout"):
            hold(store)
    hold(store)


def test_S7_a_server_that_takes_no_writes_is_an_outage(server: parts.Postgres, store: Store, name: str) -> None:
    """As a standby after a fail-over says it, or a server whose disk is full and was made read-only."""
    with server.connect() as admin:
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    store.close()
    with pytest.raises(store_errors.DatabaseUnavailable, match="read-only"):
        hold(store)
    with server.connect() as admin:
        admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    store.close()
    hold(store)
