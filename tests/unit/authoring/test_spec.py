"""Specs: plain values of DAGs."""

from collections.abc import Sequence

from routing import DAG, BashOperator, KubernetesPodOperator
from routing.authoring import spec


def no_templates(templates: Sequence[spec.Template]) -> list[str]:
    """A renderer that nobody may ask."""
    raise AssertionError(templates)


def test_results_stand_in_a_pods_arguments_as_text() -> None:
    """Text as it is, anything else as JSON, a missing result as null; what is no result stays untouched."""
    with DAG("d") as dag:
        a, b, c = (BashOperator(task_id=name, bash_command="true").output for name in "abc")
        KubernetesPodOperator(
            task_id="pod",
            image="i",
            cmds=["run", a],
            arguments=[b],
            env_vars=[{"name": "C", "value": c}, {"name": "D", "value": "{}"}],
            labels={"a": a},
        )
    pod = next(one for one in dag.spec("f.py").tasks if one.task_id == "pod")
    assert spec.pod_arguments(pod, {"a": "text", "b": {"n": [1, "ü"]}}, no_templates) == {
        "image": "i",
        "cmds": ["run", "text"],
        "arguments": ['{"n": [1, "ü"]}'],
        "env_vars": [{"name": "C", "value": "null"}, {"name": "D", "value": "{}"}],
        "labels": {"a": "text"},
    }
