"""What the task container of a pod says of itself: its times and its termination message. Pure.

The verdict on a pod is `podstatus`'s; this module only reads facts beside it. Nothing raises: a field that is missing
or malformed is None.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

NAME = "base"


@dataclass(frozen=True)
class Times:
    """When the container ran; aware UTC, None where the pod does not say."""

    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def runtime_s(self) -> float | None:
        """Seconds between both, where both are known."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


def times(pod: Mapping[str, Any]) -> Times:
    """The times of the current or last run of the task container."""
    state = _state(pod)
    terminated = state.get("terminated")
    if isinstance(terminated, Mapping):
        return Times(_time(terminated.get("startedAt")), _time(terminated.get("finishedAt")))
    running = state.get("running")
    return Times(_time(running.get("startedAt"))) if isinstance(running, Mapping) else Times()


def termination_message(pod: Mapping[str, Any]) -> str | None:
    """What the task container left in its termination file, or None."""
    terminated = _state(pod).get("terminated")
    message = terminated.get("message") if isinstance(terminated, Mapping) else None
    return message if isinstance(message, str) else None


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    status = pod.get("status")
    statuses = status.get("containerStatuses") if isinstance(status, Mapping) else None
    for entry in statuses if isinstance(statuses, list) else ():
        if isinstance(entry, Mapping) and entry.get("name") == NAME:
            state = entry.get("state")
            return state if isinstance(state, Mapping) else {}
    return {}


def _time(text: object) -> datetime | None:
    """A Kubernetes time. A start in 1970 is the kubelet's word for «never started» (StartError)."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.year <= 1970 else time.astimezone(UTC)
