"""Waiting: what an attempt waits for now, from what is known of it. Changes nothing but its book of first sights.

The launcher's words are read while there is no pod, the pod's own afterwards, completed by what the cluster's events
say of one that does not start. `dispatcher.attempts.status_notes` asks at every change, `dispatcher.watching.clock`
compares with the time.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.attempts import wait_rules
from dispatcher.attempts.attempt import Attempt
from dispatcher.status import observation

NOTHING = observation.Observation(verdict="none")


def look(attempt: Attempt, *, now_s: float) -> wait_rules.Wait | None:
    """What it waits for; None where it does not. Times are of the monotonic clock."""
    if attempt.stage == "waiting" or (attempt.stage == "creating" and attempt.reason):
        kind = wait_rules.kind_of(reason=attempt.reason, is_pod=False, is_scheduled=False)
        first_s = attempt.first_waits.setdefault(kind, now_s)
        return _wait(attempt, kind, reason=attempt.reason, detail=attempt.detail, since_s=first_s)
    seen = attempt.seen or NOTHING
    if attempt.stage != "created" or attempt.started_at is not None or seen.verdict != "none":
        return None
    return _of_pod(attempt, seen, now_s)


def patient(attempt: Attempt, seen: observation.Observation) -> observation.Observation:
    """The observation; but where the queue gives time to what Kubernetes calls a failure, only a wait."""
    if seen.verdict != "failed" or seen.exit_code is not None or seen.is_deleting:
        return seen
    kind = wait_rules.kind_of(reason=seen.reason, is_pod=True, is_scheduled=seen.is_scheduled)
    if kind not in wait_rules.FATAL_KINDS or kind not in attempt.profile.waits:
        return seen
    return replace(seen, verdict="none", cause=None)


def facts(attempt: Attempt, *, now_s: float) -> dict[str, Any]:
    """What the attempt's row says of its wait: fields of `PodRow`, with times of people's clock."""
    wait = attempt.wait
    if wait is None:
        return {}
    at = {"waiting_since": wait.since_s, "deadline_at": wait.deadline_s}
    now = datetime.now(UTC)
    return {
        "reason": wait.reason,
        "message": wait.detail,
        "at_deadline": wait.rule.action,
        **{name: None if then_s is None else now + timedelta(seconds=then_s - now_s) for name, then_s in at.items()},
    }


def _of_pod(attempt: Attempt, seen: observation.Observation, now_s: float) -> wait_rules.Wait:
    reason, detail = seen.reason, seen.message
    kind = wait_rules.kind_of(reason=reason, is_pod=True, is_scheduled=seen.is_scheduled)
    if kind == "start" and attempt.clue is not None:
        kind, reason, detail = _with_clue(attempt, reason)
    began_s = attempt.created_mono if kind == "unschedulable" else attempt.scheduled_mono or attempt.created_mono
    first_s = attempt.first_waits.setdefault(kind, now_s)
    is_own = wait_rules.counts_from_its_first_sight(kind, profile=attempt.profile, wanted=attempt.wanted)
    return _wait(attempt, kind, reason=reason, detail=detail, since_s=first_s if is_own else began_s)


def _with_clue(attempt: Attempt, reason: str | None) -> tuple[str, str | None, str | None]:
    """Kind, reason and detail of a pod whose status says no more than that its container is being made."""
    clue = attempt.clue
    assert clue is not None  # noqa: S101 - for the type checker
    if wait_rules.is_volume(clue.reason):
        return "volume", clue.reason, clue.message
    if clue.reason == "Pulling" and "image" in attempt.profile.waits:
        return "image", clue.reason, clue.message
    return "start", reason, f"{clue.reason}: {clue.message}"


def _wait(attempt: Attempt, kind: str, *, reason: str | None, detail: str | None, since_s: float) -> wait_rules.Wait:
    is_pod = attempt.stage == "created"
    wanted = attempt.wanted if is_pod else None
    return wait_rules.Wait(
        kind=kind,
        reason=reason,
        detail=detail,
        since_s=since_s,
        rule=wait_rules.rule_of(kind, profile=attempt.profile, wanted=wanted),
        said_by=wait_rules.said_by(kind, profile=attempt.profile, wanted=wanted, queue=attempt.queue),
    )
