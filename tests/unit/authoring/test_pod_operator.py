"""KubernetesPodOperator: every parameter of Airflow's, what travels for it, and what is said of mistakes."""

import warnings
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Secret, Volume, VolumeMount
from dispatcher.manifests import container_pod
from routing import DAG, BashOperator, InvalidDag, KubernetesPodOperator
from routing.authoring import loading, pod_parameters
from routing.authoring.spec import DagSpec

OTHERS: dict[str, Any] = {
    "base_container_status_polling_interval": 1,
    "deferrable": True,
    "durable": False,
    "kubernetes_conn_id": "kubernetes_default",
    "log_events_on_startup": False,
    "log_pod_spec_on_failure": False,
    "logging_interval": 5,
    "poll_interval": 2,
    "random_name_suffix": False,
    "startup_check_interval_seconds": 5,
    "trigger_kwargs": {},
}
"""Airflow's parameters that change nothing here."""
TRAVELLING: dict[str, Any] = {
    "active_deadline_seconds": 60,
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "annotations": {"note": "1"},
    "arguments": ["a"],
    "automount_service_account_token": False,
    "base_container_name": "main",
    "cluster_context": "prod",
    "cmds": ["c"],
    "config_file": "/etc/kubeconfig",
    "configmaps": ["one", "two"],
    "container_logs": ["main", "side"],
    "container_name_log_prefix_enabled": False,
    "container_resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
    "container_security_context": {"runAsUser": 0},
    "dns_config": {"nameservers": ["10.0.0.1"]},
    "dnspolicy": "ClusterFirst",
    "do_xcom_push": True,
    "env_from": [{"secretRef": {"name": "s"}}],
    "env_vars": {"A": "1"},
    "full_pod_spec": {"spec": {"containers": [{"name": "base", "image": "i"}]}},
    "get_logs": False,
    "host_aliases": [{"ip": "10.0.0.2", "hostnames": ["db"]}],
    "hostname": "h",
    "hostnetwork": False,
    "image": "i",
    "image_pull_policy": "Always",
    "image_pull_secrets": [{"name": "registry"}],
    "in_cluster": True,
    "init_container_logs": True,
    "init_containers": [{"name": "first", "image": "i"}],
    "labels": {"foo": "bar"},
    "log_events_on_failure": True,
    "name": "n",
    "namespace": "default",
    "node_selector": {"disk": "ssd"},
    "on_finish_action": "delete_succeeded_pod",
    "on_kill_action": "keep_pod",
    "pod_runtime_info_envs": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    "pod_template_dict": {"metadata": {"labels": {"a": "b"}}},
    "pod_template_file": "gpu",
    "ports": [{"containerPort": 80}],
    "priority_class_name": "high",
    "runtime_class_name": "gvisor",
    "schedule_timeout_seconds": 30.0,
    "schedulername": "mine",
    "secrets": [{"deploy_type": "env", "deploy_target": "P", "secret": "s", "key": "k"}],
    "security_context": {"fsGroup": 1},
    "service_account_name": "robot",
    "skip_on_exit_code": [99],
    "startup_timeout_seconds": 120.0,
    "subdomain": "sub",
    "termination_grace_period": 0,
    "termination_message_policy": "FallbackToLogsOnError",
    "tolerations": [{"key": "key", "operator": "Equal", "value": "value"}],
    "volume_mounts": [{"name": "v", "mountPath": "/v"}],
    "volumes": [{"name": "v", "emptyDir": {}}],
    "xcom_path": "/airflow/xcom/other.json",
    "xcom_sidecar_container_security_context": {"runAsUser": 1000},
}
"""Each of the others, as it travels."""


def pod_of(**parameters: Any) -> dict[str, Any]:
    """What travels for an operator with these parameters; with an image, unless one is given."""
    with DAG("d") as dag:
        KubernetesPodOperator(task_id="pod", **{"image": "i", **parameters})
    [task] = dag.spec("f.py").tasks
    assert task.pod is not None
    return {name: value for name, value in task.pod.items() if name in parameters}


def warned(**parameters: Any) -> tuple[str, ...]:
    """What `podyard dags show` tells of an operator with these parameters."""
    with DAG("d") as dag:
        KubernetesPodOperator(task_id="pod", **{"image": "i", **parameters})
    return dag.spec("f.py").warnings


def test_every_parameter_is_accounted_for() -> None:
    """What travels is what the dispatcher reads; the rest is accepted without effect, renamed, or refused."""
    assert set(pod_parameters.TABLE) == set(TRAVELLING) <= container_pod.PARAMETERS
    assert set(pod_parameters.WITHOUT_EFFECT) == set(OTHERS)
    assert set(pod_parameters.DEPRECATED.values()) <= {*TRAVELLING, *OTHERS}


@pytest.mark.parametrize("name", sorted(TRAVELLING))
def test_a_parameter_travels_as_plain_json(name: str) -> None:
    """As the API spells it, one by one."""
    assert pod_of(**{name: TRAVELLING[name]}) == {name: TRAVELLING[name]}


@pytest.mark.parametrize("name", sorted(TRAVELLING))
def test_every_parameter_changes_what_the_dispatcher_makes_of_it(name: str) -> None:
    """The manifest, or what is done around the pod; nothing that is accepted is dropped on the way."""
    bare = {"image": "other", "log_events_on_failure": False, "do_xcom_push": name != "do_xcom_push"}
    assert container_pod.read({**bare, name: TRAVELLING[name]}) != container_pod.read(bare)


@pytest.mark.parametrize("name", ["xcom_path", "xcom_sidecar_container_security_context"])
def test_a_parameter_of_the_result_is_told_where_there_is_none(name: str) -> None:
    """Without do_xcom_push it changes nothing."""
    assert [
        name in sentence and "do_xcom_push=True" in sentence for sentence in warned(**{name: TRAVELLING[name]})
    ] == [True]
    assert warned(do_xcom_push=True, **{name: TRAVELLING[name]}) == ()


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_parameter_without_effect_says_so(name: str) -> None:
    """Accepted, so that a DAG of Airflow's loads; not sent; and `podyard dags show` tells."""
    assert pod_of(**{name: OTHERS[name]}) == {}
    told = warned(**{name: OTHERS[name]})
    assert told == () if name == "kubernetes_conn_id" else f"{name} has no effect: " in told[0]


@pytest.mark.parametrize(
    ("name", "written", "travels"),
    [
        ("labels", {"a": None, "b": ""}, {"a": "", "b": ""}),
        ("image_pull_secrets", "one, two", [{"name": "one"}, {"name": "two"}]),
        ("image_pull_secrets", ["one"], [{"name": "one"}]),
        ("skip_on_exit_code", 0, [0]),
        ("skip_on_exit_code", {4, 3}, [3, 4]),
        ("container_logs", "side", ["side"]),
        ("container_logs", True, True),
        ("config_file", Path("/x"), "/x"),
        ("cmds", ("a", "b"), ["a", "b"]),
        ("on_finish_action", Enum("Action", {"KEEP": "keep_pod"})["KEEP"], "keep_pod"),
        ("env_vars", [{"name": "A", "value": "1"}], [{"name": "A", "value": "1"}]),
        ("volumes", [Volume("v", {"persistentVolumeClaim": {"claimName": "c"}})],
         [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
        ("volume_mounts", [VolumeMount("v", mount_path="/v", sub_path=None, read_only=True)],
         [{"name": "v", "mountPath": "/v", "readOnly": True}]),
        ("secrets", [Secret("env", None, "all")], [{"deploy_type": "env", "secret": "all"}]),
        ("secrets", [Secret("volume", "/etc/x", "s", items=[{"key": "k", "path": "p"}])],
         [{"deploy_type": "volume", "deploy_target": "/etc/x", "secret": "s", "items": [{"key": "k", "path": "p"}]}]),
    ],
)  # fmt: skip
def test_other_ways_to_write_it_mean_the_same(name: str, written: Any, travels: Any) -> None:
    """Airflow's and the old wrapper objects, short forms, enums, tuples."""
    assert pod_of(**{name: written}) == {name: travels}


def test_objects_of_the_kubernetes_client_are_taken_wherever_mappings_are() -> None:
    """As Airflow's examples write them; also inside mappings, and beside a result."""
    from kubernetes.client import models as k8s

    container = k8s.V1Container(name="base", image="i", ports=[k8s.V1ContainerPort(container_port=80)])
    objects = {
        "affinity": k8s.V1Affinity(
            node_affinity=k8s.V1NodeAffinity(
                required_during_scheduling_ignored_during_execution=k8s.V1NodeSelector(node_selector_terms=[])
            )
        ),
        "container_resources": k8s.V1ResourceRequirements(requests={"cpu": "100m"}, limits={"memory": "1Gi"}),
        "container_security_context": k8s.V1SecurityContext(run_as_user=0),
        "dns_config": k8s.V1PodDNSConfig(nameservers=["10.0.0.1"]),
        "env_from": [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="s"))],
        "env_vars": [k8s.V1EnvVar(name="A", value="1")],
        "full_pod_spec": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[container])),
        "host_aliases": [k8s.V1HostAlias(ip="10.0.0.2", hostnames=["db"])],
        "image_pull_secrets": [k8s.V1LocalObjectReference(name="registry")],
        "init_containers": [k8s.V1Container(name="first", image="i")],
        "pod_template_dict": {"spec": {"containers": [container]}},
        "ports": [k8s.V1ContainerPort(container_port=80)],
        "security_context": k8s.V1PodSecurityContext(fs_group=1),
        "tolerations": [k8s.V1Toleration(key="key", operator="Equal", value="value")],
        "volume_mounts": [k8s.V1VolumeMount(name="v", mount_path="/v")],
        "volumes": [k8s.V1Volume(name="v", empty_dir=k8s.V1EmptyDirVolumeSource())],
    }
    whole = {"spec": {"containers": [{"name": "base", "image": "i", "ports": [{"containerPort": 80}]}]}}
    expected = {name: TRAVELLING[name] for name in objects} | {
        "env_vars": [{"name": "A", "value": "1"}],
        "full_pod_spec": whole,
        "pod_template_dict": whole,
    }
    assert pod_of(**objects) == expected
    with DAG("d") as dag:
        up = BashOperator(task_id="up", bash_command="true").output
        KubernetesPodOperator(task_id="pod", image="i", env_vars=[k8s.V1EnvVar(name="B"), {"name": "A", "value": up}])
    task = dag.spec("f.py").tasks[1]
    assert (task.inputs, task.pod) == (
        ("up",),
        {"image": "i", "env_vars": [{"name": "B"}, {"name": "A", "value": {"podyard.xcom": "up"}}]},
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"is_delete_operator_pod": True}, {"on_finish_action": "delete_pod"}),
        ({"is_delete_operator_pod": False}, {"on_finish_action": "keep_pod"}),
        ({"node_selectors": {"a": "b"}}, {"node_selector": {"a": "b"}}),
        ({"pod": {"spec": {}}}, {"full_pod_spec": {"spec": {}}}),
        (
            {"resources": {"request_memory": "64Mi", "limit_cpu": 1, "limit_gpu": "2"}},
            {"container_resources": {"requests": {"memory": "64Mi"}, "limits": {"cpu": 1, "nvidia.com/gpu": "2"}}},
        ),
        ({"volume": [Volume("v", {"emptyDir": {}})]}, {"volumes": [{"name": "v", "emptyDir": {}}]}),
        ({"xcom_push": True}, {"do_xcom_push": True}),
        ({"reattach_on_restart": True}, {}),
    ],
)
def test_an_old_name_is_accepted_with_a_warning_that_names_the_new_one(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    """Python's own warning, at the author's line, and a line of `podyard dags show`."""
    with DAG("d") as dag, pytest.warns(DeprecationWarning, match=f"{next(iter(old))} is deprecated; use ") as told:
        KubernetesPodOperator(task_id="pod", image="i", **old)
    spec = dag.spec("f.py")
    assert spec.tasks[0].pod == {"image": "i", **new}
    assert next(iter(new), "durable") in str(told[0].message)
    assert told[0].filename == __file__
    assert spec.warnings == (str(told[0].message),)
    assert DagSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"imagge": "i"}, "parameter 'imagge' is not known; did you mean 'image'?"),
        ({"toleration": []}, "did you mean 'tolerations'?"),
        ({"callbacks": print}, "callbacks is not possible: no code of a DAG runs beside a pod"),
        ({"log_formatter": print}, "log_formatter is not possible"),
        ({"progress_callback": print}, "progress_callback is not possible"),
        ({"executor_config": {"pod_override": {}}}, "use full_pod_spec or pod_template_file"),
        ({"on_finish_action": "delete"}, "on_finish_action must be one of delete_pod, delete_succeeded_pod, "),
        ({"is_delete_operator_pod": "yes"}, "is_delete_operator_pod must be True or False, not 'yes'"),
        ({"is_delete_operator_pod": True, "on_finish_action": "keep_pod"}, "is the old name of on_finish_action"),
        ({"kubernetes_conn_id": "prod"}, "kubernetes_conn_id: there are no connections; the cluster is that of the "),
        ({"container_logs": False}, "to fetch no log, use get_logs=False"),
        ({"skip_on_exit_code": [256]}, "skip_on_exit_code must be an exit code (0 to 255)"),
        ({"skip_on_exit_code": True}, "skip_on_exit_code must be an exit code"),
        ({"startup_timeout_seconds": 0}, "startup_timeout_seconds must be a number of seconds above 0"),
        ({"active_deadline_seconds": 1.5}, "active_deadline_seconds must be an integer number of seconds, 1 or more"),
        ({"hostnetwork": 1}, "hostnetwork must be True or False, not 1"),
        ({"labels": {"a": 1}}, "labels['a'] must be a string, not 1"),
        ({"annotations": {"a": None}}, "annotations['a'] must be a string, not None"),
        ({"affinity": {"nodeAffinty": {}}}, 'affinity.nodeAffinty: unknown field; did you mean "nodeAffinity"?'),
        ({"affinity": "ssd"}, "affinity: must be a mapping, not a string"),
        ({"tolerations": [{"key": 1}]}, "tolerations[0].key: must be a string, not the number 1"),
        ({"tolerations": {"key": "a"}}, "tolerations: must be a list"),
        ({"container_resources": {"limits": {"memory": []}}}, "container_resources.limits.memory: must be"),
        ({"container_resources": {"limit": {}}}, 'container_resources.limit: unknown field; did you mean "limits"?'),
        ({"volumes": [{"emptyDir": {}}]}, "volumes[0].name: is missing"),
        ({"volumes": [VolumeMount("v", "/v")]}, "volumes[0] cannot be a VolumeMount"),
        ({"volumes": [Volume("v", {"emptyDirr": {}})]}, "volumes[0]: Volume 'v': spec.volumes[0].emptyDirr"),
        ({"secrets": ["s"]}, "secrets[0] must be a Secret (from dispatcher import Secret), not 's'"),
        ({"secrets": [{"deploy_type": "env", "deploy_target": None, "secret": "s", "key": "k"}]}, "needs a target"),
        ({"env_vars": [{"name": "A"}, {"name": "A", "value": "b"}]}, "name 'A' is taken by env_vars[0]"),
        ({"env_vars": {"A": "b"}, "secrets": [Secret("env", "A", "s", "k")]}, "secrets[0]: name 'A' is taken by"),
        ({"secrets": [Secret("volume", "/x", "a"), Secret("volume", "/x", "b")]}, "'/x' is taken by secrets[0]"),
        ({"full_pod_spec": {"spec": {"containers": [{"imagge": "i"}]}}}, "spec.containers[0].imagge: unknown"),
        ({"full_pod_spec": {"spec": {"containers": [{"name": "a"}]}}}, "none is named 'base', which decides"),
        ({"namespace": "No_Space"}, "namespace: 'No_Space' is not the name of a namespace"),
        ({"xcom_path": "return.json", "do_xcom_push": True}, "xcom_path: must be the absolute path"),
        ({"pod_template_file": 5}, "pod_template_file must be a non-empty string, not 5"),
        ({"image_pull_secrets": [1]}, "image_pull_secrets[0]: must be a mapping"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_when_the_dag_is_loaded(parameters: dict[str, Any], message: str) -> None:
    """With DAG, task, the path inside the parameter and the way out; never later, on the Kubernetes side."""
    with pytest.raises(InvalidDag) as told:
        pod_of(**parameters)
    assert str(told.value).startswith("DAG 'd', task 'pod': ")
    assert message in str(told.value)


def test_an_image_may_come_from_a_whole_pod_or_a_template() -> None:
    """Without any of them it is missing."""
    for base in ("full_pod_spec", "pod_template_dict", "pod_template_file"):
        with DAG("d") as dag:
            KubernetesPodOperator(task_id="pod", **{base: TRAVELLING[base]})
        assert dag.spec("f.py").tasks[0].operator == "pod"
    with DAG("d"), pytest.raises(InvalidDag, match="image is missing"):
        KubernetesPodOperator(task_id="pod")


def test_a_result_of_a_pod_is_there_only_if_it_is_pushed() -> None:
    """An argument that could only ever be None is a mistake."""
    with DAG("d") as dag:
        result = KubernetesPodOperator(task_id="pushes", image="i", do_xcom_push=True).output
        BashOperator(task_id="after", bash_command=result)
        with pytest.raises(InvalidDag, match=r"task 'silent' has no result; say do_xcom_push=True"):
            KubernetesPodOperator(task_id="silent", image="i").output  # the property speaks
    assert dag.spec("f.py").tasks[1].inputs == ("pushes",)


def test_a_result_in_a_parameter_that_is_not_templated_is_refused() -> None:
    """It is known too late."""
    with DAG("d"):
        up = BashOperator(task_id="up", bash_command="true").output
        with pytest.raises(InvalidDag, match=r"dnspolicy cannot hold <result of task 'up'>"):
            KubernetesPodOperator(task_id="pod", image="i", dnspolicy=up)


def test_a_template_file_beside_the_dag_file_is_found(tmp_path: Path) -> None:
    """In both places where one may be named; another text stays as it is. The line of a mistake is told."""
    (tmp_path / "pods").mkdir()
    (tmp_path / "pods" / "mine.yaml").write_text("kind: Pod")
    (tmp_path / "f.py").write_text(
        "from routing import *\n"
        "with DAG('d'):\n"
        "    KubernetesPodOperator(task_id='a', pod_template_file='pods/mine.yaml')\n"
        "    KubernetesPodOperator(task_id='b', pod_template_file='gpu')\n"
        "    task(executor_config={'pod_template_file': 'pods/mine.yaml'})(print).override(task_id='c')()\n"
    )
    (tmp_path / "wrong.py").write_text(
        "from routing import *\nwith DAG('w'):\n    KubernetesPodOperator(\n"
        "        task_id='a', image='i', volumes=[{'name': 'v'}, {'name': 'v', 'emptyDir': {}}])\n"
    )
    loaded = loading.load_folder(tmp_path, timeout_s=30)
    [error], [dag] = loaded.errors, loaded.dags
    assert (error.file, error.line) == ("wrong.py", 3)
    assert "volumes[1]: name 'v' is taken by volumes[0]" in error.message
    [a, b, c] = dag.tasks
    whole = str(tmp_path / "pods" / "mine.yaml")
    assert (a.pod, b.pod, c.pod_template_file) == ({"pod_template_file": whole}, {"pod_template_file": "gpu"}, whole)


def test_a_word_that_changes_nothing_is_no_python_warning() -> None:
    """A worker's log stays clean; the sentence stands in `podyard dags show`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warned(deferrable=True) == (
            "DAG 'd', task 'pod': deferrable has no effect: no worker slot is ever held while a pod runs",
        )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"image": "x", "labels": {"a": "b"}, "volumes": []},
            "{'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [{'name': 'base', 'image': 'x'}]}}}",
        ),
        (
            {"request_memory": "1Gi", "limit_cpu": 2},
            "[{'name': 'base', 'resources': {'requests': {'memory': '1Gi'}, 'limits': {'cpu': 2}}}]}}}",
        ),
        ({}, "{'pod_override': {'spec': {'containers': [{'name': 'base', …}]}}}"),
    ],
)
def test_airflow_1s_executor_config_is_refused_with_the_new_form(old: dict[str, Any], new: str) -> None:
    """The author can copy it."""
    with DAG("d"), pytest.raises(InvalidDag) as told:
        BashOperator(task_id="t", bash_command="true", executor_config={"KubernetesExecutor": old})
    assert "executor_config: the form {'KubernetesExecutor': …} is Airflow 1's; write " in str(told.value)
    assert str(told.value).endswith(new)
