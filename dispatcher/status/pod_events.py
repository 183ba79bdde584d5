"""Pod events: what the cluster said about a pod, for people. Pure, and takes what the API server sends as it comes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.status import reasons

MESSAGE_CHARS = 500

_SCHEDULING = frozenset({"FailedScheduling", "FailedBinding", "ProvisioningFailed"})
_VOLUMES = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume", "ProvisioningFailed"})
_SANDBOX = frozenset({"FailedCreatePodSandBox", "FailedPodSandBoxStatus", "NetworkNotReady"})
_IMAGES = frozenset({"Failed", "InspectFailed", "ErrImageNeverPull", "FailedToRetrieveImagePullSecret"})
_STARTS = frozenset({"Failed", "FailedPostStartHook", "FailedSync"})
_ENDS = frozenset(
    {
        "Evicted", "ExceededGracePeriod", "FailedPostStartHook", "FailedPreStopHook", "NodeNotReady", "NodeShutdown",
        "OOMKilling", "Preempted", "Preempting", "ProbeError", "SystemOOM", "TaintManagerEviction", "Unhealthy",
    }
)  # fmt: skip
_BELONGS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys((reasons.UNSCHEDULABLE, "NotScheduled", "SchedulerError", "SchedulingGated"), _SCHEDULING),
    **dict.fromkeys(_VOLUMES, _VOLUMES),
    **dict.fromkeys((*reasons.IMAGE_WAITS, "InvalidImageName"), _IMAGES),
    **dict.fromkeys(("CreateContainerConfigError",), _STARTS),
    **dict.fromkeys(("ContainerCannotRun", "StartError", "CreateContainerError", "RunContainerError"), _STARTS),
    **dict.fromkeys(
        ("NotStarted", "ContainerCreating", "PodInitializing", ""), _VOLUMES | _SANDBOX | _IMAGES | _STARTS | _ENDS
    ),
}
"""Reason of a failure -> the warnings that speak of it. What a pod got over, and notices about its node (DNS, disks),
explain no exit code: the reasons that are not here are ends of processes."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event, perhaps repeated."""

    at: str
    """As the API writes times; empty where it does not say."""
    reason: str
    message: str
    is_warning: bool = False
    count: int = 1

    @property
    def line(self) -> str:
        """For a log."""
        times = f" (x{self.count})" if self.count > 1 else ""
        return f"{self.at or '-'} {'Warning' if self.is_warning else 'Normal'} {self.reason}{times}: {self.message}"


def read(items: Iterable[Mapping[str, Any]]) -> list[Event]:
    """The events of a list, oldest first."""
    return sorted((_event(item) for item in items if isinstance(item, Mapping)), key=lambda event: event.at)


def telling(events: Iterable[Event], *, reason: str | None, message: str) -> Event | None:
    """The newest warning that belongs to a failure by `reason`, and says what its `message` does not; None else."""
    belongs = _BELONGS.get(reason or "", _ENDS)
    known = set(_words(message))
    for event in reversed(list(events)):
        words = _words(event.message)
        # A third: the kubelet repeats in its events what the status says, with other ids and times in it.
        is_new = sum(word not in known for word in words) * 3 > len(words)
        if event.is_warning and event.reason in belongs and is_new:
            return event
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"\w{3,}", text.lower())


def _event(item: Mapping[str, Any]) -> Event:
    series = item.get("series") or {}
    # The old API has `lastTimestamp` and `count`, the new one `eventTime` and a series; clusters hold both.
    at = item.get("lastTimestamp") or series.get("lastObservedTime") or item.get("eventTime")
    count = item.get("count") or series.get("count")
    return Event(
        at=str(at or item.get("firstTimestamp") or ""),
        reason=str(item.get("reason") or "Unknown"),
        # One line of a log, and bounded: some drivers quote a whole page.
        message=" ".join(str(item.get("message") or "").split())[:MESSAGE_CHARS],
        is_warning=item.get("type") == "Warning",
        count=count if isinstance(count, int) else 1,
    )
