"""Start limits: how long a pod may look for a node, and how long its container may then take to start. Pure.

Without them a pod that fits nowhere, or whose image never comes, would wait for ever. The limits of the sender win over
those of the queue. The clock begins anew when a node is found.
"""

from dataclasses import dataclass
from typing import Literal

from dispatcher.options import QueueProfile
from dispatcher.podoptions import PodOptions


@dataclass(frozen=True, kw_only=True)
class Late:
    """What did not happen in time."""

    what: Literal["scheduled", "started"]
    limit_s: float

    @property
    def words(self) -> str:
        """For the failure's message."""
        name = "schedule_timeout" if self.what == "scheduled" else "startup_timeout"
        return f"was not {self.what} within {self.limit_s:g} s ({name})"


def late(
    *, created_s: float, scheduled_s: float | None, now_s: float, wanted: PodOptions, profile: QueueProfile
) -> Late | None:
    """What is late of a pod that has not started, if anything; times are of one monotonic clock.

    `created_s` is when the pod was created, `scheduled_s` when its node was known, or None.
    """
    if scheduled_s is None:
        limit_s = profile.schedule_timeout_s if wanted.schedule_timeout_s is None else wanted.schedule_timeout_s
        return Late(what="scheduled", limit_s=limit_s) if _is_over(limit_s, now_s - created_s) else None
    limit_s = profile.startup_timeout_s if wanted.startup_timeout_s is None else wanted.startup_timeout_s
    return Late(what="started", limit_s=limit_s) if _is_over(limit_s, now_s - scheduled_s) else None


def _is_over(limit_s: float, passed_s: float) -> bool:
    """A limit of 0 is none."""
    return 0 < limit_s <= passed_s
