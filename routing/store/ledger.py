"""The scheduler's statements: many rows at once, each UPDATE guarded by the states that it may leave.

A `Ledger` is one transaction. A guard that does not hold raises Conflict, and then nothing of the transaction is kept:
the caller reads again. Only `routing.scheduling` writes through this.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from dispatcher.attempts import status_store, wait_rules
from routing.store import entries, messagewaits, models, states, store_errors

ATTEMPT = cast("sa.Table", models.Attempt.__table__)
TASK = cast("sa.Table", models.TaskInstance.__table__)
RUN = cast("sa.Table", models.DagRun.__table__)
VERSION = cast("sa.Table", models.DagVersion.__table__)
XCOM = cast("sa.Table", models.XCom.__table__)
POD = status_store.POD
LEASE = cast("sa.Table", models.Lease.__table__)

_NO_POD = ~sa.exists().where(POD.c.attempt_id == ATTEMPT.c.id)
"""No dispatcher has the attempt: it is its message that waits."""
_NOT_LAUNCHED = ~sa.exists().where(POD.c.attempt_id == ATTEMPT.c.id, POD.c.phase != "Waiting")
"""The same where nobody consumes the queue: a dispatcher that had the attempt is gone, and its message came back."""
ATTEMPT_FINAL = states.final(states.ATTEMPT_MOVES)
ATTEMPT_OPEN = tuple(state for state in states.ATTEMPT_MOVES if state not in ATTEMPT_FINAL)
TASK_FINAL = states.final(states.TASK_MOVES)


class Ledger:
    """One transaction of the scheduler."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._is_postgres = connection.dialect.name == "postgresql"

    # --- attempts

    def attempts(self, ids: Collection[str]) -> list[entries.OpenAttempt]:
        """The attempts of these ids, locked until the transaction ends; unknown ids are left out."""
        found = self._connection.execute(_attempts_by_id(), {"ids": list(ids)})
        return [_open_attempt(row) for row in found]

    def save_facts(self, changed: Iterable[tuple[str, str, entries.AttemptFacts]]) -> None:
        """Write what merging made of attempts: (id, state before, facts). Raises Conflict."""
        groups: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        for attempt_id, before, facts in changed:
            is_move = before != facts.state
            groups.setdefault((facts.state, is_move), []).append({**vars(facts), "key": attempt_id})
        for (state, is_move), rows in groups.items():
            self._update(_save_facts(state, is_move), rows, what=f"attempt -> {state}")

    def insert_attempts(self, new: Sequence[entries.NewAttempt]) -> None:
        """Record attempts before their messages are sent."""
        if new:
            rows = [{**vars(item), "state": "recorded", "waiting_since": item.created_at} for item in new]
            self._connection.execute(sa.insert(ATTEMPT), rows)

    def mark_sent(self, ids: Collection[str], *, at: datetime) -> None:
        """The broker has these messages. Attempts that moved on meanwhile only count the sending."""
        for chunk in _chunks(list(ids)):
            self._connection.execute(_mark_sent(), {"ids": chunk, "at": at})

    def unsent(self, *, before: datetime, limit: int) -> list[entries.Unsent]:
        """Attempts recorded before this time whose message is not known to be sent, oldest first."""
        query = (
            sa.select(ATTEMPT.c.id, ATTEMPT.c.queue, ATTEMPT.c.message)
            .where(ATTEMPT.c.state == "recorded", ATTEMPT.c.created_at <= before)
            .order_by(ATTEMPT.c.created_at)
            .limit(limit)
        )
        return [entries.Unsent(**row) for row in self._connection.execute(query).mappings()]

    def messages(self, ids: Collection[str]) -> list[entries.Unsent]:
        """What was sent for these attempts, to send it again."""
        query = sa.select(ATTEMPT.c.id, ATTEMPT.c.queue, ATTEMPT.c.message).where(ATTEMPT.c.id.in_(list(ids)))
        return [entries.Unsent(**row) for row in self._connection.execute(query).mappings()]

    def open_attempts(self, *, after: str, limit: int, told_before: datetime) -> list[entries.Waiting]:
        """A page of the attempts without a verdict, by id."""
        columns = (ATTEMPT.c.id, ATTEMPT.c.state, ATTEMPT.c.side, ATTEMPT.c.queue, ATTEMPT.c.sent_at, ATTEMPT.c.sends)
        has_pod = sa.exists().where(POD.c.attempt_id == ATTEMPT.c.id)
        is_launched = has_pod.where(POD.c.phase.not_in(status_store.UNLAUNCHED_PHASES))
        is_told = is_launched.where(POD.c.phase.not_in(status_store.OPEN_PHASES), POD.c.updated_at < told_before)
        facts = (
            TASK.c.state.in_(sorted(TASK_FINAL)).label("is_unwanted"),
            has_pod.label("has_pod"),
            is_launched.label("is_launched"),
            is_told.label("is_told"),
        )
        query = (
            sa.select(*columns, *facts)
            .join(TASK, TASK.c.id == ATTEMPT.c.task_instance)
            .where(ATTEMPT.c.state.in_(ATTEMPT_OPEN), ATTEMPT.c.id > after)
            .order_by(ATTEMPT.c.id)
            .limit(limit)
        )
        return [entries.Waiting(**row) for row in self._connection.execute(query).mappings()]

    def count_open(self) -> int:
        """How many attempts have no verdict."""
        query = sa.select(sa.func.count()).select_from(ATTEMPT).where(ATTEMPT.c.state.in_(ATTEMPT_OPEN))
        return int(self._connection.scalar(query) or 0)

    def set_waiting_reason(
        self,
        *,
        side: str,
        queue: str,
        kind: str,
        reason: str,
        at: datetime,
        deadline_at: datetime | None,
        at_deadline: str,
    ) -> int:
        """Say why the sent attempts of a queue wait that have no pod, and until when; returns how many waited for
        something else: their wait begins now. `kind` is `messagewaits.QUEUED` or `messagewaits.CONSUMER`."""
        query = (
            sa.update(ATTEMPT)
            .where(
                ATTEMPT.c.state == "sent",
                ATTEMPT.c.queue == queue,
                ATTEMPT.c.side == side,
                _NOT_LAUNCHED if kind == messagewaits.CONSUMER else _NO_POD,
                _differs(ATTEMPT.c.wait_kind, kind) | _differs(ATTEMPT.c.at_deadline, at_deadline),
            )
            .values(
                waiting_reason=reason,
                wait_kind=kind,
                waiting_since=at,
                deadline_at=deadline_at,
                at_deadline=at_deadline,
            )
        )
        return self._connection.execute(query).rowcount

    def set_unsent_reason(
        self, *, queue: str, reason: str, before: datetime, deadline_at: datetime | None, at_deadline: str
    ) -> int:
        """The same for attempts of a queue recorded before this time whose message is not sent; theirs began then."""
        query = (
            sa.update(ATTEMPT)
            .where(
                ATTEMPT.c.state == "recorded",
                ATTEMPT.c.queue == queue,
                ATTEMPT.c.created_at < before,
                _differs(ATTEMPT.c.wait_kind, messagewaits.SENDING),
            )
            .values(
                waiting_reason=reason,
                wait_kind=messagewaits.SENDING,
                deadline_at=deadline_at,
                at_deadline=at_deadline,
            )
        )
        return self._connection.execute(query).rowcount

    def overdue(self, *, now: datetime, limit: int) -> list[entries.Overdue]:
        """Sent attempts without a pod whose wait is over and must end, the longest overdue first."""
        names = ("id", "side", "queue", "waiting_reason", "wait_kind", "at_deadline")
        query = (
            sa.select(*(ATTEMPT.c[name] for name in names))
            .where(
                ATTEMPT.c.state == "sent",
                ATTEMPT.c.at_deadline.in_(("retry", "fail")),
                ATTEMPT.c.deadline_at <= now,
                sa.or_(_NO_POD, sa.and_(_NOT_LAUNCHED, ATTEMPT.c.wait_kind == messagewaits.CONSUMER)),
            )
            .order_by(ATTEMPT.c.deadline_at)
            .limit(limit)
        )
        return [entries.Overdue(**row) for row in self._connection.execute(query).mappings()]

    def set_pod_reasons(self, *, at: datetime, limit: int, unconsumed: Collection[str] = ()) -> int:
        """Say of attempts whose pod does not run yet what their pods wait for; returns how many changed.

        What a dispatcher said of attempts before their pods is old where nobody consumes their queue any more.
        """
        waits = (POD.c.waiting_since, POD.c.deadline_at, POD.c.at_deadline)
        own = (ATTEMPT.c.id, ATTEMPT.c.waiting_reason, ATTEMPT.c.wait_kind)
        columns = (*own, POD.c.phase, POD.c.reason, POD.c.node, *waits)
        query = (
            sa.select(*columns)
            .join(POD, POD.c.attempt_id == ATTEMPT.c.id)
            .where(
                ATTEMPT.c.state == "sent",
                ATTEMPT.c.side == "kubernetes",
                ~sa.and_(POD.c.phase == "Waiting", ATTEMPT.c.queue.in_(sorted(unconsumed))),
            )
            .order_by(POD.c.updated_at.desc())
            .limit(limit)
        )
        changed = [
            {
                "key": row.id,
                "why": why,
                "kind": kind,
                "since": row.waiting_since or at,
                "until": row.deadline_at,
                "then": row.at_deadline,
            }
            for row in self._connection.execute(query)
            for why, kind in [(_pod_reason(row.phase, row.reason), _pod_wait_kind(row))]
            if (why, kind) != (row.waiting_reason, row.wait_kind)
        ]
        if changed:
            self._connection.execute(_tell_reason(), changed)
        return len(changed)

    def waiting_queues(self) -> list[tuple[str, str]]:
        """(side, queue) of the attempts that did not start."""
        open_ones = ATTEMPT.c.state.in_(("recorded", "sent"))
        query = sa.select(ATTEMPT.c.side, ATTEMPT.c.queue).where(open_ones).distinct()
        return [(row.side, row.queue) for row in self._connection.execute(query)]

    # --- task instances

    def move_tasks(self, moves: Iterable[entries.TaskMove]) -> None:
        """Move task instances. Raises Conflict where one was not in a state that may move there."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for move in moves:
            groups.setdefault(move.state, []).append({f"new_{name}": value for name, value in vars(move).items()})
        for state, rows in groups.items():
            self._update(_move_task(state), rows, what=f"task instance -> {state}")

    def due_retries(self, *, now: datetime, limit: int) -> list[tuple[int, str]]:
        """(run, task id) of task instances whose next try is due, the longest due first."""
        query = (
            sa.select(TASK.c.run, TASK.c.task_id)
            .where(TASK.c.state == "up_for_retry", TASK.c.next_try_at <= now)
            .order_by(TASK.c.next_try_at)
            .limit(limit)
        )
        return [(row.run, row.task_id) for row in self._connection.execute(query)]

    def next_retry_at(self) -> datetime | None:
        """When the next try is due."""
        query = sa.select(sa.func.min(TASK.c.next_try_at)).where(TASK.c.state == "up_for_retry")
        return cast("datetime | None", self._connection.scalar(query))

    def insert_xcoms(self, values: Iterable[tuple[int, str, Any]]) -> None:
        """Store results: (task instance, attempt, value)."""
        rows = [
            {"task_instance": task, "key": "return_value", "value": value, "attempt": by} for task, by, value in values
        ]
        if rows:
            self._connection.execute(sa.insert(XCOM), rows)

    def results(self, task_instances: Collection[int]) -> dict[int, Any]:
        """Results by task instance, for those that left one."""
        found: dict[int, Any] = {}
        for chunk in _chunks(sorted(task_instances)):
            query = sa.select(XCOM.c.task_instance, XCOM.c.value).where(
                XCOM.c.key == "return_value", XCOM.c.task_instance.in_(chunk)
            )
            found.update({row.task_instance: row.value for row in self._connection.execute(query)})
        return found

    # --- runs

    def runs_in(self, state: str, *, limit: int | None = None) -> list[int]:
        """Runs in a state, oldest first."""
        query = sa.select(RUN.c.id).where(RUN.c.state == state).order_by(RUN.c.id).limit(limit)
        return list(self._connection.scalars(query))

    def queued_runs(self, *, limit: int) -> list[int]:
        """Runs to start, oldest first, but none of a paused DAG."""
        dag = models.Dag.__table__
        query = (
            sa.select(RUN.c.id)
            .join(dag, dag.c.dag_id == RUN.c.dag_id)
            .where(RUN.c.state == "queued", dag.c.is_paused.is_(False))
            .order_by(RUN.c.id)
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
        return self._connection.scalar(sa.select(RUN.c.state).where(RUN.c.id == run))

    def structure(self, version_id: int) -> Mapping[str, Any]:
        """The structure of a DAG version."""
        found = self._connection.scalar(sa.select(VERSION.c.structure).where(VERSION.c.id == version_id))
        return cast("Mapping[str, Any]", found)

    def move_run(self, run: int, state: str, *, at: datetime, reason: str | None = None) -> bool:
        """Move a run; returns whether it happened (somebody may have cancelled it)."""
        times = {"started_at": at} if state == "running" else {"ended_at": at}
        query = (
            sa.update(RUN)
            .where(RUN.c.id == run, RUN.c.state.in_(sorted(states.sources(states.RUN_MOVES, state))))
            .values(state=state, reason=reason, **times)
        )
        return self._connection.execute(query).rowcount == 1

    # --- the lease

    def hold(self, name: str, holder: str, *, lease_s: float, now: datetime) -> None:
        """Renew the lease as part of this transaction. Raises LeaseLost where somebody else has it."""
        query = sa.update(LEASE).where(LEASE.c.name == name, LEASE.c.holder == holder)
        if self._connection.execute(query.values(**self._term(lease_s, now))).rowcount != 1:
            raise store_errors.LeaseLost(f"another process has taken over the role {name!r}")

    def take(self, name: str, holder: str, *, lease_s: float, now: datetime) -> str | None:
        """Take the lease if it is free or over. Returns None, or who has it."""
        term = self._term(lease_s, now)
        insert = postgresql.insert if self._is_postgres else _sqlite_insert
        self._connection.execute(
            insert(LEASE).values(name=name, holder=holder, **term).on_conflict_do_nothing(index_elements=["name"])
        )
        over = LEASE.c.expires_at <= term["renewed_at"]
        query = sa.update(LEASE).where(LEASE.c.name == name, sa.or_(LEASE.c.holder == holder, over))
        if self._connection.execute(query.values(holder=holder, **term)).rowcount == 1:
            return None
        return str(self._connection.scalar(sa.select(LEASE.c.holder).where(LEASE.c.name == name)))

    def end_lease(self, name: str, holder: str) -> None:
        """Give the lease back, so that another process need not wait for its end."""
        self._connection.execute(sa.delete(LEASE).where(LEASE.c.name == name, LEASE.c.holder == holder))

    def _term(self, lease_s: float, now: datetime) -> dict[str, Any]:
        """From when to when a lease holds: on a server by the server's clock, since hosts' clocks differ."""
        if not self._is_postgres:
            return {"renewed_at": now, "expires_at": now + _seconds(lease_s)}
        clock = sa.func.clock_timestamp()
        return {"renewed_at": clock, "expires_at": clock + _seconds(lease_s)}

    def _update(self, statement: sa.Update, rows: list[dict[str, Any]], *, what: str) -> None:
        happened = self._connection.execute(statement, rows).rowcount
        if happened != len(rows):
            raise store_errors.Conflict(
                f"{what}: {len(rows) - happened} of {len(rows)} rows were not in a state that may"
            )


def _seconds(value: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=value)


def _differs(column: sa.Column[Any], value: str) -> sa.ColumnElement[bool]:
    return sa.or_(column.is_(None), column != value)


def _sqlite_insert(table: sa.Table) -> Any:
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def _chunks(items: Sequence[Any], size: int = 1000) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _may_move(column: sa.Column[Any], moves: Mapping[str, frozenset[str]], target: str) -> sa.ColumnElement[bool]:
    """`state IN (…)` with the words written out, so that the statement is the same for every row and batch."""
    words: list[Any] = [sa.literal_column(f"'{state}'") for state in sorted(states.sources(moves, target))]
    return column.in_(words)


@cache
def _attempts_by_id() -> sa.Select[Any]:
    names = [ATTEMPT.c[name] for name in entries.AttemptFacts.__dataclass_fields__]
    return (
        sa.select(
            *(ATTEMPT.c.id, ATTEMPT.c.number, ATTEMPT.c.queue, ATTEMPT.c.side, ATTEMPT.c.task_instance),
            *(TASK.c.run, TASK.c.task_id, TASK.c.state.label("task_state"), TASK.c.infra_failures),
            *names,
        )
        .join(TASK, TASK.c.id == ATTEMPT.c.task_instance)
        .where(ATTEMPT.c.id.in_(sa.bindparam("ids", expanding=True)))
        .order_by(ATTEMPT.c.id)
        .with_for_update()
    )


def _open_attempt(row: Any) -> entries.OpenAttempt:
    (attempt_id, number, queue, side, task, run, task_id, task_state, infra_failures, *facts) = row
    return entries.OpenAttempt(
        id=attempt_id,
        number=number,
        queue=queue,
        side=side,
        task_instance=task,
        run=run,
        task_id=task_id,
        task_state=task_state,
        infra_failures=infra_failures,
        facts=entries.AttemptFacts(**dict(zip(entries.AttemptFacts.__dataclass_fields__, facts, strict=True))),
    )


@cache
def _save_facts(state: str, is_move: bool) -> sa.Update:
    may = _may_move(ATTEMPT.c.state, states.ATTEMPT_MOVES, state) if is_move else ATTEMPT.c.state == state
    values: dict[str, Any] = {name: sa.bindparam(name) for name in entries.AttemptFacts.__dataclass_fields__}
    if is_move:
        waits = ("waiting_reason", "wait_kind", "waiting_since", "deadline_at", "at_deadline")
        values |= dict.fromkeys(waits)
    return sa.update(ATTEMPT).where(ATTEMPT.c.id == sa.bindparam("key"), may).values(**values)


@cache
def _mark_sent() -> sa.Update:
    may = _may_move(ATTEMPT.c.state, states.ATTEMPT_MOVES, "sent")
    return (
        sa.update(ATTEMPT)
        .where(ATTEMPT.c.id.in_(sa.bindparam("ids", expanding=True)))
        .values(
            state=sa.case((may, "sent"), else_=ATTEMPT.c.state), sent_at=sa.bindparam("at"), sends=ATTEMPT.c.sends + 1
        )
    )


@cache
def _tell_reason() -> sa.Update:
    may = sa.and_(ATTEMPT.c.id == sa.bindparam("key"), ATTEMPT.c.state == "sent")
    return (
        sa.update(ATTEMPT)
        .where(may)
        .values(
            waiting_reason=sa.bindparam("why"),
            wait_kind=sa.bindparam("kind"),
            waiting_since=sa.bindparam("since"),
            deadline_at=sa.bindparam("until"),
            at_deadline=sa.bindparam("then"),
        )
    )


def _pod_reason(phase: str, reason: str | None) -> str:
    return f"its pod is {phase}: {reason}" if reason else f"its pod is {phase}"


def _pod_wait_kind(pod: Any) -> str:
    """What a pod that does not run waits for, by its row."""
    has_node = pod.node is not None
    return wait_rules.kind_of(reason=pod.reason, is_pod=pod.phase != "Waiting", is_scheduled=has_node)


@cache
def _move_task(state: str) -> sa.Update:
    def kept(name: str) -> Any:
        column = TASK.c[name]
        return sa.func.coalesce(sa.bindparam(f"new_{name}", type_=column.type), column)

    def set_to(name: str) -> Any:
        return sa.bindparam(f"new_{name}", type_=TASK.c[name].type)

    return (
        sa.update(TASK)
        .where(TASK.c.id == sa.bindparam("new_task_instance"), _may_move(TASK.c.state, states.TASK_MOVES, state))
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


@cache
def _run() -> sa.Select[Any]:
    names = ("id", "run_id", "dag_id", "version_id", "state", "logical_date", "conf")
    return sa.select(*(RUN.c[name] for name in names)).where(RUN.c.id == sa.bindparam("run"))


@cache
def _run_tasks() -> sa.Select[Any]:
    names = entries.TaskState.__dataclass_fields__
    return sa.select(*(TASK.c[name] for name in names)).where(TASK.c.run == sa.bindparam("run")).order_by(TASK.c.id)
