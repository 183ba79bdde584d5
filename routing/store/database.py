"""The connection to the database: how it is opened, and what a reading and a writing transaction are.

SQLite runs in WAL mode with foreign keys, and its writers take the lock when they begin (`BEGIN IMMEDIATE`), so that
a transaction never fails half way because another one wrote. Only `routing.store` imports this module.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from dispatcher.attempts import db_timeouts
from routing.store import columns, store_errors

# So long a writer waits for the transaction of another; then the database counts as away, and the turn is done again.
SQLITE_BUSY_S = 15.0
WRITES = "podyard_writes"


class Database:
    """One engine; `read()` and `write()` give a connection inside a transaction."""

    def __init__(self, url: str, *, bounds: db_timeouts.Bounds | None = None) -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _server_engine(self.url, bounds)
        # The same pool; the option is what the "begin" listener asks for.
        self._writer = self.engine.execution_options(**{WRITES: True})

    @property
    def address(self) -> str:
        """The URL without its password, for messages."""
        return self.url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads. Raises DatabaseUnavailable."""
        with self._mapped(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that is committed at the end of the block. Raises DatabaseUnavailable."""
        with self._mapped(), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            if _is_ours(error):
                raise
            raise store_errors.DatabaseUnavailable(f"{self.address}: {_first_line(error)}") from error
        # A PostgreSQL server that takes no writes (25006, a standby) raises an InternalError, not an OperationalError.
        except exc.DatabaseError as error:
            if db_timeouts.is_read_only(error.orig):
                raise store_errors.DatabaseUnavailable(f"{self.address}: {_first_line(error)}") from error
            if self.is_sqlite and "not a database" in str(error):
                raise store_errors.RecordError(
                    f"{self.address} is not a database: set database.url to another file"
                ) from error
            raise

    def ping(self) -> None:
        """Returns if the database answers. Raises DatabaseUnavailable."""
        with self.read() as connection:
            connection.execute(sa.select(1))

    def exists(self) -> bool:
        """False for a SQLite file that is not there (which a connection would create)."""
        return (
            not self.is_sqlite or self.url.database in (None, "", ":memory:") or Path(str(self.url.database)).exists()
        )

    def make_folder(self) -> None:
        """Make the folder of a SQLite file."""
        if self.is_sqlite and self.url.database not in (None, "", ":memory:"):
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url,
        json_serializer=columns.dumps,
        # The scheduler's threads take turns at the connections of one pool;
        # SQLAlchemy sees to it that no two use one at once.
        connect_args={"timeout": SQLITE_BUSY_S, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver would begin transactions by its own rules
        # Foreign keys are checked per connection, and by default not at all. NORMAL syncs a WAL at checkpoints only: a
        # power cut may cost the last commits, and harms nothing else.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get(WRITES)
        # A plain BEGIN that writes later fails at once (SQLITE_BUSY), without the busy
        # timeout, if somebody wrote since it read.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _server_engine(url: sa.URL, bounds: db_timeouts.Bounds | None) -> sa.Engine:
    engine = sa.create_engine(
        url,
        json_serializer=columns.dumps,
        # After a restart of the server the pool holds dead connections: a ping finds that before a statement fails.
        pool_pre_ping=True,
        pool_size=5,
        connect_args=db_timeouts.arguments(),
    )
    db_timeouts.bound(engine, bounds)
    return engine


def _is_ours(error: exc.SQLAlchemyError) -> bool:
    """Whether the statement is at fault (a missing table or column), which waiting does not heal."""
    # SQLite calls these operational errors, as it calls a locked database; psycopg calls them programming errors.
    text = str(getattr(error, "orig", error))
    return "no such table" in text or "no such column" in text or "has no column" in text


def _first_line(error: exc.SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
