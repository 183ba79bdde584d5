"""Containers' states -> a pod's status. Pure; the rules are the kubelet's.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from dispatcher.localcluster.objects import conditions, manifest, times

Json = dict[str, Any]
NEVER = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a container's runs before this one left: only sidecars are started more than once."""

    restarts: int = 0
    last: "Terminated | None" = None


@dataclass(frozen=True, kw_only=True)
class Waiting(_Run):
    """Not started, and why."""

    reason: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Running(_Run):
    """Started."""

    started_at: datetime


@dataclass(frozen=True, kw_only=True)
class Terminated(_Run):
    """Ended. `started_at` None: it never started."""

    exit_code: int
    reason: str
    started_at: datetime | None
    finished_at: datetime
    message: str = ""


State = Waiting | Running | Terminated
Pair = tuple[manifest.Container, State]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All that the status is made of."""

    init: Sequence[Pair] = ()
    main: Sequence[Pair] = ()
    uid: str = ""
    address: str = "127.0.0.1"
    started_at: datetime | None = None
    reason: str = ""
    """The pod's own reason, such as `DeadlineExceeded`; with it an ended pod counts as failed."""
    message: str = ""
    unschedulable: str = ""
    """Why no node takes it; empty once it has one."""


def has_started(state: State) -> bool:
    """Whether the container runs, or ever did."""
    if isinstance(state, Terminated) and state.started_at is not None:
        return True
    return isinstance(state, Running) or (state.last is not None and state.last.started_at is not None)


def next_run(state: State) -> Waiting:
    """What a container is before it is started, for the first time or again."""
    last = state if isinstance(state, Terminated) else state.last
    last = None if last is None else replace(last, last=None)
    return Waiting(reason="", restarts=state.restarts + 1 if last else 0, last=last)


def phase(situation: Situation) -> str:
    """Pending, Running, Succeeded or Failed, for restartPolicy Never.

    How sidecars ended does not count; while one runs the pod is not over.
    """
    main = [state for _, state in situation.main]
    init = [state for container, state in situation.init if not container.is_sidecar]
    over = not any(isinstance(state, Running) for _, state in [*situation.main, *situation.init])
    # An eviction or a deadline fails the pod whatever its containers' exit codes were.
    if situation.reason and over:
        return "Failed"
    if any(isinstance(state, Terminated) and state.exit_code for state in init):
        return "Failed" if over else "Pending"
    if any(isinstance(state, Waiting) for state in main):
        return "Pending"
    if not over:
        return "Running"
    return "Failed" if any(isinstance(state, Terminated) and state.exit_code for state in main) else "Succeeded"


def status(situation: Situation, *, before: Json, now: datetime) -> Json:
    """The status object; the times of conditions that did not change are taken from `before`."""
    if situation.unschedulable:
        scheduled = [conditions.condition("PodScheduled", "False", "Unschedulable", situation.unschedulable)]
        return before | {"phase": "Pending", "conditions": _dated(scheduled, before, now)}
    # A reason of before belongs to what the pod waited for.
    before = {key: value for key, value in before.items() if key not in {"reason", "message"}}
    name = phase(situation)
    made: Json = {
        "phase": name,
        "conditions": _dated(_conditions(situation, name), before, now),
        "hostIP": situation.address,
        "hostIPs": [{"ip": situation.address}],
        "podIP": situation.address,
        "podIPs": [{"ip": situation.address}],
        "containerStatuses": [_container_status(situation.uid, pair) for pair in situation.main],
    }
    if situation.started_at is not None:
        made["startTime"] = times.write(situation.started_at)
    if situation.init:
        made["initContainerStatuses"] = [_container_status(situation.uid, pair) for pair in situation.init]
    if situation.reason:
        made |= {"reason": situation.reason, "message": situation.message}
    return before | made


def _container_status(uid: str, pair: Pair) -> Json:
    container, state = pair
    made: Json = {
        "name": container.name,
        "state": _state(state),
        "lastState": _state(state.last) if state.last else {},
        "ready": isinstance(state, Running),
        "restartCount": state.restarts,
        "image": container.image,
        "imageID": "",
        "started": isinstance(state, Running),
    }
    if not isinstance(state, Waiting):
        made["containerID"] = f"process://{uid}/{container.name}"
        if isinstance(state, Terminated):
            made["state"]["terminated"]["containerID"] = made["containerID"]
    if state.last:
        made["lastState"]["terminated"]["containerID"] = f"process://{uid}/{container.name}"
    return made


def _state(state: State) -> Json:
    if isinstance(state, Waiting):
        return {"waiting": {"reason": state.reason} | ({"message": state.message} if state.message else {})}
    if isinstance(state, Running):
        return {"running": {"startedAt": times.write(state.started_at)}}
    ended: Json = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "startedAt": times.write(state.started_at) if state.started_at else NEVER,
        "finishedAt": times.write(state.finished_at),
    }
    if state.message:
        ended["message"] = state.message
    return {"terminated": ended}


def _conditions(situation: Situation, name: str) -> list[Json]:
    over = name in {"Succeeded", "Failed"}
    pending = [container.name for container, state in situation.init if not _is_initialized(container, state)]
    serving = [pair for pair in situation.init if pair[0].is_sidecar] + list(situation.main)
    unready = [container.name for container, state in serving if not isinstance(state, Running)]
    if name == "Succeeded":
        pods, containers = ("False", "PodCompleted", ""), ("False", "PodCompleted", "")
    elif name == "Failed":
        pods, containers = ("False", "PodFailed", ""), ("False", "PodFailed", "")
    elif unready:
        words = f"containers with unready status: [{' '.join(unready)}]"
        pods = containers = ("False", "ContainersNotReady", words)
    else:
        pods = containers = ("True", "", "")
    initialized = ("True", "PodCompleted" if name == "Succeeded" else "", "")
    if pending:
        initialized = ("False", "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(pending)}]")
    return [
        conditions.condition("PodReadyToStartContainers", "False" if over else "True"),
        conditions.condition("Initialized", *initialized),
        conditions.condition("Ready", *pods),
        conditions.condition("ContainersReady", *containers),
        conditions.condition("PodScheduled", "True"),
    ]


def _is_initialized(container: manifest.Container, state: State) -> bool:
    if container.is_sidecar:
        return not isinstance(state, Waiting) or state.last is not None
    return isinstance(state, Terminated) and state.exit_code == 0


def _dated(found: list[Json], before: Json, now: datetime) -> list[Json]:
    old = {condition["type"]: condition for condition in before.get("conditions") or []}
    for condition in found:
        same = old.get(condition["type"], {})
        kept = same.get("lastTransitionTime") if same.get("status") == condition["status"] else None
        condition["lastProbeTime"] = None
        condition["lastTransitionTime"] = kept or times.write(now)
    owned = {condition["type"] for condition in found}
    # Conditions of others, such as DisruptionTarget, stay as they are.
    return found + [condition for kind, condition in old.items() if kind not in owned]
