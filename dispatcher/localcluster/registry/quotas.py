"""Resource quotas, as far as they count objects: quota, counts -> why one more is too many. Pure.

https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-on-object-count
"""

from collections.abc import Mapping
from typing import Any

from dispatcher.localcluster.objects import quantities

Json = dict[str, Any]


def key_of(plural: str, hard: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a quota that count objects of a kind: `pods`, `count/pods`."""
    return tuple(key for key in (plural, f"count/{plural}") if key in hard)


def exceeded(quota: Json, plural: str, used: Mapping[str, int]) -> str:
    """Why one more object is too many; empty where it is not. `used` counts by key."""
    hard = quota.get("spec", {}).get("hard") or {}
    over = [key for key in key_of(plural, hard) if used[key] + 1 > quantities.read(hard[key])]
    if not over:
        return ""
    requested = ",".join(f"{key}=1" for key in over)
    counted = ",".join(f"{key}={used[key]}" for key in over)
    limited = ",".join(f"{key}={hard[key]}" for key in over)
    name = quota["metadata"]["name"]
    return f"exceeded quota: {name}, requested: {requested}, used: {counted}, limited: {limited}"
