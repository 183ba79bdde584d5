"""Everything given to a task is copied when the task is made: what the DAG file does afterwards changes nothing."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
from kubernetes import client

from routing import DAG, BashOperator, EmptyOperator, KubernetesPodOperator, PythonOperator, task
from routing.authoring import copies
from routing.authoring.spec import TaskSpec


def image_of(spec: TaskSpec) -> str:
    """The image that a task's override asks for."""
    assert spec.pod_override is not None
    return str(spec.pod_override["spec"]["containers"][0]["image"])


def override(image: str) -> dict[str, Any]:
    """An `executor_config`."""
    return {"pod_override": {"spec": {"containers": [{"name": "base", "image": image}]}}}


def test_one_executor_config_changed_in_a_loop_gives_every_task_its_own_value() -> None:
    """Also one that is a V1Pod of the Kubernetes client, and one given to `@task(...).override`."""
    container = client.V1Container(name="base", image="none")
    pod = {"pod_override": client.V1Pod(spec=client.V1PodSpec(containers=[container]))}
    plain = override("none")
    with DAG("loop") as dag:
        for number in range(3):
            plain["pod_override"]["spec"]["containers"][0]["image"] = container.image = f"image:{number}"
            EmptyOperator(task_id=f"plain-{number}", executor_config=plain)
            BashOperator(task_id=f"client-{number}", bash_command="true", executor_config=pod)
            task(print).override(task_id=f"function-{number}", executor_config=plain)()
    images = {spec.task_id: image_of(spec) for spec in dag.spec("f.py").tasks}
    assert images == {
        f"{kind}-{number}": f"image:{number}" for number in range(3) for kind in ("plain", "client", "function")
    }


def test_a_function_keeps_the_options_that_it_was_decorated_with() -> None:
    """`@task(executor_config=x)` takes x as it is then, not as it is when the function is called."""
    config = override("first")
    function = task(executor_config=config)(print)
    config["pod_override"]["spec"]["containers"][0]["image"] = "second"
    with DAG("d") as dag:
        function()
    assert image_of(dag.spec("f.py").tasks[0]) == "first"


def test_default_args_and_params_are_taken_when_the_dag_is_made() -> None:
    """A mapping that is changed and given to the next DAG changes neither the DAG before nor its later tasks."""
    defaults, params = {"retries": 1, "executor_config": override("first")}, {"days": [1]}
    with DAG("one", default_args=defaults, params=params) as dag:
        EmptyOperator(task_id="before")
        defaults["retries"] = 7
        defaults["executor_config"]["pod_override"]["spec"]["containers"][0]["image"] = "second"
        params["days"].append(2)
        EmptyOperator(task_id="after")
    spec = dag.spec("f.py")
    assert [(one.retries, image_of(one)) for one in spec.tasks] == [(1, "first"), (1, "first")]
    assert spec.params == {"days": [1]}


def test_arguments_are_taken_when_the_task_is_made() -> None:
    """op_args and op_kwargs with what is inside them, env, and all that a pod operator takes."""
    args, kwargs, env = [[1]], {"x": {"y": 1}}, {"A": "1"}
    labels, arguments, volumes = {"a": "1"}, ["one"], [client.V1Volume(name="v", empty_dir={})]
    with DAG("d") as dag:
        python = PythonOperator(task_id="p", python_callable=lambda a, x: (a, x), op_args=args, op_kwargs=kwargs)
        bash = BashOperator(task_id="b", bash_command="true", env=env)
        KubernetesPodOperator(task_id="k", image="i", labels=labels, arguments=arguments, volumes=volumes)
        before = dag.spec("f.py")
        args[0].append(2)
        kwargs["x"]["y"] = env["A"] = labels["a"] = 2  # type: ignore[assignment]
        arguments.append("two")
        volumes[0].name = "other"
    assert python.execute({}, {}) == ([1], {"y": 1})
    assert bash.env == {"A": "1"}
    assert dag.spec("f.py") == before


def test_results_of_tasks_and_objects_of_the_author_are_not_copied() -> None:
    """A result refers to its task, and an object of the author's own may hold what cannot be copied."""

    class Connection:
        """Has a socket, say."""

    connection = Connection()
    with DAG("d") as dag:
        up = EmptyOperator(task_id="up").output
        down = PythonOperator(task_id="down", python_callable=print, op_args=[[connection], {"x": up}])
    assert down.op_args[0][0] is connection
    assert down.op_args[1]["x"] is up
    assert dag.spec("f.py").tasks[1].upstream == ("up",)


class Pair(NamedTuple):
    """A tuple with names."""

    left: Any
    right: Any


@pytest.mark.parametrize("value", [OrderedDict(a=[1]), [[1], (2, [3])], {"s": {1, 2}}, Pair([1], 2), (), None, "text"])
def test_a_copy_is_equal_and_of_the_same_kind(value: Any) -> None:
    """Subclasses stay what they are."""
    made = copies.copied(value)
    assert made == value
    assert type(made) is type(value)


def test_what_stands_in_several_places_still_does() -> None:
    """Also in itself: a copy ends."""
    shared: list[Any] = [1]
    shared.append(shared)
    made = copies.copied({"a": shared, "b": shared})
    assert made["a"] is made["b"] is made["a"][1]
    assert made["a"] is not shared
