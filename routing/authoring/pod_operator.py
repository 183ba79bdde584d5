"""KubernetesPodOperator: a container task, whose pod may have any image.

No worker waits for it: the scheduler sends its arguments to the Kubernetes side as they are. Which parameters there are
stands in `pod_parameters`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from routing.authoring import pod_parameters, spec, xcom
from routing.authoring.dag import DAG
from routing.authoring.operator import Operator
from routing.errors import InvalidDag, RoutingError

_BASES = ("full_pod_spec", "pod_template_dict", "pod_template_file")
"""Each may bring the image along."""
_OF_THE_RESULT = frozenset({"xcom_path", "xcom_sidecar_container_security_context"})


class KubernetesPodOperator(Operator):
    """Runs a pod of `image`; it succeeds if the pod's base container does.

    Takes Airflow's parameters under Airflow's names. `cmds` is the container's command, `arguments` its args. What is
    Kubernetes' own is written as mappings with the API's spelling, as objects of the Kubernetes client, or as
    `dispatcher.Secret`, `Volume` and `VolumeMount`. Texts of templated parameters may be Jinja templates or results of
    other tasks. Without `queue` it goes to the queue `kubernetes`. With `do_xcom_push=True` its result is what the pod
    writes to `/airflow/xcom/return.json`.
    """

    kind = "pod"
    refused: ClassVar = {
        "executor_config": "is for tasks that run in a pod of ours; this pod is all yours: use full_pod_spec or "
        "pod_template_file"
    }
    parameters = (
        *pod_parameters.TABLE,
        *pod_parameters.WITHOUT_EFFECT,
        *pod_parameters.DEPRECATED,
        *pod_parameters.FUNCTIONS,
    )

    def __init__(self, *, task_id: str, dag: DAG | None = None, **given: Any) -> None:
        pod = {name: value for name, value in given.items() if name in self.parameters and value is not None}
        pod = {name: pod_parameters.plain(value) for name, value in pod.items()}
        rest = {name: value for name, value in given.items() if name not in self.parameters}
        super().__init__(task_id, dag=dag, arguments=pod, given=rest)
        self._pod = self._read(pod)

    @property
    def output(self) -> xcom.XComArg:
        """Its result, to be passed to other tasks."""
        # Refused where it is used: there would be a task after it that always gets None.
        if not self._pod.get("do_xcom_push"):
            raise InvalidDag(f"{self.where} has no result; say do_xcom_push=True and write it in the pod")
        return super().output

    def pod_arguments(self) -> dict[str, Any]:
        """The parameters that were given, as plain JSON values. Raises InvalidDag where the dispatcher would refuse."""
        problem = pod_parameters.problem(self._pod)
        if problem:
            raise InvalidDag(f"{self.where}: {problem}", line=self.line)
        return self._pod

    def templates(self) -> Iterator[spec.Template]:
        """The texts with template marks in the templated parameters."""
        for name, value in self._pod.items():
            yield from spec.templates(value, name)

    def execute(self, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:  # see Operator
        """Never: the pod is the body."""
        raise RoutingError(f"{self.where} is a pod of its own and has no body to run in Python")

    def _read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        pod_parameters.refuse_functions(self.where, given)
        given, renamed = pod_parameters.renamed(self.where, given)
        for sentence in renamed:
            self.dag.warn(sentence, DeprecationWarning)
        for sentence in pod_parameters.without_effect(self.where, given):
            self.dag.warn(sentence)
        if not given.get("do_xcom_push"):
            for name in _OF_THE_RESULT & given.keys():
                self.dag.warn(f"{self.where}: {name} has no effect without do_xcom_push=True")
        if not any(name in given for name in ("image", *_BASES)):
            raise InvalidDag(f"{self.where}: image is missing: a KubernetesPodOperator needs the image to run")
        pod = {
            name: pod_parameters.read(self.where, name, value)
            for name, value in given.items()
            if name in pod_parameters.TABLE
        }
        if isinstance(pod.get("pod_template_file"), str):
            pod["pod_template_file"] = self.beside(pod["pod_template_file"])
        return pod
