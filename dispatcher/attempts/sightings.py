"""From a pod object to what is known of its attempt. No I/O; the time is passed in.

Events may come late, twice, out of order or about a pod of an earlier time: `is_of` says whether a pod is an attempt's,
known by key and uid; `sighting` what it says.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dispatcher.attempts import current_wait
from dispatcher.attempts.attempt import Attempt, Sighting
from dispatcher.manifests import labels, result_sidecar
from dispatcher.status import observation


def uid_of(pod: Mapping[str, Any]) -> str:
    """The uid of a pod object."""
    return str(pod["metadata"]["uid"])


def is_of(attempt: Attempt, pod: Mapping[str, Any]) -> bool:
    """Whether a pod is an attempt's: an older one of the same name never is."""
    # The key rules out a foreign pod of that name (K15), the uid one that was deleted and made again (W12).
    return labels.key_of(pod) == attempt.key and attempt.pod.uid in (None, uid_of(pod))


def sighting(attempt: Attempt, pod: Mapping[str, Any], kind: str, *, now_mono_s: float) -> Sighting:
    """What a pod says, in an event of a watch of this kind, completed by what it said before."""
    seen = current_wait.tolerated(attempt, observation.observe(pod, kind, base=labels.base_of(pod)))
    before = attempt.sighting
    started_at, ended_at = times(seen, created=pod["metadata"].get("creationTimestamp"))
    # Once begun it stays so, at the time that was reported: an event that is late or out of order (W5) may lack it.
    if before is not None and before.started_at is not None:
        started_at = before.started_at
    elif seen.verdict not in ("running", "succeeded", "failed"):
        started_at = None
    scheduled_mono_s = None if before is None else before.scheduled_mono_s
    # When we saw it, not the condition's lastTransitionTime: deadlines depend on no clock but our monotonic one (T1).
    if scheduled_mono_s is None and seen.is_scheduled:
        scheduled_mono_s = now_mono_s
    report = result_sidecar.report_of(pod) if attempt.options.result_path is not None else None
    # The sidecar of a pod that was deleted reports no more: its attempt ends with what is known.
    is_awaited = report is not None and report.kind == "waiting" and seen.verdict == "succeeded" and kind != "DELETED"
    awaited_mono_s = (before.result_awaited_mono_s if before else None) or now_mono_s
    return Sighting(
        seen=seen,
        phase=str((pod.get("status") or {}).get("phase") or "Unknown"),
        at_mono_s=now_mono_s,
        started_at=started_at,
        ended_at=ended_at,
        scheduled_mono_s=scheduled_mono_s,
        is_last=kind == "DELETED",
        is_result_awaited=is_awaited,
        result=report,
        result_awaited_mono_s=awaited_mono_s if is_awaited else None,
    )


def times(seen: observation.Observation, *, created: str | None) -> tuple[datetime | None, datetime | None]:
    """When the deciding container began and ended: the node's words, bounded by what cannot have been otherwise.

    It did not begin before the API server made its pod (`created`), nor end before it began. A node whose clock is
    behind would end a time limit too early without that.
    """
    started_at, ended_at, floor = time_of(seen.started_at), time_of(seen.ended_at), time_of(created)
    # P30: the times in a status are the kubelet's clock, `creationTimestamp` is the API server's.
    if started_at is not None and floor is not None:
        started_at = max(started_at, floor)
    if ended_at is not None and started_at is not None:
        ended_at = max(ended_at, started_at)
    return started_at, ended_at


def time_of(text: str | None) -> datetime | None:
    """A time as the API writes it; None where there is none or it cannot be read."""
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None
