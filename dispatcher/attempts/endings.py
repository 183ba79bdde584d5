"""Every way in which an attempt gets an outcome without its pod having given one: one constructor each. Pure."""

from dataclasses import replace
from typing import Any

from dispatcher import errors
from dispatcher.attempts import wait_rules
from dispatcher.attempts.attempt import Attempt, Ending
from dispatcher.protocol import message
from dispatcher.status import diagnosis, observation, pod_events, reasons

_NO_EVENTS: tuple[pod_events.Event, ...] = ()


def of_pod() -> Ending:
    """Its pod has ended by itself: the result is being read, and the pod's own status stands in its row."""
    return Ending()


def refused(attempt: Attempt, error: BaseException, *, reason: str | None = None, cause: str = "application") -> Ending:
    """It gets no pod: neither the builder nor the API server wants it. A PodFailed stands as it is."""
    if isinstance(error, errors.PodFailed):
        failure = error
    else:
        details = {"reason": reason or type(error).__name__, "cause": cause}
        pod = {"pod": attempt.pod.name} if attempt.pod.name else {}
        failure = errors.PodFailed(f"the pod was not launched: {error}", {**details, **pod})
    return of_failure(failure)


def lost(attempt: Attempt, owner: str) -> Ending:
    """Its pod was asked for by `owner`, is not there, and no outcome is stored: nobody can say whether it ran.

    Where its message says how its pod ended, that is told.
    """
    if attempt.message.pod_end is not None:
        return _as_recorded(attempt, attempt.message.pod_end)
    failure = errors.PodFailed(
        f"{owner or 'a dispatcher'} asked for the pod {attempt.pod.name} and reported no outcome, and there is no such "
        "pod now: it was deleted, or the dispatcher ended before the pod was made; it is not run again under this id",
        {"reason": "PodLost", "cause": "infrastructure", "pod": attempt.pod.name},
    )
    return replace(of_failure(failure), phase="Lost")


def _as_recorded(attempt: Attempt, end: message.PodEnd) -> Ending:
    """Its pod has ended and is gone, and so is its outcome: what the table of pods keeps of it."""
    phase = end.get("phase", "Lost")
    why = f"its pod {attempt.pod.name} had ended ({phase})"
    if phase == "Failed" and (said := end.get("message") or end.get("reason")):
        why = f"{why}: {said}"
    known: dict[str, Any] = {"reason": "ResultExpired", "cause": "infrastructure", "pod": attempt.pod.name}
    # What its row says of a success is no reason of this failure, which is the result's.
    if phase != "Succeeded":
        known |= {name: value for name, value in end.items() if name in ("reason", "cause", "exit_code", "node")}
    failure = errors.PodFailed(f"{why}; its result was gone from the result backend before it was read", known)
    return replace(of_failure(failure), phase=phase)


def deleted(attempt: Attempt) -> Ending:
    """Its pod is gone, and nothing is known of its end."""
    failure = errors.PodFailed(
        f"the pod {attempt.pod.name} was deleted while nobody watched; nothing is known of its end",
        {"reason": "PodDeleted", "cause": "infrastructure", "pod": attempt.pod.name},
    )
    return replace(of_failure(failure), is_pod_gone=True)


def revoked(attempt: Attempt) -> Ending:
    """Celery has ended it: Celery stores the result."""
    if attempt.pod.uid is None:
        return Ending(phase="Revoked", reason="Revoked")
    return Ending(phase="Failed", reason="Revoked", message="it was revoked, or its hard time limit has passed")


def too_late(attempt: Attempt, wait: wait_rules.Wait) -> errors.PodFailed:
    """The failure of an attempt that waited longer than it may; it names for what, how long, and what to do."""
    subject = f"the pod {attempt.pod.name}" if attempt.pod.uid is not None else "it has no pod yet, and"
    known = details(attempt, attempt.seen)
    return errors.PodFailed(wait_rules.too_long(wait, subject=subject), {**known, **wait_rules.details(wait)})


def of_failure(failure: errors.PodFailed, *, is_pod_gone: bool = False, epilogue: tuple[str, ...] = ()) -> Ending:
    """An ending by a failure that is known, in whose words its row stands."""
    known = failure.details
    return Ending(
        result=failure,
        phase="Failed",
        reason=known.get("reason"),
        message=str(failure),
        cause=known.get("cause"),
        node=known.get("node"),
        is_pod_gone=is_pod_gone,
        epilogue=epilogue,
    )


def details(attempt: Attempt, seen: observation.Observation) -> dict[str, Any]:
    """What programs may know of a failure."""
    known = {
        "reason": seen.reason,
        "exit_code": seen.exit_code,
        "cause": seen.cause,
        "pod": attempt.pod.name,
        "node": seen.node,
        "container": seen.container,
        "memory_limit": seen.memory.limit,
        "memory_request": seen.memory.request,
    }
    return {key: value for key, value in known.items() if value is not None}


def diagnosed(
    failure: errors.PodFailed,
    *,
    events: tuple[pod_events.Event, ...] = _NO_EVENTS,
    place: reasons.Place = "container",
) -> errors.PodFailed:
    """The failure with `explanation` and `what_to_do` in its details. One that has them stays as it is.

    `place` is what failed: a container, or the body that ran in it.
    """
    known = failure.details
    # A failure comes when it ends and again before it is replayed, then without its events: the first has the word.
    if "explanation" in known:
        return failure
    symptoms = diagnosis.Symptoms(
        reason=known.get("reason"),
        cause=known.get("cause"),
        exit_code=known.get("exit_code"),
        message=f"{failure.message} {known.get('message', '')}",
        container=known.get("container"),
        node=known.get("node"),
        memory_limit=known.get("memory_limit"),
        events=events,
        place=place,
    )
    found = diagnosis.diagnose(symptoms)
    node = {"is_of_node": True} if found.is_of_node else {}
    facts = {**known, "explanation": found.explanation, "what_to_do": found.what_to_do, **node}
    # The same class: a PodSkipped must not become a plain failure.
    return type(failure)(failure.message, facts)
