"""Limits: how many pods may be in flight, by queue, by namespace and in all. Pure.

A key names what is limited: `queue/NAME`, `namespace/NAME` or `all`. A pod counts for every key that it touches, and is
created only where each of them has room.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

ALL = "all"
SLOT_REASONS = frozenset({"QueueLimit", "NamespaceLimit", "OverallLimit", "DispatcherLimit"})
"""The reasons of an attempt that waits for a slot."""


@dataclass(frozen=True)
class BlockedReason:
    """Why something waits: one CamelCase word, and a sentence."""

    reason: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the settings say beside the limits of queues. None: no limit."""

    overall: int | None = None
    by_namespace: Mapping[str, int] = field(default_factory=dict)

    def binding(self, *, queue: str, namespace: str, max_pods: int) -> list[tuple[str, int]]:
        """The keys that bind a pod, and their limits; `max_pods` is that of its queue."""
        # From the narrowest to the widest: `Admission.needs` counts what the narrower ones let through.
        found = [(queue_key(queue), max_pods)]
        if namespace in self.by_namespace:
            found.append((namespace_key(namespace), self.by_namespace[namespace]))
        if self.overall is not None:
            found.append((ALL, self.overall))
        return found

    def of_key(self, key: str) -> int | None:
        """The limit of a namespace or of all. None: it has none."""
        kind, _, name = key.partition("/")
        return self.by_namespace.get(name) if kind == "namespace" else self.overall


def queue_key(queue: str) -> str:
    """The key of a queue."""
    return f"queue/{queue}"


def queue_of(key: str) -> str | None:
    """The queue that a key limits; None for another key."""
    kind, _, name = key.partition("/")
    return name if kind == "queue" else None


def namespace_key(namespace: str) -> str:
    """The key of a namespace."""
    return f"namespace/{namespace}"


def keys(queue: str, namespace: str) -> tuple[str, str, str]:
    """All keys that a pod counts for, whether they are limited or not."""
    return (queue_key(queue), namespace_key(namespace), ALL)


def full(key: str, limit: int, *, here: int, others: int) -> BlockedReason:
    """What people read of a limit that is reached. `others` are slots that other dispatchers hold."""
    kind, _, name = key.partition("/")
    match kind:
        case "queue":
            reason, setting = "QueueLimit", f"max_pods of the queue {name}"
        case "namespace":
            reason, setting = "NamespaceLimit", f"max_pods of the namespace {name}"
        case _:
            reason, setting = "OverallLimit", "kubernetes.max_pods"
    return BlockedReason(
        reason, f"{setting} is {limit}: {here} pods of this dispatcher, {others} slots of other dispatchers"
    )
