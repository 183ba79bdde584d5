"""The sweeper: looks at every open attempt now and then, so that no lost report, message or worker leaves one open.

It asks for results and claims whether anybody reported or not, declares attempts of dead workers lost, has messages
sent again that nobody has, and stops attempts that nobody wants any more. It decides; the scheduler's loop acts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import compress

from routing.results import collector, reported
from routing.store import entries

# As long as the broker's visibility time-out: within it the message of a killed worker may still come back by itself.
RESEND_AFTER_S = 60.0
RESEND_MAX_S = 3600.0
SUSPECT_S = 7.0
"""So long after an outage of the broker a message sent before it that nobody has is taken for lost. Longer than a
worker takes to say again which bodies it runs: their claims may be lost, too."""
ENDED_S = 60.0
"""So long after its pod's end was seen an attempt without a result is asked for: its result may be lost."""
UNCLAIMED_S = 30.0
"""So long must a running attempt be without result, claim and heartbeat to be taken for lost."""

Backlog = Callable[[str], int]
"""Queue -> messages that wait in it."""


@dataclass(kw_only=True)
class Findings:
    """What a page of open attempts needs."""

    outcomes: list[reported.Outcome] = field(default_factory=list)
    resend: list[str] = field(default_factory=list)
    revoke: list[str] = field(default_factory=list)


class Sweeper:
    """Remembers only since when each worker has been without a heartbeat, and which bodies nobody knows."""

    def __init__(self, collecting: collector.Collector, *, lost_after_s: float) -> None:
        """`lost_after_s`: so long must a heartbeat be missing, beside the time that it holds by itself."""
        self._collector = collecting
        self._lost_after_s = lost_after_s
        self._missing: dict[str, float] = {}
        self._unclaimed: dict[str, float] = {}
        self._outage_at: datetime | None = None

    def suspect(self, *, now: datetime) -> None:
        """The broker was away until now: what was on its way then may be lost."""
        self._outage_at = now

    def inspect(
        self, rows: Sequence[entries.Waiting], *, now: datetime, now_mono_s: float, backlog: Backlog
    ) -> Findings:
        """Look at a page, all of whose reports have been read. Raises ResultsUnavailable, and what `backlog` raises."""
        seen = self._collector.look_up([row.id for row in rows], now=now)
        complete_since = self._collector.complete_since(now=now)  # after it: what is lost in between counts as unknown
        ended = {one.attempt_id for one in seen.outcomes if isinstance(one, reported.EndReport)}
        gone = self._gone(set(seen.holders.values()), now_mono_s)
        running = {row.id for row in rows if row.state == "running"}
        # The claim of a running attempt says its start in every sweep: merging it again
        # would read and lock its row for nothing.
        is_news = [isinstance(one, reported.EndReport) or one.attempt_id not in running for one in seen.outcomes]
        findings = Findings(outcomes=list(compress(seen.outcomes, is_news)))
        silent = []
        # After the results: a body that ended before them is in `ended`, and the
        # key of one that ends now holds for 20 s more.
        bodiless = self._bodiless([row for row in rows if row.id not in ended], now_mono_s)
        for row in rows:
            if row.id in ended:
                continue
            if seen.holders.get(row.id) in gone:
                findings.outcomes.append(reported.lost(row.id, _LOST, at=now))
            # Its claim was lost with the server's data (B4), so no holder leads to
            # the worker: the body's own key is asked.
            elif row.state == "running" and bodiless.get(row.id, 0.0) > UNCLAIMED_S:
                findings.outcomes.append(reported.expired(row.id, _FORGOTTEN, at=now))
            elif row.is_unwanted:
                self._stop(row, findings, now)
            # What a dispatcher has (`has_pod`) is not lost: it waits there, with a deadline of its own.
            elif row.is_end_seen or (
                row.state == "sent" and not row.has_pod and row.id in bodiless and row.id not in seen.holders
            ):
                silent.append(row)
        # The backlog is asked for late attempts only: it costs a round trip to the broker for each queue.
        for row in _overdue([row for row in silent if self._is_late(row, now)], backlog):
            self._recover(row, findings, now, is_known=row.id in seen.claimed or _is_since(row.sent_at, complete_since))
        return findings

    def _recover(self, row: entries.Waiting, findings: Findings, now: datetime, *, is_known: bool) -> None:
        """Nobody has this attempt's message. It is sent again only if that leads to no second body.

        A claim says so, or its absence does where claims of that time are still there (`is_known`); of a pod that was
        made a dispatcher says how it ended, and makes none. Else nobody knows whether the body ran: no one may run it
        under this id any more, and the task is tried again as a new attempt, which people see.
        """
        if row.is_launched:
            # Before its message: the dispatcher that gets it has to find that a pod was made (ADR 6).
            self._collector.doubt(row.id)
            findings.resend.append(row.id)
        elif is_known:
            findings.resend.append(row.id)
        # Not blocked means that somebody has begun meanwhile; then nothing is lost.
        elif self._collector.block(row.id):
            findings.outcomes.append(reported.expired(row.id, _UNKNOWN, at=now))

    def _bodiless(self, rows: Sequence[entries.Waiting], now_mono_s: float) -> dict[str, float]:
        """Of attempts without a result those whose body no Celery worker runs, with the seconds since it runs none.

        Where a claim is gone that was lost with the server's data, and where a result is that was thrown away, the
        worker says again and again that the body runs, or no more.
        """
        alive = self._collector.bodies([row.id for row in rows if row.side == "celery"])
        since = {row.id: self._unclaimed.get(row.id, now_mono_s) for row in rows if row.id not in alive}
        began = {row.id for row in rows if row.side == "celery" and row.state == "running"}
        # Rows come in pages: what is known of attempts on other pages is kept, for a while.
        kept = {
            one: at for one, at in self._unclaimed.items() if one not in alive and now_mono_s - at < 10 * UNCLAIMED_S
        }
        self._unclaimed = {**kept, **{one: at for one, at in since.items() if one in began}}
        return {one: now_mono_s - at for one, at in since.items()}

    def _is_late(self, row: entries.Waiting, now: datetime) -> bool:
        if row.sent_at is None:
            return False
        # A broker that was away may have lost what it had; the usual minute would be time that nobody needs.
        if self._outage_at is not None and row.sent_at <= self._outage_at:
            return now - self._outage_at > timedelta(seconds=SUSPECT_S)
        return now - row.sent_at > _patience(row.sends)

    def _gone(self, instances: set[str], now_mono_s: float) -> set[str]:
        """Workers without a heartbeat for long enough."""
        dead = self._collector.dead(instances)
        # A worker that holds no attempt of this page keeps its time; one that answers loses it.
        self._missing = {one: self._missing.get(one, now_mono_s) for one in (self._missing.keys() - instances) | dead}
        self._missing = {
            one: since for one, since in self._missing.items() if now_mono_s - since < 10 * self._lost_after_s
        }
        return {one for one in dead if now_mono_s - self._missing.get(one, now_mono_s) > self._lost_after_s}

    def _stop(self, row: entries.Waiting, findings: Findings, now: datetime) -> None:
        """Nobody wants this attempt: keep it from starting, or stop it.

        What could be blocked has neither begun on a worker nor been given a pod, and will not: that ends it, whether a
        dispatcher lives that has its message or not. A pod of which only the claim was forgotten is stopped.
        """
        # Blocked before it is revoked: a worker that starts later has never heard of
        # the revocation, but meets the key (B15).
        is_blocked = self._collector.block(row.id)
        if row.side == "kubernetes" or not is_blocked:
            findings.revoke.append(row.id)
        if is_blocked and row.state != "running" and not row.is_launched:
            findings.outcomes.append(reported.revoked(row.id, "stopped before it began", at=now))


_LOST = "its worker has no heartbeat any more: it was killed, or its machine is gone"

_FORGOTTEN = f"its worker does not run it any more, and its result is gone from the result backend: {reported.GONE}"

_UNKNOWN = (
    "its message is gone, and so is what the result backend knew of that time: nobody can say whether it ran, so it is "
    f"not run again under this id. If it ran, its result is gone: {reported.GONE}"
)


def _is_since(sent_at: datetime | None, complete_since: datetime) -> bool:
    return sent_at is not None and sent_at >= complete_since


def _overdue(late: Sequence[entries.Waiting], backlog: Backlog) -> list[entries.Waiting]:
    """Attempts sent long ago that nobody began, from queues in which no message waits: their messages got lost.

    If a message is only slow, its attempt has a second one for a while; the claim lets one of them run. With them those
    whose pod ended without leaving a result: whoever gets the message finds the pod, or says that it is lost.
    """
    empty = {queue: backlog(queue) == 0 for queue in {row.queue for row in late}}
    return [row for row in late if empty[row.queue]]


def _patience(sends: int) -> timedelta:
    return timedelta(seconds=min(RESEND_AFTER_S * 2 ** max(0, sends - 1), RESEND_MAX_S))
