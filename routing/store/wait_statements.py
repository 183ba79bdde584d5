"""The scheduler's statements on waits: why attempts have not begun, until when they may wait, which are overdue."""

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from dispatcher.attempts import wait_rules
from routing.store import entries, messagewaits, tables, transaction

_NO_POD = ~sa.exists().where(tables.POD.c.attempt_id == tables.ATTEMPT.c.id)
"""No dispatcher has the attempt: it is its message that waits."""
_NOT_LAUNCHED = ~sa.exists().where(tables.POD.c.attempt_id == tables.ATTEMPT.c.id, tables.POD.c.phase != "Waiting")
"""The same where nobody consumes the queue: a dispatcher that had the attempt is gone, and its message came back."""


class WaitStatements(transaction.Transaction):
    """What attempts wait for that have not begun."""

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
            sa.update(tables.ATTEMPT)
            .where(
                tables.ATTEMPT.c.state == "sent",
                tables.ATTEMPT.c.queue == queue,
                tables.ATTEMPT.c.side == side,
                _NOT_LAUNCHED if kind == messagewaits.CONSUMER else _NO_POD,
                # Only where something changes: this runs every two seconds, and must not begin the wait anew.
                _differs(tables.ATTEMPT.c.wait_kind, kind) | _differs(tables.ATTEMPT.c.at_deadline, at_deadline),
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
            sa.update(tables.ATTEMPT)
            .where(
                tables.ATTEMPT.c.state == "recorded",
                tables.ATTEMPT.c.queue == queue,
                tables.ATTEMPT.c.created_at < before,
                # Once per attempt: `waiting_since` stays when it was recorded.
                _differs(tables.ATTEMPT.c.wait_kind, messagewaits.SENDING),
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
            sa.select(*(tables.ATTEMPT.c[name] for name in names))
            .where(
                tables.ATTEMPT.c.state == "sent",
                tables.ATTEMPT.c.at_deadline.in_(("retry", "fail")),
                tables.ATTEMPT.c.deadline_at <= now,
                # While a dispatcher has the attempt the wait, and its deadline, are the dispatcher's.
                sa.or_(_NO_POD, sa.and_(_NOT_LAUNCHED, tables.ATTEMPT.c.wait_kind == messagewaits.CONSUMER)),
            )
            .order_by(tables.ATTEMPT.c.deadline_at)
            .limit(limit)
        )
        return [entries.Overdue(**row) for row in self._connection.execute(query).mappings()]

    def set_pod_reasons(self, *, at: datetime, limit: int, unconsumed: Collection[str] = ()) -> int:
        """Say of attempts whose pod does not run yet what their pods wait for; returns how many changed.

        What a dispatcher said of attempts before their pods is old where nobody consumes their queue any more.
        """
        waits = (tables.POD.c.waiting_since, tables.POD.c.deadline_at, tables.POD.c.at_deadline)
        own = (tables.ATTEMPT.c.id, tables.ATTEMPT.c.waiting_reason, tables.ATTEMPT.c.wait_kind)
        columns = (*own, tables.POD.c.phase, tables.POD.c.reason, tables.POD.c.node, *waits)
        query = (
            sa.select(*columns)
            .join(tables.POD, tables.POD.c.attempt_id == tables.ATTEMPT.c.id)
            .where(
                tables.ATTEMPT.c.state == "sent",
                tables.ATTEMPT.c.side == "kubernetes",
                ~sa.and_(tables.POD.c.phase == "Waiting", tables.ATTEMPT.c.queue.in_(sorted(unconsumed))),
            )
            # The newest first: a look takes 500, and a row that changed lately is one whose words are old here.
            .order_by(tables.POD.c.updated_at.desc())
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
        open_ones = tables.ATTEMPT.c.state.in_(("recorded", "sent"))
        query = sa.select(tables.ATTEMPT.c.side, tables.ATTEMPT.c.queue).where(open_ones).distinct()
        return [(row.side, row.queue) for row in self._connection.execute(query)]


def _differs(column: sa.Column[Any], value: str) -> sa.ColumnElement[bool]:
    # In SQL NULL != 'x' is not true.
    return sa.or_(column.is_(None), column != value)


@cache
def _tell_reason() -> sa.Update:
    # It may have begun since it was read: then it waits for nothing any more.
    may = sa.and_(tables.ATTEMPT.c.id == sa.bindparam("key"), tables.ATTEMPT.c.state == "sent")
    return (
        sa.update(tables.ATTEMPT)
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
