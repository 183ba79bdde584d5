"""KubernetesPodOperator: a task that is a pod of any image.

No worker waits for it: the scheduler sends its arguments to the Kubernetes side as they are. This module only says
which parameters there are and what an author may write; `_PARAMETERS` is the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from routing.authoring import xcom
from routing.authoring.dag import DAG
from routing.authoring.operator import Operator
from routing.authoring.spec import XCOM
from routing.errors import InvalidDag, RoutingError

Reader = Callable[[str, Any], Any]
"""(where, value) -> the value as plain JSON; raises InvalidDag that begins with `where`."""


class KubernetesPodOperator(Operator):
    """Runs a pod of `image`; it succeeds if the pod's container does.

    `cmds` is the container's command, `arguments` its args, `env_vars` a mapping (or a list of `{"name", "value"}`);
    `name`, `namespace` and `labels` are the pod's. Results of other tasks may stand in `cmds`, `arguments` and the
    values of `env_vars` and `labels`. Without `queue` it goes to the queue `kubernetes`.
    """

    kind = "pod"

    def __init__(self, *, task_id: str, dag: DAG | None = None, **given: Any) -> None:
        pod = {name: given.pop(name) for name in _PARAMETERS if given.get(name) is not None}
        given = {name: value for name, value in given.items() if name not in _PARAMETERS}
        super().__init__(task_id, dag=dag, arguments=pod, given=given)
        if "image" not in pod:
            raise InvalidDag(f"{self.where}: image is missing: a KubernetesPodOperator needs the image to run")
        if given.get("executor_config") is not None:
            raise InvalidDag(
                f"{self.where}: executor_config is for tasks that run in a pod of ours; this pod is all yours"
            )
        self._pod = {name: _PARAMETERS[name](f"{self.where}: {name}", value) for name, value in pod.items()}

    def pod_arguments(self) -> dict[str, Any]:
        """The parameters that were given, as plain JSON values."""
        return self._pod

    def execute(self, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:  # noqa: ARG002 - see Operator
        """Never: the pod is the body."""
        raise RoutingError(f"{self.where} is a pod of its own and has no body to run in Python")


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidDag(f"{where} must be text that is not empty, not {value!r}")
    return value


def _text_or_result(where: str, value: Any) -> Any:
    if isinstance(value, xcom.XComArg):
        return {XCOM: value.operator.task_id}
    if not isinstance(value, str):
        raise InvalidDag(f"{where} must be text, not {value!r}; write it in quotation marks")
    return value


def _texts(where: str, value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise InvalidDag(f"{where} must be a list of text, not {value!r}")
    return [_text_or_result(f"{where}[{index}]", part) for index, part in enumerate(value)]


def _text_mapping(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidDag(f"{where} must be a mapping of text to text, not {value!r}")
    return {_text(f"{where}, a key", key): _text_or_result(f"{where}[{key!r}]", part) for key, part in value.items()}


def _env_vars(where: str, value: Any) -> Any:
    """A mapping, or the list that the Kubernetes API knows, of mappings or `V1EnvVar`."""
    if isinstance(value, Mapping):
        return _text_mapping(where, value)
    if not isinstance(value, list | tuple):
        raise InvalidDag(f"{where} must be a mapping, or a list of mappings with name and value, not {value!r}")
    return [_env_var(f"{where}[{index}]", entry) for index, entry in enumerate(value)]


def _env_var(where: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, Mapping) and isinstance(entry.get("value"), xcom.XComArg):
        result = {"value": _text_or_result(where, entry["value"])}
        return {**_env_var(where, {**entry, "value": ""}), **result}
    # Its table of fields is needed only where an entry is written this way.
    from dispatcher import podfields  # noqa: PLC0415

    try:
        pod = podfields.plain_pod({"spec": {"containers": [{"env": [entry]}]}}, keep_nulls=False)
    except podfields.WrongField as wrong:
        below = podfields.dotted(wrong.path[5:])
        raise InvalidDag(f"{where}{below and '.' + below}: {wrong.problem}") from None
    read: dict[str, Any] = pod["spec"]["containers"][0]["env"][0]
    if not read.get("name"):
        raise InvalidDag(f"{where} must be a mapping with name and value, not {entry!r}")
    return read


_PARAMETERS: Mapping[str, Reader] = {
    "arguments": _texts,
    "cmds": _texts,
    "env_vars": _env_vars,
    "image": _text,
    "labels": _text_mapping,
    "name": _text,
    "namespace": _text,
}
KubernetesPodOperator.parameters = tuple(_PARAMETERS)
