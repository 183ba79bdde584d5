"""The scheduler's statements on runs: which are to start, what one consists of, how it moves."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, cast

import sqlalchemy as sa

from routing.store import entries, states, tables, transaction


class RunStatements(transaction.Transaction):
    """Runs with their task instances."""

    def runs_in(self, state: str, *, limit: int | None = None) -> list[int]:
        """Runs in a state, oldest first."""
        query = sa.select(tables.RUN.c.id).where(tables.RUN.c.state == state).order_by(tables.RUN.c.id).limit(limit)
        return list(self._connection.scalars(query))

    def queued_runs(self, *, limit: int) -> list[int]:
        """Runs to start, oldest first, but none of a paused DAG."""
        query = (
            sa.select(tables.RUN.c.id)
            .join(tables.DAG, tables.DAG.c.dag_id == tables.RUN.c.dag_id)
            .where(tables.RUN.c.state == "queued", tables.DAG.c.is_paused.is_(False))
            .order_by(tables.RUN.c.id)
            .limit(limit)
        )
        return list(self._connection.scalars(query))

    def run(self, run: int) -> entries.RunState | None:
        """A run with its task instances."""
        head = self._connection.execute(_run(), {"run": run}).mappings().first()
        if head is None:
            return None
        tasks = [entries.TaskState(**row) for row in self._connection.execute(_run_tasks(), {"run": run}).mappings()]
        return entries.RunState(**head, tasks=tasks)

    def run_state(self, run: int) -> str | None:
        """The state of a run."""
        return self._connection.scalar(sa.select(tables.RUN.c.state).where(tables.RUN.c.id == run))

    def structure(self, version_id: int) -> Mapping[str, Any]:
        """The structure of a DAG version."""
        found = self._connection.scalar(sa.select(tables.VERSION.c.structure).where(tables.VERSION.c.id == version_id))
        return cast("Mapping[str, Any]", found)

    def move_run(self, run: int, state: str, *, at: datetime, reason: str | None = None) -> bool:
        """Move a run; returns whether it happened (somebody may have cancelled it)."""
        times = {"started_at": at} if state == "running" else {"ended_at": at}
        query = (
            sa.update(tables.RUN)
            .where(tables.RUN.c.id == run, tables.RUN.c.state.in_(sorted(states.sources(states.RUN_MOVES, state))))
            .values(state=state, reason=reason, **times)
        )
        # No Conflict where the guard does not hold: a run that was cancelled meanwhile is an answer, not a fault.
        return self._connection.execute(query).rowcount == 1


@cache
def _run() -> sa.Select[Any]:
    names = ("id", "run_id", "dag_id", "version_id", "state", "logical_date", "conf")
    return sa.select(*(tables.RUN.c[name] for name in names)).where(tables.RUN.c.id == sa.bindparam("run"))


@cache
def _run_tasks() -> sa.Select[Any]:
    names = entries.TaskState.__dataclass_fields__
    return (
        sa.select(*(tables.TASK.c[name] for name in names))
        .where(tables.TASK.c.run == sa.bindparam("run"))
        .order_by(tables.TASK.c.id)
    )
