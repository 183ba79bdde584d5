"""Unread: attempts whose message nobody has taken yet: why they wait, until when, and what becomes of them then.

The scheduler keeps these waits (`sending`, `consumer`, `queued` of `dispatcher.attempts.wait_rules`); those of pods are
the dispatcher's. It writes reasons and deadlines, names a queue without a consumer in the log, and gives verdicts for
the attempts whose time is over. Called by the scheduler's loop, off the path of tasks.
"""

import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from dispatcher.attempts import wait_rules
from routing import router
from routing.results import reported
from routing.store import entries, ledger, messagewaits

log = logging.getLogger(__name__)

UNSENT_AFTER_S = 2.0
"""A message that is not sent after so long waits for the broker."""
PAGE = 500
"""Pods whose reasons are looked at in one round."""
END_MAX = 500
"""Attempts ended in one round at most."""
_REASONS = {messagewaits.CONSUMER: "NoConsumer", messagewaits.QUEUED: "NotTaken"}


class Unread:
    """Remembers only which queues were called unconsumed, so that each is logged once."""

    def __init__(self, routes: router.Router) -> None:
        self._router = routes
        self._unconsumed: set[str] = set()

    def record_waits(self, book: ledger.Ledger, consumed: Collection[str] | None, *, now: datetime) -> None:
        """Write down why messages wait. `consumed`: the queues that somebody consumes, None while that is unknown."""
        waiting = book.waiting_queues()
        # Before a first look succeeded nobody is called missing: the scheduler may have started before the workers.
        unconsumed = set() if consumed is None else {queue for _, queue in waiting} - set(consumed)
        book.set_pod_reasons(at=now, limit=PAGE, unconsumed=unconsumed)
        for side, queue in waiting:
            self._record_wait(book, side, queue, consumed, now)
        if consumed is not None:
            # A queue that was consumed in between is logged again when it is left again.
            self._unconsumed &= unconsumed

    def overdue(
        self, book: ledger.Ledger, *, now: datetime, block: Callable[[str], bool]
    ) -> tuple[list[reported.Outcome], list[str]]:
        """Verdicts on attempts whose deadline has come, and which of them are to be revoked.

        `block` keeps an attempt from being begun and says whether it could; what has begun gets no verdict here.
        """
        ended: list[reported.Outcome] = []
        revoke: list[str] = []
        for one in book.overdue(now=now, limit=END_MAX):
            # Blocked before the verdict: a body that begins after it would be a second one beside the retry's.
            if not block(one.id):
                continue
            wait = self._wait(one)
            why = wait_rules.too_long(wait, subject="its message")
            ended.append(reported.refused(one.id, why, wait_rules.details(wait), at=now))
            # A worker is refused by the key; a dispatcher may have the message by now, and would keep it waiting.
            if one.side == "kubernetes":
                revoke.append(one.id)
        if ended:
            log.warning("ended at the deadline of their wait: attempts=%d", len(ended))
        return ended, revoke

    def _record_wait(
        self, book: ledger.Ledger, side: str, queue: str, consumed: Collection[str] | None, now: datetime
    ) -> None:
        kind, reason = messagewaits.QUEUED, messagewaits.in_line(side)
        if consumed is not None and queue not in consumed:
            kind, reason = messagewaits.CONSUMER, messagewaits.unconsumed(side, queue)
        rule = self._rule(kind, queue)
        deadline_at = now + timedelta(seconds=rule.after_s) if rule.after_s > 0 else None
        count = book.set_waiting_reason(
            side=side,
            queue=queue,
            kind=kind,
            reason=reason,
            at=now,
            deadline_at=deadline_at,
            at_deadline=rule.action,
        )
        if kind == messagewaits.CONSUMER and count and queue not in self._unconsumed:
            self._unconsumed.add(queue)
            log.warning("%s: attempts=%d; start one: %s", reason, count, messagewaits.start_command(side, queue))
        rule, before = self._rule(messagewaits.SENDING, queue), now - timedelta(seconds=UNSENT_AFTER_S)
        book.set_unsent_reason(
            queue=queue,
            reason=messagewaits.UNSENT,
            before=before,
            # Its wait began when it was recorded, about `UNSENT_AFTER_S` ago.
            deadline_at=before + timedelta(seconds=rule.after_s) if rule.after_s > 0 else None,
            at_deadline=rule.action,
        )

    def _wait(self, one: entries.Overdue) -> wait_rules.Wait:
        kind = messagewaits.kind_of(one.wait_kind)
        profile = self._router.route(one.queue).profile
        return wait_rules.Wait(
            kind=kind,
            reason=_REASONS.get(kind),
            detail=one.waiting_reason,
            since_mono_s=0.0,
            rule=wait_rules.Rule(
                action=wait_rules.action(one.at_deadline), after_s=self._rule(kind, one.queue).after_s
            ),
            said_by=wait_rules.said_by(kind, profile=profile, queue=one.queue),
        )

    def _rule(self, kind: str, queue: str) -> wait_rules.Rule:
        return wait_rules.rule_of(kind, profile=self._router.route(queue).profile)
