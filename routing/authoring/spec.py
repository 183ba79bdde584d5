"""What a DAG is once its file has been loaded: plain values that cross processes and go into the record.

Authors' objects (callables, open files) stay in the process that loaded the file; the scheduler sees only these. Pure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from routing.errors import TaskFailed

XCOM = "podyard.xcom"
"""The only key of a mapping that stands for an upstream's result inside the arguments of a pod operator."""
WHOLE = "podyard.xcom_whole"
"""The only key of a mapping that stands for a result which is the value of a parameter that is no text; its value is
the task's id and one of `SHAPES`."""
SHAPES = {
    "texts": "a list",
    "mapping": "a mapping",
    "environment": "a mapping or a list",
    "parts": "a list or a mapping",
}
"""What such a result must be; all but `parts` hold texts, so any other value in them is written as JSON."""
TEMPLATE = "podyard.template"
"""The only key of a mapping that stands for a text with template marks there."""


class Template(NamedTuple):
    """A text with template marks, and where it stands (`op_kwargs['day']`)."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """One task of a DAG."""

    task_id: str
    operator: str
    """`python`, `bash`, `empty` or `pod`."""
    upstream: tuple[str, ...] = ()
    """Ids of all tasks directly before it, in the author's order."""
    inputs: tuple[str, ...] = ()
    """Tasks whose results it needs: as arguments (they stand in `upstream`), or by `ti.xcom_pull` in a template."""
    queue: str | None = None
    retries: int = 0
    retry_delay_s: float = 300.0
    trigger_rule: str = "all_success"
    pod_override: dict[str, Any] | None = None
    pod_template_file: str | None = None
    pod: dict[str, Any] | None = None
    """The arguments of a pod operator; `pod_arguments` puts results of upstreams in, and renders templates."""
    execution_timeout_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives an equal value back."""
        return {**asdict(self), "upstream": list(self.upstream), "inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The task that `to_json` described. Raises TypeError for a field that does not exist."""
        return cls(**{**fields, "upstream": tuple(fields["upstream"]), "inputs": tuple(fields["inputs"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class DagSpec:
    """One DAG; its graph has no cycle and its ids are checked."""

    dag_id: str
    file: str
    """Path relative to the DAG folder, with forward slashes."""
    description: str | None = None
    tasks: tuple[TaskSpec, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    """Defaults of a run's `conf`."""
    warnings: tuple[str, ...] = ()
    """What was accepted, but should be written otherwise."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives an equal value back."""
        return {
            "dag_id": self.dag_id,
            "file": self.file,
            "description": self.description,
            "tasks": [task.to_json() for task in self.tasks],
            "params": self.params,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The DAG that `to_json` described. Raises TypeError for a field that does not exist."""
        tasks = tuple(TaskSpec.from_json(task) for task in fields["tasks"])
        return cls(**{**fields, "tasks": tasks, "warnings": tuple(fields.get("warnings", ()))})


Renderer = Callable[[Sequence[Template]], Sequence[str]]
"""The texts of templates, in their order; raises TaskFailed with the path of the one that cannot be rendered."""


def pod_arguments(task: TaskSpec, inputs: Mapping[str, Any], render: Renderer) -> dict[str, Any]:
    """The arguments of a pod operator for one run: results of upstreams and texts of templates in their places.

    `inputs` maps task ids to their results; a missing one counts as None. Only text is possible in the places where
    results may stand, so any other value is written there as JSON. `render` is not asked where nothing is a template.
    """
    pod = task.pod or {}
    found = [template for name, value in pod.items() for template in templates(value, name)]
    texts = dict(zip(found, render(found), strict=True)) if found else {}
    filled = {name: _filled(value, name, inputs, texts) for name, value in pod.items()}
    return {name: value for name, value in filled.items() if value is not None}


def templates(value: Any, path: str) -> Iterator[Template]:
    """The templates in the arguments of a pod operator."""
    if isinstance(value, Mapping):
        if value.keys() == {TEMPLATE}:
            yield Template(path, value[TEMPLATE])
            return
        for key, part in value.items():
            yield from templates(part, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from templates(part, f"{path}[{index}]")


def _filled(value: Any, path: str, inputs: Mapping[str, Any], texts: Mapping[Template, str]) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {XCOM}:
            return text(inputs.get(value[XCOM]))
        if value.keys() == {WHOLE}:
            task_id, shape = value[WHOLE]
            return _whole(inputs.get(task_id), shape, where=f"{path}, the result of task {task_id!r},")
        if value.keys() == {TEMPLATE}:
            return texts[Template(path, value[TEMPLATE])]
        return {key: _filled(part, f"{path}[{key!r}]", inputs, texts) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, f"{path}[{index}]", inputs, texts) for index, part in enumerate(value)]
    return value


def _whole(result: Any, shape: str, *, where: str) -> Any:
    """A result as the value of a parameter; a missing one leaves the parameter out."""
    if result is None or isinstance(result, Unknown):
        return None
    is_list, is_mapping = isinstance(result, list), isinstance(result, Mapping)
    if not {"texts": is_list, "mapping": is_mapping}.get(shape, is_list or is_mapping):
        raise TaskFailed(
            f"{where} must be {SHAPES[shape]}, and is {text(result)[:60]}",
            {"reason": "InvalidPod", "cause": "application"},
        )
    if shape == "parts":
        return result
    if is_mapping:
        return {key: text(part) for key, part in result.items()}
    if shape == "texts":
        return [text(part) for part in result]
    return [_entry(part) for part in result]


def _entry(part: Any) -> Any:
    return {**part, "value": text(part["value"])} if isinstance(part, Mapping) and "value" in part else part


class Unknown(str):
    """Stands for a result in a pod that is only shown: nobody knows the result yet."""

    __slots__ = ()


def text(result: Any) -> str:
    """A result where only text is possible: itself if it is text, else as JSON."""
    if isinstance(result, str):
        return result
    from json import dumps

    return dumps(result, ensure_ascii=False)
