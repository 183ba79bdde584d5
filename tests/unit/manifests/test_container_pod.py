"""What a sender of `dispatcher.pod` asks for becomes one override, or one sentence that names the path."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.manifests import container_pod, container_pod_options, merge, pod_schema
from tests import builders

DOCS = Path(__file__).parents[3] / "docs"
SECRET = {"type": "env", "target": "TOKEN", "secret": "keys", "key": "token"}

EVERYTHING: dict[str, Any] = {
    "active_deadline_seconds": 600,
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "annotations": {"team": "a"},
    "arguments": ["--all"],
    "automount_service_account_token": True,
    "base_container_name": "main",
    "base_container_status_polling_interval": 1,
    "cluster_context": "here",
    "cmds": ["run"],
    "config_file": "/etc/kubeconfig",
    "configmaps": ["settings"],
    "container_logs": ["main"],
    "container_name_log_prefix_enabled": False,
    "container_resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": 1}},
    "container_security_context": {"runAsUser": 0},
    "deferrable": True,
    "dns_config": {"nameservers": ["10.0.0.1"]},
    "dnspolicy": "None",
    "do_xcom_push": True,
    "durable": True,
    "env_from": [{"secretRef": {"name": "all"}}],
    "env_vars": {"LEVEL": "3"},
    "full_pod_spec": {"spec": {"containers": [{"image": "whole", "workingDir": "/w"}], "nodeName": "n"}},
    "get_logs": True,
    "host_aliases": [{"ip": "10.0.0.2", "hostnames": ["db"]}],
    "hostname": "h",
    "hostnetwork": False,
    "image": "busybox",
    "image_pull_policy": "Never",
    "image_pull_secrets": "one, two",
    "in_cluster": False,
    "init_container_logs": True,
    "init_containers": [{"name": "first", "image": "i"}],
    "is_delete_operator_pod": False,
    "labels": {"tier": "gold", "none": None},
    "log_events_on_failure": False,
    "log_events_on_startup": True,
    "log_pod_spec_on_failure": True,
    "logging_interval": 5,
    "name": "My Pod",
    "namespace": "jobs",
    "node_selector": {"disk": "ssd"},
    "on_finish_action": "keep_pod",
    "on_kill_action": "keep_pod",
    "pod_runtime_info_envs": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    "pod_template_dict": {"metadata": {"labels": {"from": "template"}}},
    "pod_template_file": "gpu",
    "poll_interval": 2,
    "ports": [{"containerPort": 80}],
    "priority_class_name": "high",
    "random_name_suffix": True,
    "reattach_on_restart": True,
    "runtime_class_name": "gvisor",
    "schedule_timeout_seconds": 30,
    "schedulername": "own",
    "secrets": [SECRET, {"type": "volume", "target": "/keys", "secret": "keys"}, {"type": "env", "secret": "more"}],
    "security_context": {"fsGroup": 1000},
    "service_account_name": "robot",
    "skip_on_exit_code": 99,
    "startup_check_interval_seconds": 5,
    "startup_timeout_seconds": 60.5,
    "subdomain": "s",
    "termination_grace_period": 0,
    "termination_message_policy": "File",
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "volume_mounts": [{"name": "data", "mountPath": "/data"}],
    "volumes": [{"name": "data", "configs": {"persistentVolumeClaim": {"claimName": "c"}}}],
    "xcom_path": "/out/result.json",
    "xcom_sidecar_container_security_context": {"runAsUser": 1000},
}


def base_of(request: container_pod.PodRequest) -> dict[str, Any]:
    return builders.container_of(request.override, request.options.base)


def problem(**arguments: Any) -> str:
    with pytest.raises(errors.InvalidPod) as caught:
        container_pod.read(arguments)
    return str(caught.value).removeprefix("dispatcher.pod: ")


def test_every_parameter_is_taken() -> None:
    """The list of the reference's section 17, each with a value."""
    assert set(EVERYTHING) == container_pod.PARAMETERS
    container_pod.read(EVERYTHING)


def test_every_parameter_is_documented() -> None:
    """In docs/pods.md, or where it has no effect, where Airflow is compared."""
    words = (DOCS / "pods.md").read_text() + (DOCS / "airflow-differences.md").read_text()
    assert {name for name in container_pod.PARAMETERS if f"`{name}`" not in words} == set()


def test_the_manifests_half_is_an_override_by_the_rules_of_the_api() -> None:
    """Every field lands where Kubernetes has it; the whole spec lies below the single arguments."""
    request = container_pod.read(EVERYTHING)
    base = base_of(request)

    assert pod_schema.plain_pod(request.override, keep_nulls=True) == request.override
    assert (base["image"], base["workingDir"], base["command"], base["args"]) == ("busybox", "/w", ["run"], ["--all"])
    assert [one["name"] for one in base["env"]] == ["LEVEL", "IP", "TOKEN"]
    assert base["envFrom"] == [
        {"secretRef": {"name": "all"}},
        {"configMapRef": {"name": "settings"}},
        {"secretRef": {"name": "more"}},
    ]
    assert [mount["mountPath"] for mount in base["volumeMounts"]] == ["/data", "/keys"]
    spec = request.override["spec"]
    assert spec["volumes"][0] == {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}
    assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    assert (spec["hostNetwork"], spec["terminationGracePeriodSeconds"], spec["nodeName"]) == (False, 0, "n")
    assert (spec["dnsPolicy"], spec["schedulerName"], spec["priorityClassName"]) == ("None", "own", "high")
    assert request.labels == {"tier": "gold", "none": None}
    assert (request.name, request.namespace, request.template_file) == ("My Pod", "jobs", "gpu")


def test_the_other_half_is_options() -> None:
    """What happens around the pod."""
    assert container_pod.read(EVERYTHING).options == container_pod_options.PodOptions(
        base="main",
        on_finish_action="keep_pod",
        on_kill_action="keep_pod",
        skip_on_exit_code=frozenset({99}),
        schedule_timeout_s=30,
        startup_timeout_s=60.5,
        result_path="/out/result.json",
        logs=container_pod_options.Logs(containers=("main",), is_all_inits=True, has_prefix=False, has_events=False),
    )


def test_nothing_given_is_nothing_asked() -> None:
    """And None counts as not given."""
    assert container_pod.read({}).options == container_pod_options.PodOptions()
    assert container_pod.read(dict.fromkeys(EVERYTHING)) == container_pod.read({})


def test_the_arguments_stay_as_they_are() -> None:
    """They travel on in the message."""
    before = copy.deepcopy(EVERYTHING)
    container_pod.read(EVERYTHING)
    assert before == EVERYTHING


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"imagge": "x"}, 'imagge: unknown argument; did you mean "image"?'),
        ({"callbacks": []}, "callbacks: functions cannot travel"),
        ({"image": 3}, "image: must be a string, not the number 3; put it in quotes"),
        ({"cmds": "sh"}, "cmds: must be a list, not a string"),
        ({"arguments": ["-n", 3]}, "arguments[1]: must be a string, not the number 3; put it in quotes"),
        ({"env_vars": {"N": 3}}, "env_vars.N: must be a string, not the number 3; put it in quotes"),
        ({"env_vars": [{"value": "x"}]}, "env_vars[0].name: is missing"),
        (
            {"env_vars": [{"name": "A", "value_from": {}}]},
            'env_vars[0].value_from: unknown field; did you mean "valueFrom"?',
        ),
        (
            {"tolerations": [{"toleration_seconds": 3}]},
            "tolerations[0].toleration_seconds: unknown field; did you mean",
        ),
        ({"affinity": {"node_affinity": {}}}, 'affinity.node_affinity: unknown field; did you mean "nodeAffinity"?'),
        ({"affinity": []}, "affinity: must be a mapping, not a list"),
        ({"volumes": [{"name": "v", "hostpath": {}}]}, 'volumes[0].hostpath: unknown field; did you mean "hostPath"?'),
        ({"volume_mounts": [{"name": "v", "mount_path": "/v"}]}, 'did you mean "mountPath"?'),
        (
            {"volume_mounts": [{"name": "a", "mountPath": "/v"}, {"name": "b", "mountPath": "/v"}]},
            "volume_mounts[1]: mountPath '/v' is taken by volume_mounts[0]",
        ),
        ({"secrets": [SECRET, {**SECRET, "key": "other"}]}, "secrets[1]: name 'TOKEN' is taken by secrets[0]"),
        ({"secrets": [SECRET], "env_vars": {"TOKEN": "x"}}, "secrets[0]: name 'TOKEN' is taken by env_vars['TOKEN']"),
        ({"secrets": [{"type": "env", "secret": "s", "key": "k"}]}, "a key needs a target"),
        ({"secrets": [{"kind": "env"}]}, "secrets[0].kind: unknown field; a secret has"),
        ({"secrets": ["keys"]}, "secrets[0]: must be a mapping, not a text"),
        ({"labels": ["a"]}, "labels: must be a mapping, not a list"),
        ({"labels": {"a": 1}}, "labels.a: must be a string, not the number 1; put it in quotes"),
        ({"namespace": "My Jobs"}, "namespace: 'My Jobs' is not the name of a namespace"),
        ({"hostnetwork": "yes"}, "hostnetwork: must be true or false, not a string; write it without quotes"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy: must be one of Always, IfNotPresent, Never"),
        ({"on_finish_action": "delete"}, "on_finish_action: must be one of delete_pod, "),
        ({"is_delete_operator_pod": True, "on_finish_action": "keep_pod"}, "is_delete_operator_pod: contradicts"),
        ({"skip_on_exit_code": [1, "2"]}, "skip_on_exit_code: must be an exit code from 0 to 255"),
        ({"startup_timeout_seconds": 0}, "startup_timeout_seconds: must be a number of seconds above 0"),
        ({"xcom_path": "return.json"}, "xcom_path: must be the absolute path of a file in a folder of its own"),
        ({"full_pod_spec": {"spec": {"containres": []}}}, "full_pod_spec.spec.containres: unknown field; did you mean"),
        (
            {"full_pod_spec": {"spec": {"containers": [{"name": "main", "image": "x"}]}}},
            "none is named 'base', which decides; name one so, or say base_container_name='main'",
        ),
        (
            {"container_resources": {"limits": {"memory": True}}},
            "container_resources.limits.memory: must be a quantity",
        ),
        ({"init_containers": [{"name": "a", "restart_policy": "Always"}]}, 'did you mean "restartPolicy"?'),
        ({"active_deadline_seconds": "1h"}, "active_deadline_seconds: must be an integer, not a string"),
        ({"ports": [{}]}, "ports[0].containerPort: is missing"),
        ({"init_containers": [{"image": "x"}]}, "init_containers[0].name: is missing"),
        (
            {"init_containers": [{"name": "a", "env": [{}]}]},
            "init_containers[0].env[0].name: is missing",
        ),
        (
            {"full_pod_spec": {"spec": {"containers": [{"name": "base", "ports": [{}]}]}}},
            "full_pod_spec.spec.containers[0].ports[0].containerPort: is missing",
        ),
    ],
)
def test_a_mistake_is_told_with_its_path_and_the_way_out(arguments: dict[str, Any], words: str) -> None:
    assert words in problem(**arguments)


def test_no_value_of_an_author_is_in_an_error() -> None:
    """It may be a secret."""
    assert "hunter2" not in problem(env_vars=[{"name": "A", "value": ["hunter2"]}])


def test_the_same_volume_of_two_secrets_is_there_once() -> None:
    """Two mounts of one secret at two places are two volumes; the very same twice is one."""
    one = {"type": "volume", "target": "/a", "secret": "s"}
    request = container_pod.read({"secrets": [one, one, {**one, "target": "/b"}]})
    assert len(request.override["spec"]["volumes"]) == len(base_of(request)["volumeMounts"]) == 2


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(container_pod.PARAMETERS)), _JSON, max_size=4))
def test_whatever_is_given_it_is_read_or_refused(arguments: dict[str, Any]) -> None:
    """Nothing else is ever raised, and what is read can be merged."""
    try:
        request = container_pod.read(arguments)
    except errors.InvalidPod:
        return
    merge.merge_pod({}, request.override)
