"""A transaction of the scheduler: what its groups of statements stand on, and the guard that each UPDATE carries.

A guard that does not hold raises Conflict, and then nothing of the transaction is kept: the caller reads again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from routing.store import states, store_errors


class Transaction:
    """One connection inside a transaction that somebody else begins and ends."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def _update(self, statement: sa.Update, rows: list[dict[str, Any]], *, what: str) -> None:
        # Both drivers count the rows of all executions together, so one short
        # tells that a guard did not hold, not which.
        happened = self._connection.execute(statement, rows).rowcount
        if happened != len(rows):
            raise store_errors.Conflict(
                f"{what}: {len(rows) - happened} of {len(rows)} rows were not in a state that may"
            )


# SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535.
def chunks(items: Sequence[Any], size: int = 1000) -> Iterable[Sequence[Any]]:
    """Parts of a long list, since a statement takes a bounded number of parameters."""
    return (items[start : start + size] for start in range(0, len(items), size))


def may_move(column: sa.Column[Any], moves: Mapping[str, frozenset[str]], target: str) -> sa.ColumnElement[bool]:
    """`state IN (…)` with the words written out, so that the statement is the same for every row and batch."""
    words: list[Any] = [sa.literal_column(f"'{state}'") for state in sorted(states.sources(moves, target))]
    return column.in_(words)
