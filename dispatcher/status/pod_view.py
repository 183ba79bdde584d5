"""A view of a pod: what the status of a pod says, read without trust. Pure, and never raises.

Whatever is missing or of another type than the API promises is left out. `dispatcher.status.observation` makes the
verdict.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from dispatcher.manifests import merge


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of a pod."""

    kind: str | None
    status: str | None
    reason: str | None
    message: str | None

    @classmethod
    def of(cls, condition: Mapping[str, Any]) -> "Condition":
        """From the entry of the status."""
        return cls(
            kind=_text(condition.get("type")),
            status=_text(condition.get("status")),
            reason=_text(condition.get("reason")),
            message=_text(condition.get("message")),
        )


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container, and the state that it is in."""

    name: str | None
    image: str | None
    state: Literal["waiting", "running", "terminated"] | None
    reason: str | None
    message: str | None
    exit_code: int | None
    started_at: str | None
    ended_at: str | None

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> "Container":
        """From the entry of the status."""
        states = _mapping(status.get("state"))
        kind, detail = None, _mapping(None)
        # Exactly one is set, says the API. Where more are, the last in the life of a container counts.
        for known in _STATES:
            if isinstance(states.get(known), Mapping):
                kind, detail = known, states[known]
                break
        return cls(
            name=_text(status.get("name")),
            image=_text(status.get("image")),
            state=kind,
            reason=_text(detail.get("reason")),
            message=_text(detail.get("message")),
            exit_code=_integer(detail.get("exitCode")),
            started_at=_moment_text(detail.get("startedAt")),
            ended_at=_moment_text(detail.get("finishedAt")),
        )


_STATES: tuple[Literal["terminated", "running", "waiting"], ...] = ("terminated", "running", "waiting")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the task container asked for and may use, as quantities."""

    request: str | None = None
    limit: str | None = None


NO_MEMORY = Memory()


@dataclass(frozen=True, kw_only=True)
class PodView:
    """What a verdict on a pod is made of."""

    phase: str | None
    reason: str | None
    message: str | None
    node: str | None
    base: Container | None
    inits: tuple[Container, ...]
    sidecars: tuple[Container, ...]
    conditions: tuple[Condition, ...]
    memory: "Memory"
    is_deleting: bool
    deletion_requested_at: datetime | None

    @classmethod
    def of(cls, pod: Mapping[str, Any], *, base: str = merge.BASE) -> "PodView":
        """From a pod as the API server sends it; `base` is the name of its task container."""
        metadata, status = _mapping(pod.get("metadata")), _mapping(pod.get("status"))
        containers = [Container.of(entry) for entry in _mappings(status.get("containerStatuses"))]
        inits = [Container.of(entry) for entry in _mappings(status.get("initContainerStatuses"))]
        # By the manifest: the status does not say which init containers go on beside the task.
        native = _native_sidecars(pod)
        task = next((container for container in containers if container.name == base), None)
        return cls(
            phase=_text(status.get("phase")),
            reason=_text(status.get("reason")),
            message=_text(status.get("message")),
            node=_text(_mapping(pod.get("spec")).get("nodeName")),
            base=task,
            # An init container that does not end holds the task up; a native sidecar runs beside it.
            inits=tuple(container for container in inits if container.name not in native),
            sidecars=(
                *(container for container in inits if container.name in native),
                *(container for container in containers if container is not task),
            ),
            conditions=tuple(Condition.of(entry) for entry in _mappings(status.get("conditions"))),
            memory=_memory(pod, base),
            is_deleting=bool(metadata.get("deletionTimestamp")),
            deletion_requested_at=_requested_at(metadata),
        )

    @property
    def is_base_running(self) -> bool:
        """The task container runs, says the last report of its node."""
        return self.base is not None and self.base.state == "running"

    def containers(self) -> Iterator[Container]:
        """In the order in which they hold up the work."""
        yield from self.inits
        if self.base:
            yield self.base
        yield from self.sidecars

    def condition(self, kind: str, status: str) -> Condition | None:
        """The condition of that kind, if it has that status."""
        return next((entry for entry in self.conditions if (entry.kind, entry.status) == (kind, status)), None)

    def was_interrupted(self, container: Container) -> bool:
        """Whether deletion was requested before the container ended; a doubt is a yes, for an end by TERM is quick."""
        if not self.is_deleting:
            return False
        ended_at = _moment(container.ended_at)
        # Whole seconds on both sides, and the node's clock against the API server's: the same second is a doubt.
        return ended_at is None or self.deletion_requested_at is None or ended_at >= self.deletion_requested_at


def _native_sidecars(pod: Mapping[str, Any]) -> frozenset[str]:
    """The init containers that run beside the others: how they end decides nothing."""
    spec = _mapping(pod.get("spec"))
    return frozenset(
        str(entry.get("name"))
        for entry in _mappings(spec.get("initContainers"))
        if entry.get("restartPolicy") == "Always"
    )


def _memory(pod: Mapping[str, Any], base: str) -> Memory:
    """From the manifest as the API server keeps it: with the defaults of its namespace."""
    for container in _mappings(_mapping(pod.get("spec")).get("containers")):
        if container.get("name") == base:
            resources = _mapping(container.get("resources"))
            requests, limits = _mapping(resources.get("requests")), _mapping(resources.get("limits"))
            return Memory(request=_quantity(requests.get("memory")), limit=_quantity(limits.get("memory")))
    return NO_MEMORY


def _quantity(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value else None


def _requested_at(metadata: Mapping[str, Any]) -> datetime | None:
    """When deletion was requested: the timestamp is when the grace period ends, and is moved when that is shortened."""
    ends_at = _moment(metadata.get("deletionTimestamp"))
    if ends_at is None:
        return None
    try:
        return ends_at - timedelta(seconds=_integer(metadata.get("deletionGracePeriodSeconds")) or 0)
    except OverflowError:
        return None


def _moment(value: object) -> datetime | None:
    """An aware time, or None for what is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _moment_text(value: object) -> str | None:
    """A time as the API writes it; the zero of a clock, which a container that never started carries, is no time."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if not isinstance(value, str) or value.startswith(("1970-01-01", "0001-01-01")):
        return None
    return value or None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> Iterable[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list | tuple) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
