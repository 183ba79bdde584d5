"""The scheduler's statements on attempts: recorded, sent, merged with what became of them."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from dispatcher.attempts import status_store
from dispatcher.protocol import message
from routing.store import entries, states, tables, transaction

ATTEMPT_FINAL = states.final(states.ATTEMPT_MOVES)
ATTEMPT_OPEN = tuple(state for state in states.ATTEMPT_MOVES if state not in ATTEMPT_FINAL)
TASK_FINAL = states.final(states.TASK_MOVES)


class AttemptStatements(transaction.Transaction):
    """Attempts, many at once."""

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
        # One statement for each target: the states that it may leave are part of its text.
        for (state, is_move), rows in groups.items():
            self._update(_save_facts(state, is_move), rows, what=f"attempt -> {state}")

    def insert_attempts(self, new: Sequence[entries.NewAttempt]) -> None:
        """Record attempts before their messages are sent."""
        if new:
            rows = [{**vars(item), "state": "recorded", "waiting_since": item.created_at} for item in new]
            self._connection.execute(sa.insert(tables.ATTEMPT), rows)

    def mark_sent(self, ids: Collection[str], *, at: datetime) -> None:
        """The broker has these messages. Attempts that moved on meanwhile only count the sending."""
        # No guard: a message may be taken, and its body may end, before the record comes to know that it was sent.
        for chunk in transaction.chunks(list(ids)):
            self._connection.execute(_mark_sent(), {"ids": chunk, "at": at})

    def unsent(self, *, before: datetime, limit: int) -> list[entries.Unsent]:
        """Attempts recorded before this time whose message is not known to be sent, oldest first."""
        query = (
            sa.select(tables.ATTEMPT.c.id, tables.ATTEMPT.c.queue, tables.ATTEMPT.c.message)
            .where(tables.ATTEMPT.c.state == "recorded", tables.ATTEMPT.c.created_at <= before)
            .order_by(tables.ATTEMPT.c.created_at)
            .limit(limit)
        )
        return [entries.Unsent(**row) for row in self._connection.execute(query).mappings()]

    def messages(self, ids: Collection[str]) -> list[entries.Unsent]:
        """What was sent for these attempts, to send it again; nothing for those that have ended."""
        # The message as it was recorded: whichever of its deliveries runs, it does the same.
        query = sa.select(tables.ATTEMPT.c.id, tables.ATTEMPT.c.queue, tables.ATTEMPT.c.message).where(
            tables.ATTEMPT.c.id.in_(list(ids)), tables.ATTEMPT.c.state.in_(ATTEMPT_OPEN)
        )
        ends = self._pod_ends(ids)
        rows = self._connection.execute(query).mappings()
        return [entries.Unsent(**row, pod_end=ends.get(row["id"])) for row in rows]

    def _pod_ends(self, ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """What is known of pods that have ended, by attempt."""
        columns = [tables.POD.c[name] for name in message.PodEnd.__optional_keys__]
        query = sa.select(tables.POD.c.attempt_id, *columns).where(
            tables.POD.c.attempt_id.in_(list(ids)),
            tables.POD.c.phase.not_in((*status_store.OPEN_PHASES, *status_store.UNLAUNCHED_PHASES)),
        )
        found = {}
        for attempt_id, *values in self._connection.execute(query):
            known = zip(message.PodEnd.__optional_keys__, values, strict=True)
            found[attempt_id] = {name: value for name, value in known if value is not None}
        return found

    def open_attempts(self, *, after: str, limit: int, ended_before: datetime) -> list[entries.Waiting]:
        """A page of the attempts without a verdict, by id."""
        columns = (
            tables.ATTEMPT.c.id,
            tables.ATTEMPT.c.state,
            tables.ATTEMPT.c.side,
            tables.ATTEMPT.c.queue,
            tables.ATTEMPT.c.sent_at,
            tables.ATTEMPT.c.sends,
        )
        has_pod = sa.exists().where(tables.POD.c.attempt_id == tables.ATTEMPT.c.id)
        is_launched = has_pod.where(tables.POD.c.phase.not_in(status_store.UNLAUNCHED_PHASES))
        is_end_seen = is_launched.where(
            tables.POD.c.phase.not_in(status_store.OPEN_PHASES), tables.POD.c.updated_at < ended_before
        )
        facts = (
            tables.TASK.c.state.in_(sorted(TASK_FINAL)).label("is_unwanted"),
            has_pod.label("has_pod"),
            is_launched.label("is_launched"),
            is_end_seen.label("is_end_seen"),
        )
        query = (
            sa.select(*columns, *facts)
            .join(tables.TASK, tables.TASK.c.id == tables.ATTEMPT.c.task_instance)
            # Pages by key and not by OFFSET: attempts that end between two pages would shift the others past the look.
            .where(tables.ATTEMPT.c.state.in_(ATTEMPT_OPEN), tables.ATTEMPT.c.id > after)
            .order_by(tables.ATTEMPT.c.id)
            .limit(limit)
        )
        return [entries.Waiting(**row) for row in self._connection.execute(query).mappings()]

    def count_open(self) -> int:
        """How many attempts have no verdict."""
        query = sa.select(sa.func.count()).select_from(tables.ATTEMPT).where(tables.ATTEMPT.c.state.in_(ATTEMPT_OPEN))
        return int(self._connection.scalar(query) or 0)


@cache
def _attempts_by_id() -> sa.Select[Any]:
    names = [tables.ATTEMPT.c[name] for name in entries.AttemptFacts.__dataclass_fields__]
    return (
        sa.select(
            *(
                tables.ATTEMPT.c.id,
                tables.ATTEMPT.c.number,
                tables.ATTEMPT.c.queue,
                tables.ATTEMPT.c.side,
                tables.ATTEMPT.c.task_instance,
            ),
            *(
                tables.TASK.c.run,
                tables.TASK.c.task_id,
                tables.TASK.c.state.label("task_state"),
                tables.TASK.c.infra_failures,
            ),
            *names,
        )
        .join(tables.TASK, tables.TASK.c.id == tables.ATTEMPT.c.task_instance)
        .where(tables.ATTEMPT.c.id.in_(sa.bindparam("ids", expanding=True)))
        # In one order, so that two transactions that lock the same rows cannot wait
        # for each other. SQLite has no row locks.
        .order_by(tables.ATTEMPT.c.id)
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
    may = (
        transaction.may_move(tables.ATTEMPT.c.state, states.ATTEMPT_MOVES, state)
        if is_move
        else tables.ATTEMPT.c.state == state
    )
    values: dict[str, Any] = {name: sa.bindparam(name) for name in entries.AttemptFacts.__dataclass_fields__}
    if is_move:
        # What has begun or ended waits for nothing: `explain` and deadlines must not find what it waited for.
        waits = ("waiting_reason", "wait_kind", "waiting_since", "deadline_at", "at_deadline")
        values |= dict.fromkeys(waits)
    return sa.update(tables.ATTEMPT).where(tables.ATTEMPT.c.id == sa.bindparam("key"), may).values(**values)


@cache
def _mark_sent() -> sa.Update:
    may = transaction.may_move(tables.ATTEMPT.c.state, states.ATTEMPT_MOVES, "sent")
    return (
        sa.update(tables.ATTEMPT)
        .where(tables.ATTEMPT.c.id.in_(sa.bindparam("ids", expanding=True)))
        .values(
            # Sent again, or begun meanwhile: the state stays, and only the sending counts.
            state=sa.case((may, "sent"), else_=tables.ATTEMPT.c.state),
            sent_at=sa.bindparam("at"),
            sends=tables.ATTEMPT.c.sends + 1,
        )
    )
