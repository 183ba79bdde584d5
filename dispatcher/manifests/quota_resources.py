"""What a pod asks for, in the words of a ResourceQuota. Pure.

https://kubernetes.io/docs/concepts/policy/resource-quotas/: `requests.X` and `limits.X` count what all containers ask
for, a plain `cpu`, `memory` or `ephemeral-storage` is the request, and every pod counts for `pods` and `count/pods`.
"""

import re
from collections.abc import Mapping
from typing import Any

from dispatcher.manifests import quantities

_PLAIN = frozenset({"cpu", "memory", "ephemeral-storage"})
_COUNTED = frozenset({"pods", "count/pods"})
"""Every pod is one: a quota that allows none is closed for now, and no pod is too large for it."""
_PART = re.compile(r"(requested|used|limited): (.*?)(?=, (?:requested|used|limited): |$)")


def of(pod: Mapping[str, Any]) -> frozenset[str]:
    """The resources for which a pod counts, by its containers or as a whole."""
    spec = pod.get("spec") or {}
    found = {"pods", "count/pods"}
    for container in (spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.get("resources") or {}
        for kind in ("requests", "limits"):
            for name in resources.get(kind) or {}:
                found.add(f"{kind}.{name}")
                if kind == "limits":
                    found.add(f"requests.{name}")  # a request that is not given is the limit
                if name in _PLAIN:
                    found.add(name)
    return frozenset(found)


def exhausted(message: str) -> tuple[frozenset[str], bool]:
    """What a quota that refused a pod has no room for, and whether the pod asks for more than all of it.

    `message` is the API server's: `exceeded quota: NAME, requested: A=1,B=2, used: A=3,B=4, limited: A=5,B=6`.
    """
    # From the text: a Status has no field for it. The words are those of the server's quota plugin.
    parts = {match[1]: _amounts(match[2]) for match in _PART.finditer(message.partition("exceeded quota:")[2])}
    requested, limited = parts.get("requested", {}), parts.get("limited", {})
    is_too_large = any(
        _is_more(amount, limited.get(name)) for name, amount in requested.items() if name not in _COUNTED
    )
    return frozenset(requested), is_too_large


def _amounts(text: str) -> dict[str, str]:
    return dict(pair.strip().split("=", 1) for pair in text.split(",") if "=" in pair)


def _is_more(amount: str, limit: str | None) -> bool:
    try:
        return limit is not None and quantities.parse(amount) > quantities.parse(limit)
    except ValueError:
        return False
