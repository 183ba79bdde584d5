"""The record as people ask for it: DAGs, runs, tasks, attempts, and why a task is where it is.

The command line, the web pages and whoever starts a run call this. What the scheduler writes in bulk is in
`shared_limits`. Every method raises DatabaseUnavailable where the database cannot be reached.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import sqlalchemy as sa

from dispatcher.attempts import status_store
from routing.store import columns, database, explanation, ledger, models, rows, schema, states, store_errors

DAG = cast("sa.Table", models.Dag.__table__)
DAG_ERROR = cast("sa.Table", models.DagError.__table__)
VERSION = cast("sa.Table", models.DagVersion.__table__)
RUN = cast("sa.Table", models.DagRun.__table__)
TASK = cast("sa.Table", models.TaskInstance.__table__)
ATTEMPT = cast("sa.Table", models.Attempt.__table__)
XCOM = cast("sa.Table", models.XCom.__table__)
CONSUMER = cast("sa.Table", models.QueueConsumer.__table__)
PROCESS = cast("sa.Table", models.Process.__table__)


class Dag(Protocol):
    """What is stored of a DAG: `routing.authoring.spec.DagSpec` is one."""

    @property
    def dag_id(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    def to_json(self) -> Mapping[str, Any]: ...


class LoadError(Protocol):
    """Why a file cannot be used: `routing.authoring.loading.LoadError` is one."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int | None: ...
    @property
    def message(self) -> str: ...


class Loaded(Protocol):
    """What a DAG folder holds: `routing.authoring.loading.Loaded` is one."""

    @property
    def dags(self) -> Sequence[Dag]: ...
    @property
    def errors(self) -> Sequence[LoadError]: ...


class Store:
    """One database: `Store.open(url)`; `upgrade()` makes or migrates its tables."""

    def __init__(self, db: database.Database) -> None:
        self.db = db

    @classmethod
    def open(cls, url: str) -> "Store":
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
        """A sign of life of the database. Raises DatabaseUnavailable."""
        self.db.ping()

    def check(self) -> rows.SchemaCheck:
        """Say whether the database fits this code."""
        return schema.check(self.db)

    def require_schema(self) -> None:
        """Raise SchemaError with the way out unless the database fits this code."""
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

    # --- DAGs

    def save_dags(self, loaded: Loaded, *, at: datetime) -> None:
        """Store what a DAG folder holds: DAGs, new versions, errors. DAGs that are gone become inactive.

        An error of the folder itself (its `file` is empty) says nothing of the DAGs, so they stay as they are.
        """
        with self.db.write() as connection:
            for dag in loaded.dags:
                _save_dag(connection, dag, at=at)
            if all(error.file for error in loaded.errors):
                gone = DAG.c.dag_id.not_in([dag.dag_id for dag in loaded.dags])
                connection.execute(sa.update(DAG).where(DAG.c.is_active, gone).values(is_active=False))
            connection.execute(sa.delete(DAG_ERROR))
            found = [{"file": e.file, "line": e.line, "message": e.message, "seen_at": at} for e in loaded.errors]
            if found:
                connection.execute(sa.insert(DAG_ERROR), found)

    def dags(self) -> list[rows.DagRow]:
        """All DAGs by name, the ones that have gone included (`is_active` is False)."""
        with self.db.read() as connection:
            return [_dag_row(row) for row in connection.execute(_DAGS.order_by(DAG.c.dag_id)).mappings()]

    def dag(self, dag_id: str) -> rows.DagRow | None:
        """One DAG, or None."""
        with self.db.read() as connection:
            row = connection.execute(_DAGS.where(DAG.c.dag_id == dag_id)).mappings().first()
            return None if row is None else _dag_row(row)

    def dag_errors(self) -> list[rows.DagErrorRow]:
        """What is wrong in the DAG folder, by file and line."""
        names = (DAG_ERROR.c.file, DAG_ERROR.c.line, DAG_ERROR.c.message, DAG_ERROR.c.seen_at)
        with self.db.read() as connection:
            query = sa.select(*names).order_by(DAG_ERROR.c.file, DAG_ERROR.c.id)
            return [rows.DagErrorRow(**row) for row in connection.execute(query).mappings()]

    def pause(self, dag_id: str, paused: bool) -> bool:
        """Pause or go on: queued runs of a paused DAG do not start. Returns whether there is such a DAG."""
        with self.db.write() as connection:
            query = sa.update(DAG).where(DAG.c.dag_id == dag_id).values(is_paused=paused)
            return connection.execute(query).rowcount == 1

    # --- runs

    def create_run(
        self, dag_id: str, *, run_id: str | None = None, conf: Mapping[str, Any] | None = None, at: datetime
    ) -> rows.RunRow:
        """Queue a run of the newest version, with a task instance for each task.

        Raises RecordError: unknown DAG, a DAG without tasks in the folder any more, or a run of that id exists.
        """
        with self.db.write() as connection:
            dag = connection.execute(_DAGS.where(DAG.c.dag_id == dag_id)).mappings().first()
            if dag is None or not dag["is_active"]:
                raise store_errors.RecordError(_unknown_dag(connection, dag_id, is_gone=dag is not None))
            name = run_id or _free_run_id(connection, dag_id, at)
            if connection.scalar(sa.select(RUN.c.id).where(RUN.c.dag_id == dag_id, RUN.c.run_id == name)):
                raise store_errors.RecordError(f"DAG {dag_id!r} has a run {name!r} already: choose another run id")
            values = {"run_id": name, "dag_id": dag_id, "version_id": dag["version"], "run_type": "manual"}
            values |= {"logical_date": at, "conf": dict(conf or {}), "state": "queued", "created_at": at}
            run = _inserted(connection, RUN, values)
            tasks = [{"run": run, "task_id": task["task_id"], "state": "none"} for task in dag["structure"]["tasks"]]
            if tasks:
                connection.execute(sa.insert(TASK), tasks)
            return _run_row(connection, run)

    def cancel_run(self, run_id: str, *, dag_id: str | None = None, at: datetime) -> bool:
        """End a run and its tasks as cancelled; the scheduler then stops what runs. Returns whether it happened.

        Raises RecordError for an unknown run.
        """
        with self.db.write() as connection:
            run = _require_run(connection, run_id, dag_id)
            may = RUN.c.state.in_(sorted(states.sources(states.RUN_MOVES, "cancelled")))
            query = sa.update(RUN).where(RUN.c.id == run, may).values(state="cancelled", ended_at=at)
            if connection.execute(query).rowcount != 1:
                return False
            may = TASK.c.state.in_(sorted(states.sources(states.TASK_MOVES, "cancelled")))
            values = {"state": "cancelled", "ended_at": at, "reason": "the run was cancelled", "next_try_at": None}
            connection.execute(sa.update(TASK).where(TASK.c.run == run, may).values(**values))
            return True

    def runs(self, dag_id: str | None = None, limit: int = 100) -> list[rows.RunRow]:
        """The newest runs first, with `task_states`."""
        query = _RUNS.order_by(RUN.c.id.desc()).limit(limit)
        if dag_id is not None:
            query = query.where(RUN.c.dag_id == dag_id)
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
            row = connection.execute(_ATTEMPTS.where(ATTEMPT.c.id == attempt_id)).mappings().first()
            return None if row is None else _attempt_row(row)

    def xcoms(self, run_id: str, *, dag_id: str | None = None) -> list[rows.XComRow]:
        """The results that tasks of a run left."""
        with self.db.read() as connection:
            run = _find_run(connection, run_id, dag_id)
            query = _XCOMS.where(RUN.c.id == run).order_by(TASK.c.id, XCOM.c.key)
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
                consumers=tuple(consumer for consumer in _consumers(connection) if consumer.queue == task.queue),
                pod=_pod(connection, task.attempt),
                wait=None,
                lines=(),
            )
        facts = replace(facts, wait=explanation.wait(facts), diagnosis=explanation.diagnosed(facts))
        return replace(facts, lines=explanation.lines(facts, trigger_rule=spec["trigger_rule"], at=at))

    def queues(self) -> list[rows.QueueRow]:
        """The queues in which attempts wait that have not begun."""
        query = (
            sa.select(ATTEMPT.c.queue, sa.func.count().label("waiting"), sa.func.min(ATTEMPT.c.created_at))
            .where(ATTEMPT.c.state.in_(("recorded", "sent")))
            .group_by(ATTEMPT.c.queue)
            .order_by(ATTEMPT.c.queue)
        )
        with self.db.read() as connection:
            return [
                rows.QueueRow(queue=queue, waiting=waiting, oldest_at=oldest_at)
                for queue, waiting, oldest_at in connection.execute(query)
            ]

    # --- who is there

    def consumers(self) -> list[rows.ConsumerRow]:
        """Which worker consumes which queue, as far as was seen lately."""
        with self.db.read() as connection:
            return _consumers(connection)

    def processes(self) -> list[rows.ProcessRow]:
        """The parts of this installation that gave a sign of life."""
        with self.db.read() as connection:
            query = sa.select(*PROCESS.c).order_by(PROCESS.c.kind, PROCESS.c.name)
            return [rows.ProcessRow(**row) for row in connection.execute(query).mappings()]

    def save_presence(
        self, *, consumers: Sequence[rows.ConsumerRow], processes: Sequence[rows.ProcessRow], since: datetime
    ) -> None:
        """Write who is there: all consumers, and the processes that were seen; those not seen since `since` go."""
        with self.db.write() as connection:
            connection.execute(sa.delete(CONSUMER))
            connection.execute(sa.delete(PROCESS).where(PROCESS.c.seen_at < since))
            for consumer in consumers:
                mine = sa.and_(CONSUMER.c.queue == consumer.queue, CONSUMER.c.worker == consumer.worker)
                _put(connection, CONSUMER, mine, vars(consumer))
            for process in processes:
                _put(connection, PROCESS, PROCESS.c.name == process.name, vars(process))


_DAGS = sa.select(
    *(DAG.c.dag_id, DAG.c.file, DAG.c.description, DAG.c.is_paused, DAG.c.is_active, DAG.c.loaded_at),
    DAG.c.version_id.label("version"),
    VERSION.c.structure,
).join(VERSION, VERSION.c.id == DAG.c.version_id, isouter=True)

_RUN_COLUMNS = ("id", "run_id", "dag_id", "run_type", "logical_date", "conf", "state", "created_at", "started_at")
_RUNS = sa.select(*(RUN.c[name] for name in _RUN_COLUMNS), RUN.c.ended_at, RUN.c.reason)

_OF_ATTEMPT = {"run_id": RUN.c.run_id, "dag_id": RUN.c.dag_id, "task_id": TASK.c.task_id, "map_index": TASK.c.map_index}
_XCOMS = (
    sa.select(*_OF_ATTEMPT.values(), XCOM.c.key, XCOM.c.value, XCOM.c.attempt)
    .join(TASK, TASK.c.id == XCOM.c.task_instance)
    .join(RUN, RUN.c.id == TASK.c.run)
)
_NOT_PLAIN = {**_OF_ATTEMPT, "lessons": ATTEMPT.c.message["headers", "podyard", "lessons"].label("lessons")}
_ATTEMPTS = (
    sa.select(
        *(_NOT_PLAIN[name] if name in _NOT_PLAIN else ATTEMPT.c[name] for name in rows.AttemptRow.__dataclass_fields__)
    )
    .join(TASK, TASK.c.id == ATTEMPT.c.task_instance)
    .join(RUN, RUN.c.id == TASK.c.run)
)


def _save_dag(connection: sa.Connection, dag: Dag, *, at: datetime) -> None:
    structure = dict(dag.to_json())
    fingerprint = hashlib.sha256(columns.dumps(structure).encode()).hexdigest()
    mine = sa.and_(VERSION.c.dag_id == dag.dag_id, VERSION.c.fingerprint == fingerprint)
    version = connection.scalar(sa.select(VERSION.c.id).where(mine))
    if version is None:
        values = {"dag_id": dag.dag_id, "fingerprint": fingerprint, "structure": structure, "created_at": at}
        version = _inserted(connection, VERSION, values)
    row = {"dag_id": dag.dag_id, "file": dag.file, "description": dag.description, "version_id": version}
    _put(connection, DAG, DAG.c.dag_id == dag.dag_id, {**row, "is_active": True, "loaded_at": at})


def _inserted(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> int:
    """Insert a row; gives the id that the database chose."""
    return int(connection.execute(sa.insert(table).values(**values).returning(table.c.id)).scalar_one())


def _put(connection: sa.Connection, table: sa.Table, mine: sa.ColumnElement[bool], row: Mapping[str, Any]) -> None:
    """Update the row that `mine` finds, else insert it: few rows, and one writer of each."""
    if connection.execute(sa.update(table).where(mine).values(**row)).rowcount == 0:
        connection.execute(sa.insert(table).values(**row))


def _dag_row(row: sa.RowMapping) -> rows.DagRow:
    return rows.DagRow(**{**row, "structure": row["structure"] or {}})


def _unknown_dag(connection: sa.Connection, dag_id: str, *, is_gone: bool) -> str:
    if is_gone:
        return f"DAG {dag_id!r} is not in the DAG folder any more: see `podyard dags list` for its errors"
    known = list(connection.scalars(sa.select(DAG.c.dag_id).where(DAG.c.is_active).order_by(DAG.c.dag_id).limit(10)))
    return f"there is no DAG {dag_id!r}; known: {', '.join(known) or 'none yet (is the scheduler running?)'}"


def _free_run_id(connection: sa.Connection, dag_id: str, at: datetime) -> str:
    name = f"manual__{at.astimezone(UTC).isoformat()}"
    if connection.scalar(sa.select(RUN.c.id).where(RUN.c.dag_id == dag_id, RUN.c.run_id == name)):
        return f"{name}_{secrets.token_hex(3)}"
    return name


def _find_run(connection: sa.Connection, run_id: str, dag_id: str | None) -> int | None:
    query = sa.select(RUN.c.id, RUN.c.dag_id).where(RUN.c.run_id == run_id)
    if dag_id is not None:
        query = query.where(RUN.c.dag_id == dag_id)
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
    row = connection.execute(_RUNS.where(RUN.c.id == run)).mappings().one()
    return rows.RunRow(**row, task_states=_task_states(connection, [run]).get(run, {}))


def _task_states(connection: sa.Connection, runs: Sequence[int]) -> dict[int, dict[str, int]]:
    query = (
        sa.select(TASK.c.run, TASK.c.state, sa.func.count().label("tasks"))
        .where(TASK.c.run.in_(runs))
        .group_by(TASK.c.run, TASK.c.state)
        .order_by(TASK.c.run, TASK.c.state)
    )
    counts: dict[int, dict[str, int]] = {}
    for row in connection.execute(query):
        counts.setdefault(row.run, {})[row.state] = row.tasks
    return counts


def _structure(connection: sa.Connection, run: int) -> Mapping[str, Any]:
    query = sa.select(VERSION.c.structure).join(RUN, RUN.c.version_id == VERSION.c.id).where(RUN.c.id == run)
    return cast("Mapping[str, Any]", connection.scalar(query))


def _task_rows(connection: sa.Connection, run: int) -> list[rows.TaskRow]:
    """Task instances with their latest attempt and result."""
    specs = {task["task_id"]: task for task in _structure(connection, run)["tasks"]}
    latest = sa.and_(ATTEMPT.c.task_instance == TASK.c.id, ATTEMPT.c.number == TASK.c.attempts)
    result = sa.and_(XCOM.c.task_instance == TASK.c.id, XCOM.c.key == "return_value")
    query = (
        sa.select(
            *(RUN.c.run_id, RUN.c.dag_id, TASK.c.task_id, TASK.c.map_index, TASK.c.state, TASK.c.next_try_at),
            *(TASK.c.attempts.label("try_number"), TASK.c.started_at, TASK.c.ended_at, TASK.c.reason),
            *(ATTEMPT.c.queue, ATTEMPT.c.side, ATTEMPT.c.host, ATTEMPT.c.pod, ATTEMPT.c.runtime_s),
            *(ATTEMPT.c.waiting_reason, ATTEMPT.c.id.label("attempt"), XCOM.c.value.label("result")),
        )
        .select_from(TASK)
        .join(RUN, RUN.c.id == TASK.c.run)
        .join(ATTEMPT, latest, isouter=True)
        .join(XCOM, result, isouter=True)
        .where(TASK.c.run == run)
        .order_by(TASK.c.id)
    )
    return [_task_row(row, specs.get(row["task_id"], {})) for row in connection.execute(query).mappings()]


def _task_row(row: sa.RowMapping, spec: Mapping[str, Any]) -> rows.TaskRow:
    operator = spec.get("operator", "")
    queue = row["queue"] or (None if operator == "empty" else spec.get("queue"))
    return rows.TaskRow(**{**row, "operator": operator, "queue": queue})


def _attempt_rows(connection: sa.Connection, run: int, task_id: str | None) -> list[rows.AttemptRow]:
    query = _ATTEMPTS.where(TASK.c.run == run).order_by(TASK.c.id, ATTEMPT.c.number)
    if task_id is not None:
        query = query.where(TASK.c.task_id == task_id)
    return [_attempt_row(row) for row in connection.execute(query).mappings()]


def _attempt_row(row: sa.RowMapping) -> rows.AttemptRow:
    return rows.AttemptRow(**{**row, "evidence": tuple(row["evidence"])})


def _consumers(connection: sa.Connection) -> list[rows.ConsumerRow]:
    query = sa.select(*CONSUMER.c).order_by(CONSUMER.c.queue, CONSUMER.c.worker)
    return [rows.ConsumerRow(**row) for row in connection.execute(query).mappings()]


def _pod(connection: sa.Connection, attempt_id: str | None) -> Mapping[str, Any] | None:
    pod = status_store.POD
    query = sa.select(*pod.c).where(pod.c.attempt_id == attempt_id).order_by(pod.c.retries.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)
