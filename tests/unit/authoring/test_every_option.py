"""Every option that an operator accepts reaches something, is told to be without effect, or is refused."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from routing import DAG, BashOperator, EmptyOperator, InvalidDag, KubernetesPodOperator, PythonOperator
from routing.authoring import context, options
from routing.authoring.operator import Operator
from routing.scheduling import messages

KINDS: Mapping[type[Operator], Mapping[str, Any]] = {
    BashOperator: {"bash_command": "echo hello"},
    EmptyOperator: {},
    KubernetesPodOperator: {"image": "i"},
    PythonOperator: {"python_callable": lambda *a, **k: (a, k)},
}
"""The operators, with what each needs."""
VALUES: Mapping[str, Any] = {
    "execution_timeout": 3,
    "executor_config": {"pod_override": {"spec": {"priorityClassName": "high"}}},
    "queue": "kubernetes",
    "retries": 2,
    "retry_delay": 7,
    "trigger_rule": "all_done",
}
OWN_VALUES: Mapping[str, Any] = {
    "append_env": False,
    "bash_command": "echo other",
    "cwd": "/",
    "env": {"GREETING": "hi"},
    "op_args": [1],
    "op_kwargs": {"x": 1},
    "python_callable": lambda *a, **k: "other",
}


def test_the_walk_knows_every_operator_and_every_option() -> None:
    """A new one fails here, until it has a value to be tried with."""
    assert set(KINDS) == {kind for kind in Operator.__subclasses__() if kind.__module__.startswith("routing.")}
    assert set(VALUES) == set(options.NAMES)
    own = {name for kind in KINDS if kind is not KubernetesPodOperator for name in kind.parameters}
    assert set(OWN_VALUES) == own


def traces(kind: type[Operator], **given: Any) -> tuple[Any, ...]:
    """All that leaves a task: what the scheduler plans by, what is sent, and how its body ends."""
    with DAG("d") as dag:
        task = kind(task_id="t", **{**KINDS[kind], **given})  # type: ignore[call-arg]
    if dag.warnings:
        return ("warned", *dag.warnings)
    spec = task.spec()
    occasion = messages.Occasion(
        dag_file="f.py", dag_id="d", run_id="r", logical_date=datetime(2026, 1, 1, tzinfo=UTC), conf={}, try_number=1,
        inputs={},
    )  # fmt: skip
    message = messages.build(spec, occasion)
    plan = (spec.queue, spec.retries, spec.retry_delay_s, spec.trigger_rule, spec.upstream)
    if isinstance(task, KubernetesPodOperator):
        return (plan, message)
    about = {"dag_id": "d", "task_id": "t", "run_id": "r", "logical_date": "2026-01-01T00:00:00+00:00"}
    return (plan, message, task.execute(context.build(about, params={}, attempt_id="a"), {}))


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_common_option_reaches_something_or_is_told_or_refused(kind: type[Operator], name: str) -> None:
    """`execution_timeout` of a pod operator once reached nothing."""
    try:
        found = traces(kind, **{name: VALUES[name]})
    except InvalidDag as error:
        assert f": {name} " in str(error)  # refused is one of three right ends
        return
    assert found != traces(kind)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in KINDS if kind is not KubernetesPodOperator for name in kind.parameters],
)
def test_every_own_parameter_reaches_the_body(
    kind: type[Operator], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in how the body ends, with a command or callable that shows all that it was given."""
    monkeypatch.setenv("GREETING", "hello")
    base: dict[str, Any] = {"bash_command": 'echo "$GREETING $PWD" | sed "s:/.*podyard-.*:/empty:"'}
    given = {**(base if kind is BashOperator else {}), name: OWN_VALUES[name]}
    assert traces(kind, **given) != traces(kind, **(base if kind is BashOperator else {}))


def test_a_default_option_that_a_kind_refuses_is_meant_for_others() -> None:
    """`executor_config` among `default_args` reaches the tasks that can have one, and no pod operator's pod."""
    with DAG("d", default_args={"executor_config": VALUES["executor_config"]}) as dag:
        KubernetesPodOperator(task_id="pod", image="i")
        BashOperator(task_id="bash", bash_command="true")
    assert [task.pod_override is None for task in dag.spec("f.py").tasks] == [True, False]
    assert dag.warnings == []
