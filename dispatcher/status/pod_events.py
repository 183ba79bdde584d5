"""Pod events: what the cluster said about a pod, for people. Pure, and takes what the API server sends as it comes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MESSAGE_CHARS = 500


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


def last_warning(events: Iterable[Event]) -> Event | None:
    """The newest warning: mostly it says why a pod did not start."""
    return next((event for event in reversed(list(events)) if event.is_warning), None)


def _event(item: Mapping[str, Any]) -> Event:
    series = item.get("series") or {}
    at = item.get("lastTimestamp") or series.get("lastObservedTime") or item.get("eventTime")
    count = item.get("count") or series.get("count")
    return Event(
        at=str(at or item.get("firstTimestamp") or ""),
        reason=str(item.get("reason") or "Unknown"),
        message=" ".join(str(item.get("message") or "").split())[:MESSAGE_CHARS],
        is_warning=item.get("type") == "Warning",
        count=count if isinstance(count, int) else 1,
    )
