"""A part of the record: what each part of `Store` stands on, and the two ways in which they write single rows.

Every method of a part raises DatabaseUnavailable where the database cannot be reached.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from routing.store import database


class RecordPart:
    """Some tables of one database."""

    def __init__(self, db: database.Database) -> None:
        self.db = db


def inserted(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> int:
    """Insert a row; gives the id that the database chose."""
    return int(connection.execute(sa.insert(table).values(**values).returning(table.c.id)).scalar_one())


def put(connection: sa.Connection, table: sa.Table, mine: sa.ColumnElement[bool], row: Mapping[str, Any]) -> None:
    """Update the row that `mine` finds, else insert it: few rows, and one writer of each."""
    if connection.execute(sa.update(table).where(mine).values(**row)).rowcount == 0:
        connection.execute(sa.insert(table).values(**row))
