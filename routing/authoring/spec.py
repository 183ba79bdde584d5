"""What a DAG is once its file has been loaded: plain values that cross processes and go into the record.

Authors' objects (callables, open files) stay in the process that loaded the file; the scheduler sees only these. Pure.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

XCOM = "podyard.xcom"
"""The only key of a mapping that stands for an upstream's result inside the arguments of a pod operator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """One task of a DAG."""

    task_id: str
    operator: str
    """`python`, `bash`, `empty` or `pod`."""
    upstream: tuple[str, ...] = ()
    """Ids of all tasks directly before it, in the author's order."""
    inputs: tuple[str, ...] = ()
    """Those of `upstream` whose result is an argument."""
    queue: str | None = None
    retries: int = 0
    retry_delay_s: float = 300.0
    trigger_rule: str = "all_success"
    pod_override: dict[str, Any] | None = None
    pod_template_file: str | None = None
    pod: dict[str, Any] | None = None
    """The arguments of a pod operator; `pod_arguments` puts results of upstreams in."""
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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives an equal value back."""
        return {
            "dag_id": self.dag_id,
            "file": self.file,
            "description": self.description,
            "tasks": [task.to_json() for task in self.tasks],
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The DAG that `to_json` described. Raises TypeError for a field that does not exist."""
        return cls(**{**fields, "tasks": tuple(TaskSpec.from_json(task) for task in fields["tasks"])})


def pod_arguments(task: TaskSpec, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a pod operator for one run: results of upstreams stand where the author put them.

    `inputs` maps upstream task ids to their results; a missing one counts as None. Only text is possible in the places
    where results may stand, so any other value is written there as JSON.
    """
    return {name: _filled(value, inputs) for name, value in (task.pod or {}).items()}


def _filled(value: Any, inputs: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {XCOM}:
            return text(inputs.get(value[XCOM]))
        return {key: _filled(part, inputs) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, inputs) for part in value]
    return value


def text(result: Any) -> str:
    """A result where only text is possible: itself if it is text, else as JSON."""
    if isinstance(result, str):
        return result
    from json import dumps  # noqa: PLC0415 - few tasks need it, every pod would pay for it

    return dumps(result, ensure_ascii=False)
