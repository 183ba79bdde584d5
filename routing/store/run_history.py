"""The history of runs: each with its task instances, attempts and results, and why a task is where it is."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa

from routing.store import catalogue, explanation, liveness, record, rows, states, store_errors, tables


class RunHistory(record.RecordPart):
    """Runs by their ids."""

    def create_run(
        self, dag_id: str, *, run_id: str | None = None, conf: Mapping[str, Any] | None = None, at: datetime
    ) -> rows.RunRow:
        """Queue a run of the newest version, with a task instance for each task.

        Raises RecordError: unknown DAG, a DAG without tasks in the folder any more, or a run of that id exists.
        """
        while True:
            try:
                return self._create_run(dag_id, run_id, conf, at)
            except sa.exc.IntegrityError:  # PostgreSQL lets two callers look at once: one of them was faster
                if run_id is not None:
                    raise _taken(dag_id, run_id) from None

    def _create_run(self, dag_id: str, run_id: str | None, conf: Mapping[str, Any] | None, at: datetime) -> rows.RunRow:
        with self.db.write() as connection:
            dag = catalogue.newest(connection, dag_id)
            if dag is None or not dag.is_active:
                raise store_errors.RecordError(catalogue.why_unknown(connection, dag_id, is_gone=dag is not None))
            name = run_id or _free_run_id(connection, dag_id, at)
            if run_id is not None and connection.scalar(
                sa.select(tables.RUN.c.id).where(tables.RUN.c.dag_id == dag_id, tables.RUN.c.run_id == name)
            ):
                raise _taken(dag_id, name)
            # The run keeps this version, whatever becomes of the file while it runs (A15).
            values: dict[str, Any] = {"run_id": name, "dag_id": dag_id, "version_id": dag.version, "run_type": "manual"}
            values |= {"logical_date": at, "conf": dict(conf or {}), "state": "queued", "created_at": at}
            run = record.inserted(connection, tables.RUN, values)
            # In the same transaction: a run that the scheduler sees has all of its tasks.
            tasks = [{"run": run, "task_id": task["task_id"], "state": "none"} for task in dag.structure["tasks"]]
            if tasks:
                connection.execute(sa.insert(tables.TASK), tasks)
            return _run_row(connection, run)

    def cancel_run(self, run_id: str, *, dag_id: str | None = None, at: datetime) -> bool:
        """End a run and its tasks as cancelled; the scheduler then stops what runs. Returns whether it happened.

        Raises RecordError for an unknown run.
        """
        with self.db.write() as connection:
            run = _require_run(connection, run_id, dag_id)
            may = tables.RUN.c.state.in_(sorted(states.sources(states.RUN_MOVES, "cancelled")))
            query = sa.update(tables.RUN).where(tables.RUN.c.id == run, may).values(state="cancelled", ended_at=at)
            if connection.execute(query).rowcount != 1:
                return False
            # Tasks alone: whether an attempt could be stopped is found out by the
            # sweep, which blocks or revokes it (B15).
            may = tables.TASK.c.state.in_(sorted(states.sources(states.TASK_MOVES, "cancelled")))
            values = {"state": "cancelled", "ended_at": at, "reason": "the run was cancelled", "next_try_at": None}
            connection.execute(sa.update(tables.TASK).where(tables.TASK.c.run == run, may).values(**values))
            return True

    def runs(self, dag_id: str | None = None, limit: int = 100) -> list[rows.RunRow]:
        """The newest runs first, with `task_states`."""
        query = _RUNS.order_by(tables.RUN.c.id.desc()).limit(limit)
        if dag_id is not None:
            query = query.where(tables.RUN.c.dag_id == dag_id)
        with self.db.read() as connection:
            found = [rows.RunRow(**row) for row in connection.execute(query).mappings()]
            counts = _task_states(connection, [run.id for run in found])
            return [replace(run, task_states=counts.get(run.id, {})) for run in found]

    def run(self, run_id: str, *, dag_id: str | None = None) -> rows.RunRow | None:
        """One run, with `task_states`. Raises RecordError where several DAGs have a run of that id."""
        with self.db.read() as connection:
            run = _find_run(connection, run_id, dag_id)
            return None if run is None else _run_row(connection, run)

    def tasks(self, run_id: str, *, dag_id: str | None = None) -> list[rows.TaskRow]:
        """The task instances of a run in the DAG's order; none for an unknown run."""
        with self.db.read() as connection:
            run = _find_run(connection, run_id, dag_id)
            return [] if run is None else _task_rows(connection, run)

    def attempts(self, run_id: str, task_id: str | None = None, *, dag_id: str | None = None) -> list[rows.AttemptRow]:
        """The attempts of a run, or of one task of it, oldest first."""
        with self.db.read() as connection:
            run = _find_run(connection, run_id, dag_id)
            return [] if run is None else _attempt_rows(connection, run, task_id)

    def attempt(self, attempt_id: str) -> rows.AttemptRow | None:
        """One attempt by its id, the Celery task id."""
        with self.db.read() as connection:
            row = connection.execute(_ATTEMPTS.where(tables.ATTEMPT.c.id == attempt_id)).mappings().first()
            return None if row is None else _attempt_row(row)

    def xcoms(self, run_id: str, *, dag_id: str | None = None) -> list[rows.XComRow]:
        """The results that tasks of a run left."""
        with self.db.read() as connection:
            run = _find_run(connection, run_id, dag_id)
            query = _XCOMS.where(tables.RUN.c.id == run).order_by(tables.TASK.c.id, tables.XCOM.c.key)
            return [rows.XComRow(**row) for row in connection.execute(query).mappings()]

    def explain(self, run_id: str, task_id: str, *, dag_id: str | None = None, at: datetime) -> rows.Explanation:
        """Why a task is where it is, as of `at`. Raises RecordError for an unknown run or task."""
        with self.db.read() as connection:
            run = _require_run(connection, run_id, dag_id)
            tasks = {task.task_id: task for task in _task_rows(connection, run)}
            if task_id not in tasks:
                known = ", ".join(sorted(tasks)[:10])
                raise store_errors.RecordError(f"run {run_id!r} has no task {task_id!r}; its tasks: {known}")
            task = tasks[task_id]
            spec = next(t for t in _structure(connection, run)["tasks"] if t["task_id"] == task_id)
            facts = rows.Explanation(
                task=task,
                run=_run_row(connection, run),
                attempts=tuple(_attempt_rows(connection, run, task_id)),
                upstream={name: tasks[name].state for name in spec["upstream"] if name in tasks},
                consumers=tuple(
                    consumer for consumer in liveness.consumers(connection) if consumer.queue == task.queue
                ),
                pod=_pod(connection, task.attempt),
                wait=None,
                lines=(),
            )
        facts = replace(facts, wait=explanation.wait(facts), diagnosis=explanation.diagnosed(facts))
        return replace(facts, lines=explanation.lines(facts, trigger_rule=spec["trigger_rule"], at=at))

    def queues(self) -> list[rows.QueueRow]:
        """The queues in which attempts wait that have not begun."""
        query = (
            sa.select(
                tables.ATTEMPT.c.queue, sa.func.count().label("waiting"), sa.func.min(tables.ATTEMPT.c.created_at)
            )
            .where(tables.ATTEMPT.c.state.in_(("recorded", "sent")))
            .group_by(tables.ATTEMPT.c.queue)
            .order_by(tables.ATTEMPT.c.queue)
        )
        with self.db.read() as connection:
            return [
                rows.QueueRow(queue=queue, waiting=waiting, oldest_at=oldest_at)
                for queue, waiting, oldest_at in connection.execute(query)
            ]


_RUN_COLUMNS = ("id", "run_id", "dag_id", "run_type", "logical_date", "conf", "state", "created_at", "started_at")
_RUNS = sa.select(*(tables.RUN.c[name] for name in _RUN_COLUMNS), tables.RUN.c.ended_at, tables.RUN.c.reason)

_OF_ATTEMPT = {
    "run_id": tables.RUN.c.run_id,
    "dag_id": tables.RUN.c.dag_id,
    "task_id": tables.TASK.c.task_id,
    "map_index": tables.TASK.c.map_index,
}
_XCOMS = (
    sa.select(*_OF_ATTEMPT.values(), tables.XCOM.c.key, tables.XCOM.c.value, tables.XCOM.c.attempt)
    .join(tables.TASK, tables.TASK.c.id == tables.XCOM.c.task_instance)
    .join(tables.RUN, tables.RUN.c.id == tables.TASK.c.run)
)
_NOT_PLAIN = {**_OF_ATTEMPT, "lessons": tables.ATTEMPT.c.message["headers", "podyard", "lessons"].label("lessons")}
_ATTEMPTS = (
    sa.select(
        *(
            _NOT_PLAIN[name] if name in _NOT_PLAIN else tables.ATTEMPT.c[name]
            for name in rows.AttemptRow.__dataclass_fields__
        )
    )
    .join(tables.TASK, tables.TASK.c.id == tables.ATTEMPT.c.task_instance)
    .join(tables.RUN, tables.RUN.c.id == tables.TASK.c.run)
)


def _taken(dag_id: str, run_id: str) -> store_errors.RecordError:
    return store_errors.RecordError(f"DAG {dag_id!r} has a run {run_id!r} already: choose another run id")


def _free_run_id(connection: sa.Connection, dag_id: str, at: datetime) -> str:
    name = f"manual__{at.astimezone(UTC).isoformat()}"
    # Two callers may give the same time.
    if connection.scalar(sa.select(tables.RUN.c.id).where(tables.RUN.c.dag_id == dag_id, tables.RUN.c.run_id == name)):
        return f"{name}_{secrets.token_hex(3)}"
    return name


def _find_run(connection: sa.Connection, run_id: str, dag_id: str | None) -> int | None:
    query = sa.select(tables.RUN.c.id, tables.RUN.c.dag_id).where(tables.RUN.c.run_id == run_id)
    if dag_id is not None:
        query = query.where(tables.RUN.c.dag_id == dag_id)
    # Two are enough to know that the name is ambiguous.
    found = connection.execute(query.limit(2)).all()
    if len(found) > 1:
        both = " and ".join(repr(row.dag_id) for row in found)
        raise store_errors.RecordError(f"several DAGs have a run {run_id!r} ({both}): name the DAG, too")
    return int(found[0].id) if found else None


def _require_run(connection: sa.Connection, run_id: str, dag_id: str | None) -> int:
    run = _find_run(connection, run_id, dag_id)
    if run is None:
        of = f" of DAG {dag_id!r}" if dag_id else ""
        raise store_errors.RecordError(f"there is no run {run_id!r}{of}: see `podyard runs list`")
    return run


def _run_row(connection: sa.Connection, run: int) -> rows.RunRow:
    row = connection.execute(_RUNS.where(tables.RUN.c.id == run)).mappings().one()
    return rows.RunRow(**row, task_states=_task_states(connection, [run]).get(run, {}))


def _task_states(connection: sa.Connection, runs: Sequence[int]) -> dict[int, dict[str, int]]:
    query = (
        sa.select(tables.TASK.c.run, tables.TASK.c.state, sa.func.count().label("tasks"))
        .where(tables.TASK.c.run.in_(runs))
        .group_by(tables.TASK.c.run, tables.TASK.c.state)
        .order_by(tables.TASK.c.run, tables.TASK.c.state)
    )
    counts: dict[int, dict[str, int]] = {}
    for row in connection.execute(query):
        counts.setdefault(row.run, {})[row.state] = row.tasks
    return counts


def _structure(connection: sa.Connection, run: int) -> Mapping[str, Any]:
    query = (
        sa.select(tables.VERSION.c.structure)
        .join(tables.RUN, tables.RUN.c.version_id == tables.VERSION.c.id)
        .where(tables.RUN.c.id == run)
    )
    return cast("Mapping[str, Any]", connection.scalar(query))


def _task_rows(connection: sa.Connection, run: int) -> list[rows.TaskRow]:
    """Task instances with their latest attempt and result."""
    specs = {task["task_id"]: task for task in _structure(connection, run)["tasks"]}
    latest = sa.and_(
        tables.ATTEMPT.c.task_instance == tables.TASK.c.id, tables.ATTEMPT.c.number == tables.TASK.c.attempts
    )
    result = sa.and_(tables.XCOM.c.task_instance == tables.TASK.c.id, tables.XCOM.c.key == "return_value")
    query = (
        sa.select(
            *(
                tables.RUN.c.run_id,
                tables.RUN.c.dag_id,
                tables.TASK.c.task_id,
                tables.TASK.c.map_index,
                tables.TASK.c.state,
                tables.TASK.c.next_try_at,
            ),
            *(
                tables.TASK.c.attempts.label("try_number"),
                tables.TASK.c.started_at,
                tables.TASK.c.ended_at,
                tables.TASK.c.reason,
            ),
            *(
                tables.ATTEMPT.c.queue,
                tables.ATTEMPT.c.side,
                tables.ATTEMPT.c.host,
                tables.ATTEMPT.c.pod,
                tables.ATTEMPT.c.runtime_s,
            ),
            *(
                tables.ATTEMPT.c.waiting_reason,
                tables.ATTEMPT.c.id.label("attempt"),
                tables.XCOM.c.value.label("result"),
            ),
        )
        .select_from(tables.TASK)
        .join(tables.RUN, tables.RUN.c.id == tables.TASK.c.run)
        .join(tables.ATTEMPT, latest, isouter=True)
        .join(tables.XCOM, result, isouter=True)
        .where(tables.TASK.c.run == run)
        .order_by(tables.TASK.c.id)
    )
    return [_task_row(row, specs.get(row["task_id"], {})) for row in connection.execute(query).mappings()]


def _task_row(row: sa.RowMapping, spec: Mapping[str, Any]) -> rows.TaskRow:
    operator = spec.get("operator", "")
    # Before there is an attempt the queue is the DAG's word; then that of the attempt, which may have had another rule.
    queue = row["queue"] or (None if operator == "empty" else spec.get("queue"))
    return rows.TaskRow(**{**row, "operator": operator, "queue": queue})


def _attempt_rows(connection: sa.Connection, run: int, task_id: str | None) -> list[rows.AttemptRow]:
    query = _ATTEMPTS.where(tables.TASK.c.run == run).order_by(tables.TASK.c.id, tables.ATTEMPT.c.number)
    if task_id is not None:
        query = query.where(tables.TASK.c.task_id == task_id)
    return [_attempt_row(row) for row in connection.execute(query).mappings()]


def _attempt_row(row: sa.RowMapping) -> rows.AttemptRow:
    return rows.AttemptRow(**{**row, "evidence": tuple(row["evidence"])})


def _pod(connection: sa.Connection, attempt_id: str | None) -> Mapping[str, Any] | None:
    pod = tables.POD
    # One row per launch: Celery's own retries keep the id, and the last launch is the one that counts.
    query = sa.select(*pod.c).where(pod.c.attempt_id == attempt_id).order_by(pod.c.retries.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)
