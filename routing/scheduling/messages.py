"""The Celery message of a DAG task: its name, arguments and headers. Pure.

Both halves run the same message; the dispatcher reads only the header `podyard` (the pod's name, labels, overrides).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dispatcher.manifests import retry_hints
from routing.authoring import rendering, spec

TASK = "routing.run"
POD_TASK = "dispatcher.pod"
POD_QUEUE = "kubernetes"
"""Where a pod operator goes whose own queue is on no Kubernetes side."""
HARD_LIMIT_AFTER_S = 30.0
"""How much longer than its `execution_timeout` a body may live that does not end when it is interrupted there; the DAG
file is loaded within it, too. A container task has no body to interrupt: the time-out itself ends it."""


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
    """Task id -> its result."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """The DAG's defaults of `conf`, for templates."""
    attempt_id: str | None = None
    """For templates, where it is known."""
    hints: retry_hints.RetryHints = retry_hints.NONE
    """What earlier attempts teach this one's pod."""


Render = Callable[[Sequence[spec.Template], Mapping[str, Any]], Sequence[str]]
"""(templates, the arguments of `routing.run` for this task with `params` beside) -> their texts; raises TaskFailed."""


def build(task: spec.TaskSpec, occasion: Occasion, *, render: Render = rendering.render) -> dict[str, Any]:
    """The message as plain JSON: name, kwargs, headers, `shadow` (`dag.task`, the name that people read), `time_limit`
    (seconds or None). Raises TaskFailed where a template of a pod cannot be rendered.

    The scheduler gives a `render` that runs in another process: what authors wrote does not run in its own.
    """
    # A body renders its own templates where it runs; a pod of any image has no code of ours to do it.
    if task.operator != "pod":
        return _message(task, occasion, name=TASK, kwargs=_run_arguments(task, occasion))

    def here(templates: Sequence[spec.Template]) -> Sequence[str]:
        return render(
            templates,
            {**_run_arguments(task, occasion), "params": dict(occasion.params), "attempt_id": occasion.attempt_id},
        )

    return _message(task, occasion, name=POD_TASK, kwargs=spec.pod_arguments(task, occasion.inputs, here))


def unsendable(task: spec.TaskSpec, occasion: Occasion) -> dict[str, Any]:
    """For the record of an attempt that failed before its message could be made."""
    return _message(task, occasion, name=POD_TASK, kwargs={})


def describe(message: Mapping[str, Any]) -> str:
    """The arguments in a few words, for Flower: no values of the author's."""
    labels = message["headers"]["podyard"]["labels"]
    return f"{labels['dag_id']}.{labels['task_id']} run={labels['run_id']} try={labels['try_number']}"


def _message(task: spec.TaskSpec, occasion: Occasion, *, name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "kwargs": kwargs,
        "headers": {"podyard": _header(task, occasion)},
        "shadow": f"{occasion.dag_id}.{task.task_id}",
        "time_limit": _time_limit_s(task),
    }


def _time_limit_s(task: spec.TaskSpec) -> float | None:
    """After how long Celery or the dispatcher ends it, counted from its start."""
    if task.execution_timeout_s is None:
        return None
    return task.execution_timeout_s + (0.0 if task.operator == "pod" else HARD_LIMIT_AFTER_S)


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
            # Labels are text in Kubernetes.
            "try_number": str(occasion.try_number),
        },
    }
    if task.pod_override is not None:
        header["pod_override"] = task.pod_override
    if task.pod_template_file is not None:
        header["pod_template_file"] = task.pod_template_file
    # Left out of a first attempt: `podyard dags render` shows what author and queue wrote (ADR 7).
    if occasion.hints:
        header[retry_hints.KEY] = occasion.hints.to_json()
    return header
