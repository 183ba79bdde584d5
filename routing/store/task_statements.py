"""The scheduler's statements on task instances: their moves, their next tries, the results that they left."""

from collections.abc import Collection, Iterable
from datetime import datetime
from functools import cache
from typing import Any, cast

import sqlalchemy as sa

from routing.store import entries, states, tables, transaction


class TaskStatements(transaction.Transaction):
    """Task instances, many at once."""

    def move_tasks(self, moves: Iterable[entries.TaskMove]) -> None:
        """Move task instances. Raises Conflict where one was not in a state that may move there."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for move in moves:
            # The prefix: SQLAlchemy keeps a column's own name for the value that it binds by itself.
            groups.setdefault(move.state, []).append({f"new_{name}": value for name, value in vars(move).items()})
        for state, rows in groups.items():
            self._update(_move_task(state), rows, what=f"task instance -> {state}")

    def due_retries(self, *, now: datetime, limit: int) -> list[tuple[int, str]]:
        """(run, task id) of task instances whose next try is due, the longest due first."""
        query = (
            sa.select(tables.TASK.c.run, tables.TASK.c.task_id)
            .where(tables.TASK.c.state == "up_for_retry", tables.TASK.c.next_try_at <= now)
            .order_by(tables.TASK.c.next_try_at)
            .limit(limit)
        )
        return [(row.run, row.task_id) for row in self._connection.execute(query)]

    def next_retry_at(self) -> datetime | None:
        """When the next try is due."""
        query = sa.select(sa.func.min(tables.TASK.c.next_try_at)).where(tables.TASK.c.state == "up_for_retry")
        return cast("datetime | None", self._connection.scalar(query))

    def insert_xcoms(self, values: Iterable[tuple[int, str, Any]]) -> None:
        """Store results: (task instance, attempt, value)."""
        rows = [
            {"task_instance": task, "key": "return_value", "value": value, "attempt": by} for task, by, value in values
        ]
        if rows:
            self._connection.execute(sa.insert(tables.XCOM), rows)

    def results(self, task_instances: Collection[int]) -> dict[int, Any]:
        """Results by task instance, for those that left one."""
        found: dict[int, Any] = {}
        for chunk in transaction.chunks(sorted(task_instances)):
            query = sa.select(tables.XCOM.c.task_instance, tables.XCOM.c.value).where(
                tables.XCOM.c.key == "return_value", tables.XCOM.c.task_instance.in_(chunk)
            )
            found.update({row.task_instance: row.value for row in self._connection.execute(query)})
        return found


@cache
def _move_task(state: str) -> sa.Update:
    def kept(name: str) -> Any:
        column = tables.TASK.c[name]
        # Within coalesce() no type is derived from the column, and times and JSON would be bound as they are.
        return sa.func.coalesce(sa.bindparam(f"new_{name}", type_=column.type), column)

    def set_to(name: str) -> Any:
        return sa.bindparam(f"new_{name}", type_=tables.TASK.c[name].type)

    return (
        sa.update(tables.TASK)
        .where(
            tables.TASK.c.id == sa.bindparam("new_task_instance"),
            transaction.may_move(tables.TASK.c.state, states.TASK_MOVES, state),
        )
        .values(
            state=set_to("state"),
            attempts=kept("attempts"),
            infra_failures=kept("infra_failures"),
            lessons=kept("lessons"),
            started_at=kept("started_at"),
            ended_at=set_to("ended_at"),
            next_try_at=set_to("next_try_at"),
            reason=set_to("reason"),
        )
    )
