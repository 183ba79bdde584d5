"""What authors write becomes the graph that they meant, or an error that says what is wrong."""

import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

import routing
from routing import (
    DAG,
    BashOperator,
    EmptyOperator,
    InvalidDag,
    KubernetesPodOperator,
    PythonOperator,
    TriggerRule,
    task,
)
from routing.authoring.spec import DagSpec


def empty(task_id: str, **options: Any) -> EmptyOperator:
    """A task, in the DAG around."""
    return EmptyOperator(task_id=task_id, **options)


def upstreams(dag: DAG) -> dict[str, tuple[str, ...]]:
    """The arrows of a DAG."""
    return {one.task_id: one.upstream for one in dag.spec("f.py").tasks}


def test_the_public_names_are_sorted_and_all_exist() -> None:
    """`__all__` is what authors may import; Airflow's order is ours: constants of one case first."""
    assert sorted(routing.__all__, key=str) == sorted(routing.__all__)
    assert all(getattr(routing, name) for name in routing.__all__)
    assert set(routing.__all__) <= set(dir(routing))


def test_arrows_with_lists_on_either_side_make_every_pair() -> None:
    """`a >> [b, c] >> d` and `[…] << …` as in Airflow."""
    with DAG("arrows") as dag:
        a, b, c, d = (empty(name) for name in "abcd")
        a >> [b, c] >> d
        with pytest.raises(InvalidDag, match="cannot come before itself"):
            a >> a
        e = empty("e")
        e << [d, a]
        [e] << b
    assert upstreams(dag) == {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("d", "a", "b")}


def test_a_result_as_argument_is_a_dependency_wherever_it_stands() -> None:
    """Directly, in lists, tuples and mappings, in op_args and op_kwargs, in env and in a pod's arguments."""
    with DAG("results") as dag:
        a, b, c = (BashOperator(task_id=name, bash_command="true").output for name in "abc")
        PythonOperator(task_id="p", python_callable=print, op_args=[a, [b]], op_kwargs={"end": {"x": (c, 1)}})
        BashOperator(task_id="q", bash_command=a, env={"B": b})
        KubernetesPodOperator(task_id="r", image="i", arguments=[c], env_vars=[{"name": "A", "value": a}])
        a >> empty("only_after")
    specs = {one.task_id: one for one in dag.spec("f.py").tasks}
    assert {name: (specs[name].upstream, specs[name].inputs) for name in ("p", "q", "r", "only_after")} == {
        "p": (("a", "b", "c"), ("a", "b", "c")),
        "q": (("a", "b"), ("a", "b")),
        "r": (("c", "a"), ("c", "a")),
        "only_after": (("a",), ()),
    }


def test_a_spec_survives_json() -> None:
    """What the scheduler stores is what the child process said."""
    with DAG("all options", description="ü", default_args={"retries": 3, "queue": "slow"}) as dag:
        empty("defaults")
        PythonOperator(
            task_id="own",
            python_callable=print,
            queue="kubernetes",
            retries=1,
            retry_delay=timedelta(minutes=2),
            execution_timeout=5,
            trigger_rule=TriggerRule.NONE_FAILED,
            executor_config={
                "pod_override": {"spec": {"containers": [{"name": "base", "image": "x"}]}},
                "pod_template_file": "gpu",
            },
        )
    spec = dag.spec("sub/f.py")
    assert DagSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.tasks[0].retries == 3
    assert spec.tasks[0].queue == "slow"
    own = spec.tasks[1]
    assert (own.retries, own.retry_delay_s, own.execution_timeout_s, own.trigger_rule, own.pod_template_file) == (
        1,
        120.0,
        5.0,
        "none_failed",
        "gpu",
    )
    assert own.pod_override == {"spec": {"containers": [{"name": "base", "image": "x"}]}}


def test_a_v1pod_is_a_plain_mapping_in_the_spec() -> None:
    """Airflow's way to write an override works: the client's object, with the API's names afterwards."""
    from kubernetes.client import models as k8s

    resources = k8s.V1ResourceRequirements(limits={"memory": "1Gi"})
    pod = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", resources=resources)]))
    with DAG("objects") as dag:
        empty("a", executor_config={"pod_override": pod})
    assert dag.spec("f.py").tasks[0].pod_override == {
        "spec": {"containers": [{"name": "base", "resources": {"limits": {"memory": "1Gi"}}}]}
    }


def test_each_call_of_a_task_function_is_a_task() -> None:
    """Repeated calls get numbers, `override` changes options and names, the plain function stays callable."""

    @task(queue="slow")
    def double(x: int) -> int:
        return 2 * x

    with DAG("calls") as dag:
        double(double(1))
        double.override(task_id="other", retries=2)(3)
    specs = [(one.task_id, one.queue, one.retries, one.inputs) for one in dag.spec("f.py").tasks]
    assert specs == [("double", "slow", 0, ()), ("double__1", "slow", 0, ("double",)), ("other", "slow", 2, ())]
    assert double.function(4) == 8
    assert double.__name__ == "double"


def test_unicode_ids_are_fine() -> None:
    """Ids are people's words."""
    with DAG("Zählung ☃") as dag:
        empty("задача один")
    assert dag.spec("f.py").tasks[0].task_id == "задача один"


def test_a_long_chain_is_checked_without_recursion() -> None:
    """Twenty thousand tasks in a row are no cycle and no stack overflow; closing the ring is found."""
    with DAG("chain") as dag:
        tasks = [empty(str(number)) for number in range(20_000)]
        for before, after in pairwise(tasks):
            before >> after
        assert len(dag.spec("f.py").tasks) == 20_000
        tasks[-1] >> tasks[19_998]
    with pytest.raises(InvalidDag, match=r"has a cycle: (19998 >> 19999 >> 19998|19999 >> 19998 >> 19999); take one"):
        dag.spec("f.py")


def outside() -> None:
    empty("x")


def called_outside() -> None:
    task(print)()


def twice() -> None:
    empty("x")
    empty("x")


def across() -> None:
    with DAG("other"):
        other = empty("y")
    empty("x") >> other


def foreign_result() -> None:
    with DAG("other"):
        result = BashOperator(task_id="y", bash_command="true").output
    BashOperator(task_id="x", bash_command=result)


def formatted() -> None:
    BashOperator(task_id="x", bash_command=f"echo {empty('y').output}")


def unpacked() -> None:
    _first, _second = empty("y").output


def add(rows: list[int], ds: str) -> None:
    """A body that needs `rows`; `ds` comes from the context."""


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: empty(""), "a task_id must not be empty"),
        (lambda: empty("  "), "a task_id must not be empty"),
        (lambda: empty(" x"), "begins or ends with white space"),
        (lambda: empty("x\ny"), "the task_id 'x\\ny' has control characters"),
        (lambda: empty("x\ud800"), "has control characters"),
        (lambda: empty("x" * 513), "has 513 characters, more than 512"),
        (lambda: empty(5), "a task_id must be a string, not 5"),  # type: ignore[arg-type]
        (lambda: empty("x", queue=7), "task 'x': queue must be the name of a queue, a string, not 7"),
        (lambda: empty("x", queue=["a"]), "queue must be the name of a queue"),
        (lambda: empty("x", queue="a,b"), "'a,b' cannot name a queue"),
        (lambda: empty("x", queue=""), "must not be empty"),
        (lambda: empty("x", retries=-1), "retries must be an integer, 0 or more, not -1"),
        (lambda: empty("x", retries=True), "retries must be an integer"),
        (lambda: empty("x", retry_delay="5m"), "retry_delay must be a timedelta or a number of seconds"),
        (lambda: empty("x", retry_delay=float("nan")), "retry_delay must be"),
        (lambda: empty("x", execution_timeout=0), "execution_timeout must be more than 0"),
        (lambda: empty("x", trigger_rule="always"), "trigger_rule 'always' is not known; use one of all_success, "),
        (lambda: empty("x", retires=2), "parameter 'retires' is not known; did you mean 'retries'?"),
        (lambda: empty("x", executor_config={"pod_overide": {}}), "did you mean 'pod_override'?"),
        (lambda: empty("x", executor_config="gpu"), "executor_config must be a mapping"),
        (lambda: empty("x", dag="d"), "outside of a DAG"),
        (lambda: empty("x") >> "y", "needs tasks or lists of tasks at both ends, not 'y'"),
        (lambda: empty("x") >> task(lambda: None), "call it, with brackets"),
        (lambda: BashOperator(task_id="x", bash_command=""), "bash_command must be a command"),
        (
            lambda: BashOperator(task_id="x", bash_command="true", env={"A=B": "x"}),
            "cannot name an environment variable",
        ),
        (
            lambda: BashOperator(task_id="x", bash_command="true", env={"A": None}),
            "env['A'] must be a string, not None",
        ),
        (lambda: PythonOperator(task_id="x", python_callable="f"), "python_callable must be callable, not 'f'"),  # type: ignore[arg-type]
        (task(add), "lacks a value for 'rows'"),
        (lambda: task(add)(1, 2, 3), "too many positional arguments"),
        (lambda: KubernetesPodOperator(task_id="x"), "image is missing"),
        (lambda: KubernetesPodOperator(task_id="x", image=" "), "image must be a non-empty string"),
        (
            lambda: KubernetesPodOperator(task_id="x", image="i", comands=["a"]),
            "'comands' is not known; did you mean 'cmds'?",
        ),
        (
            lambda: KubernetesPodOperator(task_id="x", image="i", cmds="ls -l"),
            "cmds must be a list of strings, not 'ls -l'",
        ),
        (
            lambda: KubernetesPodOperator(task_id="x", image="i", arguments=["a", 1]),
            "arguments[1] must be a string, not 1",
        ),
        (
            lambda: KubernetesPodOperator(task_id="x", image="i", env_vars={"A": 1}),
            "env_vars['A'] must be a string, not 1",
        ),
        (
            lambda: KubernetesPodOperator(task_id="x", image="i", env_vars=[{"nam": "A"}]),
            "env_vars[0].nam: unknown",
        ),
        (lambda: KubernetesPodOperator(task_id="x", image="i", env_vars=[{"value": "A"}]), "with name and value"),
        (lambda: DAG("x", schedule="@daily"), "schedule='@daily' is not possible yet"),  # type: ignore[arg-type]
        (lambda: DAG("x", shedule=None), "did you mean 'schedule'?"),
        (
            lambda: DAG("x", default_args={"retry": 1}),
            "default_args: option 'retry' is not known; did you mean 'retries'?",
        ),
        (lambda: DAG("x", default_args={"retries": -1}), "default_args: retries must be"),
        (lambda: DAG("x", params={"a": object()}), "params: $.a: object is not JSON"),
        (lambda: DAG(""), "a dag_id must not be empty"),
        (twice, "DAG 'd' has two tasks with the task_id 'x'"),
        (across, "a dependency stays inside one DAG"),
        (foreign_result, "a dependency stays inside one DAG"),
        (lambda: task("name"), "@task decorates functions, not 'name'"),  # type: ignore[call-overload]
        (lambda: task(queu="x")(print), "did you mean 'queue'?"),  # type: ignore[call-arg]
    ],
)
def test_a_mistake_is_told_with_the_way_out(write: Any, message: str) -> None:
    """The message names DAG, task and parameter, and the nearest right word where there is one."""
    with DAG("d"), pytest.raises(InvalidDag) as told:
        write()
    assert message in str(told.value)


@pytest.mark.parametrize("write", [outside, called_outside])
def test_a_task_outside_of_a_dag_is_refused(write: Any) -> None:
    """It would never run."""
    with pytest.raises(InvalidDag, match=r"is outside of a DAG: .* `with DAG\(\.\.\.\):`"):
        write()


@pytest.mark.parametrize("write", [formatted, unpacked])
def test_a_result_cannot_be_used_while_the_dag_is_loaded(write: Any) -> None:
    """Text or parts of a result that does not exist yet would be nonsense that runs."""
    with DAG("d"), pytest.raises(TypeError, match="it is known when the task has run; pass it whole as an argument"):
        write()


def test_a_wrong_pod_override_is_told_with_its_path() -> None:
    """Found when the file is loaded, not when the pod is launched."""
    with DAG("d") as dag:
        empty("x", executor_config={"pod_override": {"spec": {"containers": [{"imagge": "x"}]}}})
    with pytest.raises(
        InvalidDag, match=r"task 'x': executor_config: .*spec\.containers\[0\]\.imagge: unknown field"
    ) as told:
        dag.spec("f.py")
    assert told.value.line is not None
