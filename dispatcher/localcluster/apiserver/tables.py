"""Objects as rows, in the form that `kubectl get` asks for (`as=Table`). Pure.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dispatcher.localcluster.objects import times

Json = dict[str, Any]
Cell = Callable[[Json, datetime], Any]


@dataclass(frozen=True)
class Column:
    """One column; those with a `priority` above 0 appear with `-o wide`."""

    name: str
    cell: Cell
    priority: int = 0
    kind: str = "string"


def age(then: str | None, now: datetime) -> str:
    """As kubectl writes it: 5s, 3m12s, 2h, 4d."""
    if not then:
        return "<unknown>"
    seconds = max(0, int((now - times.read(then)).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def _name(thing: Json, now: datetime) -> Any:
    return thing["metadata"]["name"]


def _age(thing: Json, now: datetime) -> Any:
    return age(thing["metadata"].get("creationTimestamp"), now)


def _path(*steps: str, default: Any = "<none>") -> Cell:
    def cell(thing: Json, now: datetime) -> Any:
        value: Any = thing
        for step in steps:
            value = value.get(step) if isinstance(value, Mapping) else None
        return default if value is None else value

    return cell


def _count(field: str) -> Cell:
    return lambda thing, now: len(thing.get(field) or {})


def pod_status(pod: Json) -> str:
    """The STATUS column: the most telling of phase and reasons."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    said = status.get("reason") or status.get("phase", "Unknown")
    sidecars = {entry["name"] for entry in pod["spec"].get("initContainers") or [] if _is_sidecar(entry)}
    for entry in status.get("initContainerStatuses") or []:
        reason = _reason(entry)
        if entry.get("state", {}).get("terminated", {}).get("exitCode") == 0 or entry["name"] in sidecars:
            continue
        if reason and reason != "PodInitializing":
            return f"Init:{reason}"
    for entry in reversed(status.get("containerStatuses") or []):
        said = _reason(entry) or said
    if said == "Completed" and any(entry.get("ready") for entry in status.get("containerStatuses") or []):
        return "NotReady"
    return str(said)


def _reason(entry: Json) -> str:
    state = entry.get("state", {})
    return str((state.get("waiting") or state.get("terminated") or {}).get("reason", ""))


def _pod_ready(pod: Json, now: datetime) -> Any:
    sidecars = {entry["name"] for entry in pod["spec"].get("initContainers") or [] if _is_sidecar(entry)}
    status = pod.get("status", {})
    entries = [entry for entry in status.get("initContainerStatuses") or [] if entry["name"] in sidecars]
    entries += status.get("containerStatuses") or []
    total = len(sidecars) + len(pod["spec"].get("containers") or [])
    return f"{sum(bool(entry.get('ready')) for entry in entries)}/{total}"


def _is_sidecar(container: Json) -> bool:
    return container.get("restartPolicy") == "Always"


def _restarts(pod: Json, now: datetime) -> Any:
    status = pod.get("status", {})
    entries = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
    return str(sum(entry.get("restartCount", 0) for entry in entries))


def _node_status(node: Json, now: datetime) -> Any:
    ready = [entry for entry in node.get("status", {}).get("conditions", []) if entry["type"] == "Ready"]
    return "Ready" if ready and ready[0]["status"] == "True" else "NotReady"


_NAME = Column("Name", _name)
_AGE = Column("Age", _age)
_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "pods": (
        _NAME,
        Column("Ready", _pod_ready),
        Column("Status", lambda pod, now: pod_status(pod)),
        Column("Restarts", _restarts),
        _AGE,
        Column("IP", _path("status", "podIP"), priority=1),
        Column("Node", _path("spec", "nodeName"), priority=1),
        Column("Nominated Node", _path("status", "nominatedNodeName"), priority=1),
        Column("Readiness Gates", _path("spec", "readinessGates"), priority=1),
    ),
    "namespaces": (_NAME, Column("Status", _path("status", "phase")), _AGE),
    "configmaps": (_NAME, Column("Data", _count("data"), kind="integer"), _AGE),
    "secrets": (_NAME, Column("Type", _path("type")), Column("Data", _count("data"), kind="integer"), _AGE),
    "events": (
        Column("Last Seen", lambda event, now: age(event.get("lastTimestamp"), now)),
        Column("Type", _path("type")),
        Column("Reason", _path("reason")),
        Column(
            "Object",
            lambda event, now: (
                f"{event['involvedObject'].get('kind', '').lower()}/{event['involvedObject'].get('name', '')}"
            ),
        ),
        Column("Message", _path("message")),
        Column("Name", _name, priority=1),
    ),
    "nodes": (
        _NAME,
        Column("Status", _node_status),
        Column("Roles", lambda node, now: "<none>"),
        _AGE,
        Column("Version", _path("status", "nodeInfo", "kubeletVersion")),
        Column("OS-Image", _path("status", "nodeInfo", "osImage"), priority=1),
    ),
}


def table(
    plural: str,
    things: Iterable[Json],
    *,
    now: datetime,
    metadata: Json,
    include: str = "Metadata",
    header: bool = True,
) -> Json:
    """A `Table` of `things`; `include` says how much of each object goes with its row."""
    columns = _COLUMNS.get(plural, (_NAME, _AGE))
    definitions = [
        {"name": column.name, "type": column.kind, "format": "name" if column.name == "Name" else ""}
        | {"description": column.name, "priority": column.priority}
        for column in columns
    ]
    rows = [_row(columns, thing, now=now, include=include) for thing in things]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions if header else [],
        "rows": rows,
    }


def _row(columns: tuple[Column, ...], thing: Json, *, now: datetime, include: str) -> Json:
    row: Json = {"cells": [column.cell(thing, now) for column in columns]}
    if include == "Object":
        row["object"] = thing
    elif include != "None":
        head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        row["object"] = head | {"metadata": thing["metadata"]}
    return row
