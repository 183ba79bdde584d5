"""What an attempt waits for now, from what is known of it. No I/O; the time is passed in.

The launcher's reason is read while there is no pod, the pod's own afterwards, completed by what the cluster's events
say of one that does not start. Asked at every change of an attempt; the controller compares the deadline with the time.
"""

from dataclasses import replace

from dispatcher.attempts import states, wait_rules
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.states import State
from dispatcher.status import observation


def look(attempt: Attempt, *, now_mono_s: float) -> wait_rules.Wait | None:
    """What it waits for; None where it does not. Times are monotonic seconds.

    Notes in `attempt.first_waits` when it began to wait for a kind of thing that counts from then.
    """
    if attempt.state in states.UNLAUNCHED:
        return _of_launch(attempt, now_mono_s)
    # EXPIRING_POD is still a wait: its row goes on saying for what, while its pod is read and deleted.
    if attempt.state not in (State.PENDING, State.EXPIRING_POD) or attempt.started_at is not None:
        return None
    return _of_pod(attempt, attempt.seen, now_mono_s) if attempt.seen.verdict == "none" else None


def tolerated(attempt: Attempt, seen: observation.Observation) -> observation.Observation:
    """The observation; but where the queue gives time to what Kubernetes calls a failure, only a wait."""
    # An exit code or a deletion is an end, whatever the reason is called: time heals only what waits.
    if seen.verdict != "failed" or seen.exit_code is not None or seen.is_deleting:
        return seen
    kind = wait_rules.kind_of(reason=seen.reason, is_pod=True, is_scheduled=seen.is_scheduled)
    if kind not in wait_rules.FATAL_KINDS or kind not in attempt.profile.waits:
        return seen
    return replace(seen, verdict="none", cause=None)


def _of_launch(attempt: Attempt, now_mono_s: float) -> wait_rules.Wait | None:
    blocked = attempt.blocked
    # Its claim or its create is under way: these calls are bounded by time-outs of their own.
    if blocked is None and attempt.state is State.LAUNCHING:
        return None
    reason, detail = (None, None) if blocked is None else (blocked.reason, blocked.text)
    kind = wait_rules.kind_of(reason=reason, is_pod=False, is_scheduled=False)
    # Kept for each kind: waits that alternate (a slot, a quota, a slot again) do not begin anew each time.
    first_mono_s = attempt.first_waits.setdefault(kind, now_mono_s)
    return _wait(attempt, kind, reason=reason, detail=detail, since_mono_s=first_mono_s)


def _of_pod(attempt: Attempt, seen: observation.Observation, now_mono_s: float) -> wait_rules.Wait:
    reason, detail = seen.reason, seen.message
    kind = wait_rules.kind_of(reason=reason, is_pod=True, is_scheduled=seen.is_scheduled)
    if kind == "start" and attempt.event is not None:
        kind, reason, detail = _with_event(attempt, reason)
    # The wait for a node counts from when the pod was made, which an adopted pod brings along. All others count from
    # when we first saw that it has a node: before that nothing could have started.
    scheduled_mono_s = None if attempt.sighting is None else attempt.sighting.scheduled_mono_s
    created_mono_s = attempt.pod.created_mono_s
    began_mono_s = created_mono_s if kind == "unschedulable" else scheduled_mono_s or created_mono_s
    first_mono_s = attempt.first_waits.setdefault(kind, now_mono_s)
    is_own = wait_rules.counts_from_its_first_sight(kind, profile=attempt.profile, options=attempt.options)
    return _wait(attempt, kind, reason=reason, detail=detail, since_mono_s=first_mono_s if is_own else began_mono_s)


def _with_event(attempt: Attempt, reason: str | None) -> tuple[str, str | None, str | None]:
    """Kind, reason and detail of a pod whose status says no more than that its container is being made."""
    event = attempt.event
    assert event is not None
    if wait_rules.is_volume(event.reason):
        return "volume", event.reason, event.message
    # `image` fails as the author's by default. A slow pull is not that: it is one of `start`, the infrastructure's.
    if event.reason == "Pulling" and "image" in attempt.profile.waits:
        return "image", event.reason, event.message
    return "start", reason, f"{event.reason}: {event.message}"


def _wait(
    attempt: Attempt, kind: str, *, reason: str | None, detail: str | None, since_mono_s: float
) -> wait_rules.Wait:
    # Before there is a pod no time-out of the task counts (Airflow's of these names are a pod's, too): the queue's do.
    options = None if attempt.state in states.UNLAUNCHED else attempt.options
    return wait_rules.Wait(
        kind=kind,
        reason=reason,
        detail=detail,
        since_mono_s=since_mono_s,
        rule=wait_rules.rule_of(kind, profile=attempt.profile, options=options),
        said_by=wait_rules.said_by(kind, profile=attempt.profile, options=options, queue=attempt.queue),
    )
