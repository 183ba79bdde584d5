"""The Celery message of a DAG task: its name, arguments and headers. Pure.

Both halves run the same message; the dispatcher reads only the header `podyard` (the pod's name, labels, overrides).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from routing.authoring import spec

TASK = "routing.run"
POD_TASK = "dispatcher.pod"
POD_QUEUE = "kubernetes"
"""Where a pod operator goes whose own queue is on no Kubernetes side."""


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """The run, and the attempt, that a message is for."""

    dag_file: str
    dag_id: str
    run_id: str
    logical_date: datetime
    conf: Mapping[str, Any]
    try_number: int
    inputs: Mapping[str, Any]
    """Upstream task id -> its result."""


def build(task: spec.TaskSpec, occasion: Occasion) -> dict[str, Any]:
    """Name, kwargs and headers as plain JSON."""
    if task.operator == "pod":
        name, kwargs = POD_TASK, spec.pod_arguments(task, occasion.inputs)
    else:
        name, kwargs = TASK, _run_arguments(task, occasion)
    return {"name": name, "kwargs": kwargs, "headers": {"podyard": _header(task, occasion)}}


def describe(message: Mapping[str, Any]) -> str:
    """The arguments in a few words, for Flower: no values of the author's."""
    labels = message["headers"]["podyard"]["labels"]
    return f"{labels['dag_id']}.{labels['task_id']} run={labels['run_id']} try={labels['try_number']}"


def _run_arguments(task: spec.TaskSpec, occasion: Occasion) -> dict[str, Any]:
    return {
        "dag_file": occasion.dag_file,
        "dag_id": occasion.dag_id,
        "run_id": occasion.run_id,
        "task_id": task.task_id,
        "map_index": -1,
        "try_number": occasion.try_number,
        "logical_date": occasion.logical_date.isoformat(),
        "conf": dict(occasion.conf),
        "inputs": dict(occasion.inputs),
    }


def _header(task: spec.TaskSpec, occasion: Occasion) -> dict[str, Any]:
    header: dict[str, Any] = {
        "name": [occasion.dag_id, task.task_id],
        "labels": {
            "dag_id": occasion.dag_id,
            "task_id": task.task_id,
            "run_id": occasion.run_id,
            "try_number": str(occasion.try_number),
        },
    }
    if task.pod_override is not None:
        header["pod_override"] = task.pod_override
    if task.pod_template_file is not None:
        header["pod_template_file"] = task.pod_template_file
    return header
