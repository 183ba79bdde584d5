"""The store: one database with the whole record, for people (its parts) and for the scheduler (its transactions).

The command line, the web pages and whoever starts a run call this. What the scheduler writes in bulk is in `ledger`.
Every method raises DatabaseUnavailable where the database cannot be reached.
"""

import contextlib
from collections.abc import Iterator
from typing import Self

from routing.store import catalogue, database, ledger, liveness, rows, run_history, schema, store_errors


class Store(catalogue.Catalogue, run_history.RunHistory, liveness.Liveness):
    """One database: `Store.open(url)`; `upgrade()` makes or migrates its tables."""

    @classmethod
    def open(cls, url: str) -> Self:
        """Return a store on `url` (`sqlite:///path` or `postgresql+psycopg://…`); connects when first needed."""
        return cls(database.Database(url))

    def close(self) -> None:
        """Close all connections."""
        self.db.close()

    def upgrade(self) -> None:
        """Bring the tables to the revision of this code; safe to call by several processes at once.

        Raises SchemaError for a database of a newer version than this code.
        """
        schema.upgrade(self.db)

    def ping(self) -> None:
        """Ask the database for an answer. Raises DatabaseUnavailable."""
        self.db.ping()

    def check(self) -> rows.SchemaCheck:
        """Say whether the database fits this code."""
        return schema.check(self.db)

    def require_schema(self) -> None:
        """Raise SchemaError, which says what to do, unless the database fits this code."""
        found = self.check()
        if not found.ok:
            raise store_errors.SchemaError(found.message)

    @contextlib.contextmanager
    def writing(self) -> Iterator[ledger.Ledger]:
        """A writing transaction of the scheduler, committed at the end of the block."""
        with self.db.write() as connection:
            yield ledger.Ledger(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[ledger.Ledger]:
        """A transaction of the scheduler that only reads."""
        with self.db.read() as connection:
            yield ledger.Ledger(connection)
