"""Templates: which texts are, what they become, whose results they ask for, and what is said of mistakes."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from routing import DAG, BashOperator, InvalidDag, KubernetesPodOperator, PythonOperator, TaskFailed
from routing.authoring import rendering, spec
from routing.scheduling import messages, renderer
from tests.unit.worker.test_run import message

MESSAGE = {**message("t", inputs={"up": {"n": [1, 2]}, "text": "{{ ds }}"}), "params": {"size": 3, "c": "default"}}


def rendered(text: str) -> str:
    """One text, for the run of MESSAGE."""
    [found] = rendering.render([spec.Template("field", text)], MESSAGE)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ ds }} {{ ds_nodash }}", "2026-03-04 20260304"),
        ("{{ ts }} {{ ts_nodash }}", "2026-03-04T05:06:07+00:00 20260304T050607"),
        ("{{ logical_date.year }}", "2026"),
        ("{{ run_id }} {{ dag.dag_id }} {{ task.task_id }}", "manual-1 d t"),
        ("{{ ti.dag_id }}.{{ ti.task_id }} {{ task_instance.try_number }}", "d.t 2"),
        ("{{ params.size }} {{ params.c }}", "3 1"),
        ("{{ conf.c }} {{ dag_run.conf['c'] }} {{ dag_run.run_id }}", "1 1 manual-1"),
        ("{{ (logical_date + macros.timedelta(days=1)) | ds }}", "2026-03-05"),
        ("{{ macros.ds_add(ds, -4) }} {{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.') }}", "2026-02-28 04.03."),
        ("{{ macros.datetime(2026, 1, 2) | ds_nodash }}", "20260102"),
        ("{{ ti.xcom_pull('up').n[1] }} {{ ti.xcom_pull(task_ids=['up', 'text'])[1] }}", "2 {{ ds }}"),
        ("{{ ti.xcom_pull('up') | tojson }}", '{"n": [1, 2]}'),
        ("{% if try_number > 1 %}again{% endif %}{# said #}\n", "again\n"),
        ("echo ${#list} {{ ds }}", "echo ${#list} 2026-03-04"),
    ],
)
def test_a_template_sees_airflows_variables(text: str, expected: str) -> None:
    """Text comes out, results are data and never rendered again, and the last line's end stays."""
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("{{ x }}", True), ("{% x %}", True), ("{# x #}", True), ("${#x}", False), ("{ x }", False), ("", False)],
)
def test_only_marks_make_a_template(text: str, is_one: bool) -> None:
    """`${#x}` is a word of a shell."""
    assert rendering.is_template(text) is is_one


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ params.missing }}", "has no attribute 'missing'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ ti.xcom_pull('nobody') }}", "the result of 'nobody' is not at hand (at hand: 'up', 'text')"),
        ("{{ ti.xcom_pull('up', key='other') }}", "call it with task_ids alone"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ params.update(size=4) }}", "'update'"),
        ("{% for a in range(10**6) %}{% endfor %}", "Range too big"),
    ],
)
def test_what_cannot_be_rendered_is_the_tasks_failure(text: str, why: str) -> None:
    """Undefined, wrong or forbidden: the path, the reason, and whose fault it is."""
    with pytest.raises(TaskFailed) as failed:
        rendered(text)
    assert str(failed.value).startswith("field: the template cannot be rendered: ")
    assert why in str(failed.value)
    assert failed.value.details == {"reason": "TemplateError", "cause": "application"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ ds", "op_args[0]: not a Jinja template: unexpected end of template"),
        ("{{ dss }}", "op_args[0]: {{ dss }} is not known; did you mean 'ds'?"),
        ("{{ execution_date }}", "{{ execution_date }} is not known; its name is logical_date"),
        ("{{ var.value.x }}", "there are no variables of Airflow's kind; use params"),
        (
            "{{ ti.xcom_pull('later') }}",
            "pulls the result of task 'later', which is not before this task; write an arrow",
        ),
        ("{{ ti.xcom_pull('no') }}", "pulls the result of task 'no', which does not exist"),
    ],
)
def test_a_template_that_could_never_work_is_refused_when_the_file_is_loaded(text: str, said: str) -> None:
    """With DAG, task, the place of the text and the line of the file."""
    with DAG("d") as dag:
        PythonOperator(task_id="t", python_callable=print, op_args=[text])
        BashOperator(task_id="later", bash_command="true")
    with pytest.raises(InvalidDag) as told:
        dag.spec("f.py")
    assert str(told.value).startswith("DAG 'd', task 't': ")
    assert said in str(told.value)
    assert told.value.line is not None


def test_results_that_templates_pull_travel_with_the_message() -> None:
    """Ids written in the template, near or far; where an id is computed, all results directly before."""
    with DAG("d") as dag:
        far, near, other = (BashOperator(task_id=name, bash_command="true") for name in ("far", "near", "other"))
        named = BashOperator(task_id="named", bash_command="{{ ti.xcom_pull(task_ids='far') }}")
        computed = BashOperator(task_id="computed", bash_command="{{ ti.xcom_pull(params.which) }}")
        far >> near >> [named, computed]
        other >> computed
    inputs = {one.task_id: one.inputs for one in dag.spec("f.py").tasks}
    assert inputs == {"far": (), "near": (), "other": (), "named": ("far",), "computed": ("near", "other")}


def occasion(**fields: Any) -> messages.Occasion:
    """The run of MESSAGE."""
    from datetime import datetime

    return messages.Occasion(
        **{
            "dag_file": "f.py",
            "dag_id": "d",
            "run_id": "r",
            "logical_date": datetime.fromisoformat("2026-03-04T00:00:00+00:00"),
            "conf": {},
            "try_number": 1,
            "inputs": {},
            "params": {"image": "busybox"},
            **fields,
        }
    )


@pytest.mark.parametrize("text", ["{{ 'x' * 10**7 }}", "{% set far = 'x' * 10**7 %}", "{{ 'x' | center(10**7) }}"])
def test_a_template_is_not_computed_where_it_is_read(text: str) -> None:
    """It may ask for all memory there is: only the process that renders, which is bounded, may find out."""
    rendering.check("dag.task", spec.Template("warm", "{{ ds }}"))
    tracemalloc.start()
    try:
        rendering.check("dag.task", spec.Template("arguments[0]", text))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.fixture
def child() -> Iterator[renderer.Renderer]:
    """A renderer with a short patience."""
    made = renderer.Renderer(timeout_s=1.0)
    yield made
    made.close()


def pod_message(render: messages.Render, **arguments: Any) -> dict[str, Any]:
    """The arguments of the message for a pod operator with these parameters."""
    with DAG("d") as dag:
        up = BashOperator(task_id="up", bash_command="true")
        KubernetesPodOperator(task_id="pod", **{"image": "i", **arguments}) << up
    [_, task] = dag.spec("f.py").tasks
    kwargs = messages.build(task, occasion(inputs={"up": "{{ 1 + 1 }}"}), render=render)["kwargs"]
    return dict(kwargs)


def test_a_pods_templates_are_rendered_in_another_process(child: renderer.Renderer) -> None:
    """All templated parameters of one task in one go; texts stay texts, and what a task returned is not executed."""
    got = pod_message(
        child,
        image="{{ params.image }}",
        arguments=["{{ ds }}", "{{ ti.xcom_pull('up') }}", "plain"],
        env_vars={"A": "{{ 2 + 3 }}"},
        node_selector={"{{ not a key }}": "{{ ti.task_id }}"},
        container_resources={"limits": {"memory": "{{ 64 * 2 }}Mi"}},
        pod_template_dict={"metadata": {"annotations": {"day": "{{ ds_nodash }}"}}},
        tolerations=[{"key": "{{ not templated }}"}],
    )
    assert got == {
        "image": "busybox",
        "arguments": ["2026-03-04", "{{ 1 + 1 }}", "plain"],
        "env_vars": {"A": "5"},
        "node_selector": {"{{ not a key }}": "pod"},
        "container_resources": {"limits": {"memory": "128Mi"}},
        "pod_template_dict": {"metadata": {"annotations": {"day": "20260304"}}},
        "tolerations": [{"key": "{{ not templated }}"}],
    }


def test_a_pod_without_templates_starts_no_process(child: renderer.Renderer) -> None:
    """Nobody is asked."""
    pod_message(child, arguments=["plain"])
    assert child.spent_s == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% for a in range(9**5) %}{% for b in range(9**5) %}{% endfor %}{% endfor %}", "took longer than 1 s"),
        ("{{ 'x' * 10**9 }}", "arguments[0]"),
        ("{{ 'x' * 10**6 }}", "the template gives 1,000,000 characters, too many for a pod"),
        ("{{ params.no }}", "arguments[0]: the template cannot be rendered"),
    ],
)
def test_a_template_that_loops_or_eats_memory_hurts_its_task_alone(
    child: renderer.Renderer, text: str, why: str
) -> None:
    """The process is bounded in time and memory, and the next task is served by the same or a new one."""
    with pytest.raises(TaskFailed) as failed:
        pod_message(child, arguments=[text])
    assert failed.value.details == {"reason": "TemplateError", "cause": "application"}
    assert why in str(failed.value)
    assert pod_message(child, arguments=["{{ ds }}"])["arguments"] == ["2026-03-04"]
