"""A result may stand wherever the pages say that it may; wherever it may not, the file is refused: nobody sees a
placeholder, no body, no container, no person."""

import collections
import dataclasses
import functools
import json
import types
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.manifests import container_pod
from routing import DAG, BashOperator, KubernetesPodOperator, PythonOperator, TaskFailed, task
from routing.authoring import pod_parameters, spec, xcom
from routing.errors import InvalidDag
from routing.scheduling import messages

Pair = collections.namedtuple("Pair", "first second")
UP = {"up": ["a", 1, {"b": None}], "environment": {"A": 1, "B": "x"}}


def sent(given: dict[str, Any], inputs: Any = None) -> dict[str, Any]:
    """The arguments of the pod as they travel, for a pod operator whose parameters may hold results."""
    dag, results = DAG("d"), {}
    with dag:
        for name in UP:
            results[name] = PythonOperator(task_id=name, python_callable=int).output
        values = {name: value(results) for name, value in given.items()}
        made = KubernetesPodOperator(task_id="t", **{"image": "i", **values})
        list(results.values()) >> made
    occasion = messages.Occasion(
        dag_file="f.py", dag_id="d", run_id="r", logical_date=datetime(2026, 1, 1, tzinfo=UTC), conf={}, try_number=1,
        inputs=UP if inputs is None else inputs,
    )  # fmt: skip
    (found,) = [one for one in dag.spec("f.py").tasks if one.task_id == "t"]
    stored = json.dumps(found.to_json())
    kwargs: dict[str, Any] = messages.build(spec.TaskSpec.from_json(json.loads(stored)), occasion)["kwargs"]
    container_pod.read(kwargs)
    return kwargs


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"arguments": lambda r: r["up"]}, {"arguments": ["a", "1", '{"b": null}']}),
        ({"cmds": lambda r: r["up"]}, {"cmds": ["a", "1", '{"b": null}']}),
        ({"arguments": lambda r: ["--x", r["up"]]}, {"arguments": ["--x", '["a", 1, {"b": null}]']}),
        ({"env_vars": lambda r: r["environment"]}, {"env_vars": {"A": "1", "B": "x"}}),
        ({"env_vars": lambda r: {"C": r["environment"]}}, {"env_vars": {"C": '{"A": 1, "B": "x"}'}}),
        (
            {"env_vars": lambda r: [{"name": "C", "value": r["up"]}]},
            {"env_vars": [{"name": "C", "value": '["a", 1, {"b": null}]'}]},
        ),
        ({"labels": lambda r: r["environment"]}, {"labels": {"A": "1", "B": "x"}}),
        ({"arguments": lambda _: ["{{ ti.xcom_pull('environment').B }}"]}, {"arguments": ["x"]}),
        ({"env_vars": lambda _: {"C": "{{ ti.xcom_pull('up')[1] }} {{ ds }}"}}, {"env_vars": {"C": "1 2026-01-01"}}),
    ],
)
def test_a_pod_gets_results_whole_nested_and_in_templates(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Text is text, any other value is written as JSON; a parameter that is a list or a mapping may be a result."""
    kwargs = sent(given)
    assert {name: kwargs[name] for name in expected} == expected
    assert "podyard." not in json.dumps(kwargs)


def test_a_result_that_does_not_fit_fails_the_task_and_says_where() -> None:
    """A number is no list of arguments."""
    with pytest.raises(TaskFailed, match=r"^arguments, the result of task 'up', must be a list, and is 7$"):
        sent({"arguments": lambda r: r["up"]}, {"up": 7})
    with pytest.raises(TaskFailed, match=r"^env_vars, the result of task 'up', must be a mapping or a list, and is x$"):
        sent({"env_vars": lambda r: r["up"]}, {"up": "x"})


def test_a_result_that_is_missing_leaves_its_parameter_out() -> None:
    """Its task failed or was skipped, and the trigger rule allows that."""
    assert "arguments" not in sent({"arguments": lambda r: r["up"]}, {})


def test_a_pod_that_is_only_shown_says_which_result_it_waits_for() -> None:
    """`podyard dags render` knows no result; what is a whole parameter is left out."""
    unknown = {"up": spec.Unknown("<result of up>")}
    assert sent({"arguments": lambda r: ["--x", r["up"]]}, unknown)["arguments"] == ["--x", "<result of up>"]
    assert "arguments" not in sent({"arguments": lambda r: r["up"]}, unknown)


@pytest.mark.parametrize("name", sorted(name for name, one in pod_parameters.TABLE.items() if one.is_templated))
def test_each_templated_parameter_may_be_a_result(name: str) -> None:
    """As the page on Airflow says of what it marks T."""
    dag = DAG("d")
    with dag:
        result = PythonOperator(task_id="up", python_callable=int).output
        KubernetesPodOperator(task_id="t", **{"image": "i", name: result})
    (made,) = [one for one in dag.spec("f.py").tasks if one.task_id == "t"]
    assert made.inputs == ("up",)


def test_a_mistake_beside_a_result_shows_no_mark_of_ours() -> None:
    """The message names the result as people know it."""
    with pytest.raises(InvalidDag) as found:
        sent({"env_vars": lambda r: {"A": {"x": r["up"]}}})
    assert "\0" not in str(found.value)
    assert "\\x00" not in str(found.value)
    assert "the result of task 'up'" in str(found.value)


def run(value: Any) -> Any:
    """What a body gets for an argument that may hold results and templates."""
    from routing.authoring import context

    with DAG("d"):
        result = PythonOperator(task_id="up", python_callable=int).output
        made = PythonOperator(task_id="t", python_callable=lambda given: given, op_args=[value(result)])
    message = {
        "dag_file": "f.py", "dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1,
        "logical_date": "2026-01-01T00:00:00+00:00", "conf": {}, "inputs": {},
    }  # fmt: skip
    return made.execute(context.build(message, params={}, attempt_id="a"), {"up": 7})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (lambda r: {"a": [r, (r, "{{ ds }}")]}, {"a": [7, (7, "2026-01-01")]}),
        (lambda r: Pair(r, "{{ ds }}"), Pair(7, "2026-01-01")),
        (lambda r: collections.OrderedDict(a=r, b="{{ ds }}"), collections.OrderedDict(a=7, b="2026-01-01")),
        (lambda r: collections.defaultdict(list, a=[r]), collections.defaultdict(list, a=[7])),
        (lambda r: types.MappingProxyType({"a": r}), {"a": 7}),
    ],
)
def test_a_body_gets_results_and_templates_at_any_depth(value: Any, expected: Any) -> None:
    """Also inside the subclasses of lists, tuples and mappings, which stay what they are."""
    found = run(value)
    assert found == expected
    assert type(found) is type(expected)


@dataclasses.dataclass
class Holder:
    """An object of the author's own."""

    value: Any


@pytest.mark.parametrize(
    "value",
    [
        lambda r: {r},
        lambda r: [{"a": frozenset([r])}],
        lambda r: {r: 1},
        lambda r: {(1, r): 1},
        Holder,
        lambda r: [Holder({"deep": [r]})],
        lambda r: functools.partial(print, r),
        lambda r: types.SimpleNamespace(a=r),
        lambda r: f"{r!r}",
        lambda r: [f"{[r]}"],
        lambda r: json.dumps({"a": r}, default=repr),
        lambda r: {f"{r!r}": 1},
    ],
)
def test_a_result_where_none_is_put_in_is_refused(value: Any) -> None:
    """A set, a key, an object, a text that was made of it: the file says so when it is loaded."""
    with pytest.raises(InvalidDag, match="pass it whole as an argument"):
        run(value)


@pytest.mark.parametrize("make", [str, "{}".format, lambda r: f"{r}", list, bool, lambda r: r["a"]])
def test_a_result_is_no_text_while_the_dag_is_loaded(make: Any) -> None:
    """It says what to do instead."""
    with DAG("d"):
        result = PythonOperator(task_id="up", python_callable=int).output
        with pytest.raises(TypeError, match="pass it whole as an argument"):
            make(result)


def test_no_operator_takes_a_text_that_was_made_of_a_result() -> None:
    """Commands, environments, arguments of pods and overrides."""
    with DAG("d"):
        result = PythonOperator(task_id="up", python_callable=int).output
        text = f"{result!r}"
        for number, make in enumerate(
            (
                lambda name: BashOperator(task_id=name, bash_command=f"echo {text}"),
                lambda name: BashOperator(task_id=name, bash_command="echo", env={"A": text}),
                lambda name: KubernetesPodOperator(task_id=name, image="i", arguments=[text]),
                lambda name: KubernetesPodOperator(
                    task_id=name, image="i", init_containers=[{"name": "a", "args": [text]}]
                ),
                lambda name: task(executor_config={"pod_override": {"metadata": {"annotations": {"a": text}}}})(
                    int
                ).override(task_id=name)(),
                lambda name: task(executor_config={"pod_override": {"metadata": {"annotations": {"a": result}}}})(
                    int
                ).override(task_id=name)(),
            )
        ):
            with pytest.raises(InvalidDag):
                make(f"t{number}")


def test_what_has_no_result_in_it_is_left_alone() -> None:
    """Objects of any kind, also ones that hold themselves."""
    loop: list[Any] = []
    loop.append(loop)
    holder = Holder(None)
    holder.value = holder
    assert [xcom.misplaced(value) for value in (loop, holder, {1: {2}}, "<result>", b"x", int, json)] == [None] * 7
