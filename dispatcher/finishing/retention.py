"""Retention: pods that were kept for people, and whose time is over. Pure; `podyard pods cleanup` deletes them.

Only what is marked as done is ever a leftover: its outcome is stored and its log is saved. A finished pod without that
mark is still wanted, for a dispatcher has yet to read its outcome; one that runs is wanted in any case.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from dispatcher.attempts import sightings
from dispatcher.manifests import labels, names

Verdict = Literal["leftover", "unfinished", "unread", "young", "other"]


@dataclass(frozen=True, kw_only=True)
class RetentionRule:
    """Which leftovers are meant."""

    older_than_s: float
    outcome: str = "any"
    """`any`, `succeeded` or `failed`."""


def selector(deployment: str) -> str:
    """The label selector of all pods of a deployment, those that are marked as done included."""
    ours = f"{labels.MANAGED_BY_LABEL}={labels.MANAGED_BY}"
    return f"{ours},{labels.DEPLOYMENT_LABEL}={names.label_value(deployment)}"


def decide(pod: Mapping[str, Any], rule: RetentionRule, *, now: datetime) -> Verdict:
    """What a pod of ours is: a leftover of that rule; not finished; finished, but its outcome may be unread; too young;
    or of another outcome."""
    phase = (pod.get("status") or {}).get("phase")
    if phase not in ("Succeeded", "Failed"):
        return "unfinished"
    # Somebody is deleting it already: a second delete would only shorten its grace period.
    if not labels.is_done(pod) or (pod.get("metadata") or {}).get("deletionTimestamp"):
        return "unread"
    ended_at = time_of_end(pod)
    if ended_at is None or (now - ended_at).total_seconds() < rule.older_than_s:
        return "young"
    return "leftover" if rule.outcome in ("any", str(phase).lower()) else "other"


def time_of_end(pod: Mapping[str, Any]) -> datetime | None:
    """When the last container of a pod ended; where none says so, when the pod was made."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ended = [((status.get("state") or {}).get("terminated") or {}).get("finishedAt") for status in statuses]
    times = [at for at in map(sightings.time_of, ended) if at is not None]
    made = sightings.time_of((pod.get("metadata") or {}).get("creationTimestamp"))
    return max(times, default=made)
