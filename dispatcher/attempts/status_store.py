"""The pods' own table: pod status for people, and what to look for after a restart. The dispatcher's only door to SQL.

One row per launch, that is per (attempt id, Celery retries). Rows are written in batches and replaced whole, so a late
or doubled write cannot hurt. The dispatcher works without this table: it is for `podyard pods`, `tasks explain` and for
finding pods that were deleted while nobody watched (`dispatcher.watching.lost_pods`). `routing.store` migrates it with
its own tables (`METADATA`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from dispatcher import errors
from dispatcher.attempts import db_timeouts

METADATA = sa.MetaData()


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware UTC time; SQLite keeps none of the zone, so it is added again on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        # PostgreSQL gives the zone of the session, SQLite none at all.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


POD = sa.Table(
    "pod",
    METADATA,
    sa.Column("attempt_id", sa.String(255), primary_key=True),
    sa.Column("retries", sa.Integer, primary_key=True),
    sa.Column("deployment", sa.String(256), nullable=False),
    sa.Column("name", sa.String(253), nullable=False),
    sa.Column("namespace", sa.String(63), nullable=False),
    sa.Column("uid", sa.String(64)),
    sa.Column("queue", sa.String(256), nullable=False),
    sa.Column("task", sa.String(512), nullable=False),
    sa.Column("owner", sa.String(256), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(256)),
    sa.Column("message", sa.Text),
    sa.Column("cause", sa.String(16)),
    sa.Column("exit_code", sa.Integer),
    sa.Column("node", sa.String(253)),
    sa.Column("log", sa.Text),
    sa.Column("received_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime),
    sa.Column("started_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("deleted_at", UtcDateTime),
    sa.Column("reported_at", UtcDateTime),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("waiting_since", UtcDateTime),
    sa.Column("deadline_at", UtcDateTime),
    sa.Column("at_deadline", sa.String(8)),
    sa.Index("ix_pod_updated_at", "updated_at"),  # `pods`: the newest first
    sa.Index("ix_pod_reported", "deployment", "reported_at", "updated_at"),  # `open_rows`
)


@dataclass(frozen=True, kw_only=True)
class PodRow:
    """What people may know of one launch. Times are aware UTC.

    `phase` is Kubernetes' (Pending, Running, Succeeded, Failed, Unknown) or a word of ours: before the pod exists
    `Waiting`, with the reason for it in `reason`, or `Revoked`; `Lost` where the pod is gone and nobody saw its end.
    """

    attempt_id: str
    retries: int
    deployment: str
    name: str
    namespace: str
    queue: str
    task: str
    owner: str
    phase: str
    updated_at: datetime
    uid: str | None = None
    reason: str | None = None
    message: str | None = None
    cause: str | None = None
    exit_code: int | None = None
    node: str | None = None
    log: str | None = None
    """Where the pod's log was saved, or None while it was not."""
    received_at: datetime | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deleted_at: datetime | None = None
    reported_at: datetime | None = None
    """When its end was stored as the task's result, or nothing was left to store; None while that is to be done."""
    waiting_since: datetime | None = None
    """Since when it waits for what `reason` says; None where it does not wait."""
    deadline_at: datetime | None = None
    """When that wait is over; None for never."""
    at_deadline: str | None = None
    """What happens then: `wait` (on), `retry` or `fail`; the rules are `dispatcher.attempts.wait_rules`."""


def _unchanged(row: PodRow) -> tuple[sa.ColumnElement[bool], ...]:
    # In place of a lock: whoever has adopted the pod meanwhile has written its row anew, which then stays.
    keys = (POD.c.attempt_id == row.attempt_id, POD.c.retries == row.retries)
    return (*keys, POD.c.phase == row.phase, POD.c.updated_at == row.updated_at)


def plain_text(text: str) -> str:
    """`text` unless a database could refuse it: NUL becomes `\\x00`, a lone surrogate its `\\udcXX` escape."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _fitting(value: Any, column: sa.Column[Any]) -> Any:
    """A value as any database takes it: PostgreSQL refuses a text that is too long for its column, too.

    What a container wrote as its last words would keep the rows of all other pods from being written.
    """
    if not isinstance(value, str) or not isinstance(column.type, sa.String):
        return value
    return plain_text(value)[: column.type.length]


UNLAUNCHED_PHASES = ("Waiting", "Revoked")
"""The phases of a row without a pod that ever was."""
OPEN_PHASES = ("Waiting", "Pending", "Running", "Unknown")
LOST = "the pod was deleted while no dispatcher watched; nothing is known of its end"
NO_TABLES = "the pods' table cannot be used: there is none, or one of another version; run `podyard db upgrade`"
_UNDEFINED = ("42P01", "42703")
"""PostgreSQL's codes for a table and a column that do not exist."""
_COLUMNS = tuple(field.name for field in fields(PodRow))
_KEY = ("attempt_id", "retries")


def _lacks_tables(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether the database answers and has no tables of ours, or those of another version."""
    cause = getattr(error, "orig", None)
    # SQLite has no codes for it, only its words.
    if getattr(cause, "sqlstate", None) in _UNDEFINED:
        return True
    return str(cause).startswith(("no such table", "no such column", "table pod has no column"))


class PodStore:
    """Reads and writes the pods' table. Calls block; each is bounded by the database's own time-outs.

    `url` is an SQLAlchemy URL, as in the settings (`sqlite:///…` or `postgresql+psycopg://…`).
    Raises StoreUnavailable where the database cannot be reached or lacks the tables.
    """

    def __init__(self, url: str) -> None:
        # SQLite's: seconds to wait while another process writes (one may at a time).
        arguments: dict[str, Any] = {"timeout": 10} if url.startswith("sqlite") else db_timeouts.arguments()
        # One connection: whoever has a store asks one thing after the other. `pre_ping`, since a database that was
        # restarted meanwhile should not cost the first batch of rows.
        self._engine = sa.create_engine(url, pool_pre_ping=True, pool_size=1, connect_args=arguments)
        db_timeouts.bound(self._engine)
        self._insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """A health check of the database; it need not have tables."""
        with self._transaction() as connection:
            connection.execute(sa.select(1))

    def save(self, rows: Sequence[PodRow]) -> None:
        """Inserts or replaces rows, all in one transaction."""
        if rows:
            values = [{name: _fitting(value, POD.c[name]) for name, value in asdict(row).items()} for row in rows]
            self._upsert(POD, values, key=_KEY)

    def pods(self, *, attempt_ids: Iterable[str] | None = None, limit: int = 1000) -> list[PodRow]:
        """The newest rows first, at most `limit`; only those of the given attempts where any are given."""
        query = sa.select(*(POD.c[name] for name in _COLUMNS)).order_by(POD.c.updated_at.desc()).limit(limit)
        if attempt_ids is not None:
            query = query.where(POD.c.attempt_id.in_([_fitting(one, POD.c.attempt_id) for one in attempt_ids]))
        with self._transaction() as connection:
            return [PodRow(**row) for row in connection.execute(query).mappings()]

    def open_rows(self, *, deployment: str, before: datetime, limit: int = 10_000) -> list[PodRow]:
        """Launches of a deployment whose end is not reported, last written before this time, the longest ago first."""
        query = (
            sa.select(*(POD.c[name] for name in _COLUMNS))
            .where(POD.c.deployment == deployment, POD.c.reported_at.is_(None), POD.c.updated_at < before)
            .order_by(POD.c.updated_at)
            .limit(limit)
        )
        with self._transaction() as connection:
            return [PodRow(**row) for row in connection.execute(query).mappings()]

    def forget(self, row: PodRow) -> None:
        """Removes a row, unless it was written since."""
        with self._transaction() as connection:
            connection.execute(sa.delete(POD).where(*_unchanged(row)))

    def end(self, row: PodRow, *, phase: str, at: datetime) -> None:
        """Ends a row whose pod is gone, unless it was written since. `phase` as in `PodRow`."""
        # `reported_at` with the end, in one statement: an end without it would be looked for again.
        facts: dict[str, Any] = {"phase": phase, "ended_at": row.ended_at or at}
        facts |= dict.fromkeys(("deleted_at", "reported_at", "updated_at"), at)
        if phase == "Lost":
            facts |= {"reason": "PodDeleted", "cause": "infrastructure", "message": LOST}
        with self._transaction() as connection:
            connection.execute(sa.update(POD).where(*_unchanged(row)).values(**facts))

    def reported(self, row: PodRow, *, at: datetime) -> None:
        """Notes that the end of a row is reported, unless the row was written since."""
        with self._transaction() as connection:
            connection.execute(sa.update(POD).where(*_unchanged(row)).values(reported_at=at))

    def _upsert(self, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, key: tuple[str, ...]) -> None:
        statement = self._insert(table)
        changes = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
        with self._transaction() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changes), list(rows))

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            if _lacks_tables(error):
                raise errors.StoreUnavailable(NO_TABLES) from error
            # SQLAlchemy's other lines are the statement and its values: messages of pods, which belong in no log.
            first = str(error).partition("\n")[0]
            raise errors.StoreUnavailable(f"the pods' table cannot be used: {first}") from error
