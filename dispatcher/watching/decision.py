"""What follows for an attempt from what is known of it: one action, or none. Pure; the time is passed in.

Asked by the reconciler whenever something has changed, and now and then. It looks at the attempt as it is, never at
what happened: an event that came twice, late or not at all leads to the same.
"""

from dataclasses import dataclass
from enum import StrEnum

from dispatcher.attempts import states
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.states import State

RESULT_WAIT_S = 60.0
"""How long a result sidecar may take to report, once the container has ended."""


class Do(StrEnum):
    """What is to be done. Each is idempotent, for the next look may ask for it again."""

    NOTHING = "nothing"
    REPORT_LAUNCHED = "report-launched"
    START = "start"
    REPORT_STARTED = "report-started"
    COLLECT = "collect"
    FINISH = "finish"
    """Its pod has ended: the outcome is read."""
    FINISH_WITHOUT_RESULT = "finish-without-result"
    """The same, though the result sidecar has not reported."""
    REPORT_ENDED = "report-ended"
    DROP = "drop"
    """Its pod left our selector: it is another dispatcher's."""
    FIND = "find"
    """A list lacked its pod: it is looked for."""
    WARN = "warn"
    """It waits too long, and waits on."""
    EXPIRE = "expire"
    """It waits too long, and is ended."""
    READ_EVENTS = "read-events"
    """It does not start: what do the cluster's events say?"""
    REPORT_DROPPED = "report-dropped"
    REPORT_WITHDRAWN = "report-withdrawn"


@dataclass(frozen=True)
class Now:
    """The circumstances: the monotonic time, and whether the API server has answered yet."""

    mono_s: float
    is_connected: bool = True


_WAITING = states.UNLAUNCHED | {State.PENDING}
"""Where a wait may be acted on."""
_LAST_REPORTS = {Closed.DROPPED: Do.REPORT_DROPPED, Closed.WITHDRAWN: Do.REPORT_WITHDRAWN}


def decide(attempt: Attempt, now: Now) -> Do:
    """The next thing to do for an attempt."""
    match attempt.state:
        case State.CLOSED:
            # What Celery's side closed itself (stored, terminated) it knows already.
            return _LAST_REPORTS.get(attempt.closed, Do.NOTHING) if _may_report(attempt) else Do.NOTHING  # type: ignore[arg-type]
        case State.ENDED:
            # While the outcome is read nothing follows: `completion` puts it into the attempt, which is a change.
            is_read = attempt.ending is not None and attempt.ending.result is not None
            return Do.REPORT_ENDED if is_read and _may_report(attempt) else Do.NOTHING
        case State.EXPIRING_LAUNCH | State.EXPIRING_POD:
            # `deadlines` has calls under way and ends or resumes it: a second decision could end it twice.
            return Do.NOTHING
        case _:
            return _of_pod(attempt, now) or _of_wait(attempt, now)


def _may_report(attempt: Attempt) -> bool:
    return not attempt.reported.is_ended


def _of_pod(attempt: Attempt, now: Now) -> Do | None:
    """What follows from its pod; None where nothing does."""
    sighting = attempt.sighting
    # Before any report: what another dispatcher has taken over is that one's to report.
    if sighting is not None and sighting.seen.verdict == "gone":
        return Do.DROP
    if attempt.state in states.LIVE and (due := _due_report(attempt)) is not None:
        return due  # of a pod that has ended already, too: people see that it ran, and where
    if sighting is not None and sighting.seen.verdict in ("succeeded", "failed"):
        if not sighting.is_result_awaited:
            return Do.FINISH
        if attempt.state in (State.PENDING, State.RUNNING):
            return Do.COLLECT  # the body is over: no deadline of a start may act on it any more
        if now.mono_s - (sighting.result_awaited_mono_s or now.mono_s) > RESULT_WAIT_S:
            return Do.FINISH_WITHOUT_RESULT
    # Last: what a pod itself has said outranks a list that lacks it, which may come from an old cache.
    return Do.FIND if attempt.is_missing and attempt.state in states.LIVE else None


def _due_report(attempt: Attempt) -> Do | None:
    """What has not been reported to Celery's side yet of a pod; None where all has."""
    if not attempt.reported.is_launched:
        return Do.REPORT_LAUNCHED
    if attempt.started_at is not None and attempt.state is State.PENDING:
        return Do.START
    if attempt.started_at is not None and not attempt.reported.is_started:
        return Do.REPORT_STARTED
    return None


def _of_wait(attempt: Attempt, now: Now) -> Do:
    """What follows from its wait."""
    wait = attempt.wait
    if wait is None or attempt.state not in _WAITING:
        return Do.NOTHING  # it has begun, and what is left of its wait has only not been looked at again
    if not wait.is_expired(now.mono_s):
        # Of these alone a pod's status says nothing; an image or a node says itself what is wrong.
        is_starting = attempt.state is State.PENDING and wait.kind in ("start", "volume")
        return Do.READ_EVENTS if is_starting else Do.NOTHING
    if wait.rule.action == "wait":
        return Do.WARN
    if attempt.state is State.LAUNCHING:
        return Do.NOTHING  # its calls are bounded: it is looked at again when they have been answered
    # While the API server cannot be asked, only what has no pod for certain may end: anything else might run.
    may_have_pod = attempt.message.is_repeat or attempt.launch.may_have_pod
    return Do.EXPIRE if now.is_connected or not may_have_pod else Do.NOTHING
