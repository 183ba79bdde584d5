"""What people may know of an attempt, as a row of the table of pods. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dispatcher.attempts import states
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.status_store import PodRow
from dispatcher.attempts.wait_rules import Wait

_PHASES = {"succeeded": "Succeeded", "failed": "Failed"}
"""The verdict on a container that has ended -> the phase of its row, whatever the rest of its pod does."""


@dataclass(frozen=True)
class Instant:
    """One moment by the clock of people and by the monotonic one."""

    at: datetime
    mono_s: float


def row(attempt: Attempt, *, deployment: str, owner: str, now: Instant) -> PodRow:
    """The row of an attempt as it is now."""
    return PodRow(
        attempt_id=attempt.id,
        retries=attempt.message.retries,
        deployment=deployment,
        name=attempt.pod.name,
        namespace=attempt.namespace,
        uid=attempt.pod.uid,
        queue=attempt.queue,
        task=attempt.message.shown_name,
        owner=owner,
        updated_at=now.at,
        received_at=attempt.received_at,
        created_at=attempt.pod.created_at,
        started_at=attempt.started_at,
        # Not when its pod ends: a dispatcher that is killed before the outcome is stored leaves an open row, which
        # `LostPods` finds if the pod goes, too (P25).
        reported_at=now.at if attempt.closed is not None else None,
        **(_of_ending(attempt, now) if attempt.ending is not None else _of_life(attempt, now)),
    )


def _of_life(attempt: Attempt, now: Instant) -> dict[str, Any]:
    if attempt.sighting is None and attempt.state in states.UNLAUNCHED:
        return {"phase": "Waiting", **_of_wait(attempt.wait, now)}
    seen = attempt.seen
    return {
        "phase": _PHASES.get(seen.verdict) or (attempt.sighting.phase if attempt.sighting else "Pending"),
        "reason": seen.reason,
        "message": _message(attempt),
        "cause": seen.cause,
        "exit_code": seen.exit_code,
        "node": seen.node,
        "ended_at": attempt.ended_at,
        **_of_wait(attempt.wait, now),
    }


def _message(attempt: Attempt) -> str | None:
    """The cluster's words; a container that failed instead of the deciding one is named."""
    seen = attempt.seen
    if seen.verdict == "succeeded":
        return None
    if seen.verdict != "failed" or seen.container in (None, attempt.options.base):
        return seen.message
    return f"container {seen.container}" + (f": {seen.message}" if seen.message else "")


def _of_ending(attempt: Attempt, now: Instant) -> dict[str, Any]:
    """What ended it says, and where that says nothing of its own, its pod does."""
    ending, seen = attempt.ending, attempt.seen
    assert ending is not None
    if ending.phase is None:
        life = _of_life(attempt, now)
        return life if life["phase"] in _PHASES.values() else {**life, "phase": "Failed"}
    had_pod = attempt.pod.uid is not None
    return {
        "phase": ending.phase,
        "reason": ending.reason,
        "message": ending.message,
        "cause": ending.cause,
        "node": ending.node or seen.node,
        "exit_code": seen.exit_code,
        # Nobody saw the end of a pod that vanished; what never had a pod has not ended as one.
        "ended_at": attempt.ended_at or (now.at if had_pod else None),
    }


def _of_wait(wait: Wait | None, now: Instant) -> dict[str, Any]:
    if wait is None:
        return {}
    # Kept in monotonic seconds, which no step of a clock changes, and turned into times of day for people alone.
    at = {"waiting_since": wait.since_mono_s, "deadline_at": wait.deadline_mono_s}
    return {
        "reason": wait.reason,
        "message": wait.detail,
        "at_deadline": wait.rule.action,
        **{key: None if s is None else now.at + timedelta(seconds=s - now.mono_s) for key, s in at.items()},
    }
