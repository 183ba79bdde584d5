"""The sweeper: looks at every open attempt now and then, so that no lost report, message or worker leaves one open.

It asks for results and claims whether anybody reported or not, declares attempts of dead workers lost, has messages
sent again that nobody has, and stops attempts that nobody wants any more. It decides; the scheduler's loop acts.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from routing.merging import collector, outcome
from routing.store import ledger

LOST_AFTER_S = 10.0
"""So long after a worker's pulse is found missing its attempts are lost; its pulse ran for a while before, too."""
RESEND_AFTER_S = 60.0
RESEND_MAX_S = 3600.0

Backlog = Callable[[str], int]
"""Queue -> messages that wait in it."""


@dataclass(kw_only=True)
class Findings:
    """What a page of open attempts needs."""

    outcomes: list[outcome.Outcome] = field(default_factory=list)
    resend: list[str] = field(default_factory=list)
    revoke: list[str] = field(default_factory=list)


class Sweeper:
    """Remembers only since when each worker has been without a pulse."""

    def __init__(self, collecting: collector.Collector) -> None:
        self._collector = collecting
        self._missing: dict[str, float] = {}

    def inspect(self, rows: Sequence[ledger.Waiting], *, now: datetime, clock_s: float, backlog: Backlog) -> Findings:
        """Look at a page. Raises ResultsUnavailable, and what `backlog` raises."""
        seen = self._collector.look_up([row.id for row in rows], now=now)
        ended = {one.attempt_id for one in seen.outcomes if isinstance(one, outcome.Ended)}
        gone = self._gone(set(seen.holders.values()), clock_s)
        findings = Findings(outcomes=list(seen.outcomes))
        silent = []
        for row in rows:
            if row.id in ended:
                continue
            if seen.holders.get(row.id) in gone:
                findings.outcomes.append(outcome.lost(row.id, _LOST, at=now))
            elif row.is_unwanted:
                self._stop(row, findings, now)
            elif row.state == "sent" and row.id not in seen.holders and not row.has_pod:
                silent.append(row)
        findings.resend.extend(_overdue(silent, now=now, backlog=backlog))
        return findings

    def _gone(self, instances: set[str], clock_s: float) -> set[str]:
        """Workers without a pulse for long enough."""
        dead = self._collector.dead(instances)
        self._missing = {one: self._missing.get(one, clock_s) for one in (self._missing.keys() - instances) | dead}
        self._missing = {one: since for one, since in self._missing.items() if clock_s - since < 10 * LOST_AFTER_S}
        return {one for one in dead if clock_s - self._missing.get(one, clock_s) >= LOST_AFTER_S}

    def _stop(self, row: ledger.Waiting, findings: Findings, now: datetime) -> None:
        """Nobody wants this attempt: keep it from starting, or stop it."""
        is_blocked = self._collector.block(row.id)
        if row.side == "kubernetes" or not is_blocked:
            findings.revoke.append(row.id)
        if is_blocked and row.state != "running" and not row.has_pod:
            findings.outcomes.append(outcome.revoked(row.id, "stopped before it began", at=now))


_LOST = "its worker gives no sign of life any more: it was killed, or its machine is gone"


def _overdue(rows: Iterable[ledger.Waiting], *, now: datetime, backlog: Backlog) -> list[str]:
    """Attempts sent long ago that nobody began, from queues in which no message waits: their messages got lost.

    If a message is only slow, its attempt has a second one for a while; the claim lets one of them run.
    """
    late = [row for row in rows if row.sent_at is not None and now - row.sent_at > _patience(row.sends)]
    empty = {queue: backlog(queue) == 0 for queue in {row.queue for row in late}}
    return [row.id for row in late if empty[row.queue]]


def _patience(sends: int) -> timedelta:
    return timedelta(seconds=min(RESEND_AFTER_S * 2 ** max(0, sends - 1), RESEND_MAX_S))
