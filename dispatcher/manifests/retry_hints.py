"""Retry hints: what earlier attempts of a task teach the pod of the next one. Pure.

Out of memory: the next pod gets more, up to a cap. A node that failed: the next pod would rather be elsewhere. Who
retries (the scheduler) learns, the hints travel in the message's header `podyard`, and who builds the pod applies
them, after the override and before hook and identity. A first attempt has none: its pod is what author and queue wrote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from dispatcher import errors
from dispatcher.manifests import quantities

KEY = "lessons"
"""Where they stand in the header."""
MAX_GROWTHS = 5
MAX_NODES = 10
"""The latest nodes are avoided, so that a list in a message stays short."""
MEMORY_ANNOTATION = "podyard.dev/memory-growth"
_WEIGHT = 100  # the most that a preference may weigh
_HOSTNAME = "kubernetes.io/hostname"

Pod = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RetryHints:
    """What is to be different. Quantities are the least that the task container gets."""

    growths: int = 0
    """How often memory was raised."""
    memory_request: str | None = None
    memory_limit: str | None = None
    avoid_nodes: tuple[str, ...] = ()
    """Names, the latest last."""

    def __bool__(self) -> bool:
        return self != NONE

    @property
    def words(self) -> str:
        """For people."""
        memory = ((self.memory_limit, "limit"), (self.memory_request, "request"))
        grown = " and ".join(f"a memory {name} of at least {amount}" for amount, name in memory if amount)
        words = [f"{grown} (growth {self.growths})"] if grown else []
        words += [f"rather not on {', '.join(self.avoid_nodes)}"] if self.avoid_nodes else []
        return ", ".join(words)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON without what is not set; `read` gives an equal value back."""
        fields = {**vars(self), "avoid_nodes": list(self.avoid_nodes)}
        return {name: value for name, value in fields.items() if value}

    @classmethod
    def read(cls, fields: Any) -> Self:
        """From JSON; None gives none. Raises InvalidOverride that names the key: anybody may have written it."""
        if fields is None:
            return cls()
        if not isinstance(fields, Mapping):
            raise _wrong("", fields, "must be a mapping")
        for name, value in fields.items():
            wrong = _CHECKS.get(name, _unknown)(value)
            if wrong:
                raise _wrong(f".{name}", value, wrong)
        return cls(**{**fields, "avoid_nodes": tuple(fields.get("avoid_nodes", ()))[-MAX_NODES:]})

    def without_memory(self, *, request: str | None, limit: str | None, factor: float, at_most: str) -> Self | None:
        """What is learned from a pod that had so much memory and needed more; None where it may not get any more."""
        if self.growths >= MAX_GROWTHS:
            return None
        more, most = (_grown(text, factor=factor, at_most=at_most) for text in (request, limit))
        # The limit is what kills; a request that could grow under a limit at the cap changes nothing.
        if (most == limit) if limit else (more == request):
            return None  # at the cap, or there is nothing that could grow
        return replace(self, growths=self.growths + 1, memory_request=more, memory_limit=most)

    def without_node(self, node: str) -> Self:
        """What is learned from a node that failed."""
        # A node that failed again moves to the end, so that it is not the first to be forgotten.
        others = [name for name in self.avoid_nodes if name != node]
        return replace(self, avoid_nodes=(*others, node)[-MAX_NODES:])


NONE = RetryHints()


def apply(pod: Pod, hints: RetryHints, *, base: str) -> None:
    """Changes a manifest: memory of its task container, and a preference for other nodes."""
    if hints.memory_limit or hints.memory_request:
        for container in (pod.get("spec") or {}).get("containers") or ():
            if container.get("name") == base:
                _grow(pod, container, hints)
    if hints.avoid_nodes:
        _avoid(pod["spec"], hints.avoid_nodes)


def _grown(text: str | None, *, factor: float, at_most: str) -> str | None:
    try:
        return text and quantities.grown(text, factor=factor, at_most=at_most)
    except ValueError:
        return text  # an amount such as 0, which means nothing


def _grow(pod: Pod, container: Pod, hints: RetryHints) -> None:
    """At least what was learned; what template and override say is kept where it is more."""
    resources = container.setdefault("resources", {})
    changes = []
    for part, wanted in (("requests", hints.memory_request), ("limits", hints.memory_limit)):
        had = (resources.get(part) or {}).get("memory")
        # Never lower: an author may have raised the memory since the attempt that taught us.
        if wanted is None or (had is not None and _bytes(had, part) >= quantities.bytes_of(wanted)):
            continue
        resources[part] = {**(resources.get(part) or {}), "memory": wanted}
        changes.append(f"{part}.memory {had or 'not set'} -> {wanted}")
    if changes:
        # Written into the pod, so that `kubectl describe` explains why it is not what the template says.
        metadata = pod.setdefault("metadata", {})
        text = f"growth {hints.growths}: {', '.join(changes)}"
        metadata["annotations"] = {**(metadata.get("annotations") or {}), MEMORY_ANNOTATION: text}


def _bytes(quantity: Any, part: str) -> int:
    try:
        return quantities.bytes_of(quantity)
    except ValueError as error:
        raise errors.InvalidPod(f"pod: resources.{part}.memory of the task container: {error}") from error


def _avoid(spec: Pod, nodes: Sequence[str]) -> None:
    """A preference, not a demand: on a small cluster the failed node may be the only one, or well again."""
    affinity = dict(spec.get("affinity") or {})
    of_nodes = dict(affinity.get("nodeAffinity") or {})
    term = {"matchExpressions": [{"key": _HOSTNAME, "operator": "NotIn", "values": list(nodes)}]}
    field = "preferredDuringSchedulingIgnoredDuringExecution"
    # Added to the author's preferences, which go on to count by their own weights.
    of_nodes[field] = [*(of_nodes.get(field) or ()), {"weight": _WEIGHT, "preference": term}]
    spec["affinity"] = {**affinity, "nodeAffinity": of_nodes}


def _wrong(key: str, value: object, why: str) -> errors.InvalidOverride:
    return errors.InvalidOverride(f"header podyard.{KEY}{key} = {value!r}: {why}")


def _unknown(value: object) -> str:
    return "unknown key"


def _count(value: object) -> str:
    is_right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_GROWTHS
    return "" if is_right else f"must be an integer of 0 to {MAX_GROWTHS}"


def _quantity(value: object) -> str:
    try:
        quantities.bytes_of(value)
    except ValueError as error:
        return str(error)
    return ""


def _names(value: object) -> str:
    is_right = isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value)
    return "" if is_right else "must be a list of names of nodes"


_CHECKS = {"growths": _count, "memory_request": _quantity, "memory_limit": _quantity, "avoid_nodes": _names}
