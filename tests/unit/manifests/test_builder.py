"""From message to manifest: golden files for each template and each kind of override, the hook, and what is refused.

The files in `golden/` are what is launched. After a wanted change run this file with PODYARD_UPDATE_GOLDEN=1 in the
environment, and read the difference.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from dispatcher import errors
from dispatcher.manifests import builder, labels, names, pod_schema, workload
from dispatcher.options import Options, QueueProfile
from dispatcher.policy import Policy
from dispatcher.protocol.message import Message
from tests import builders

GOLDEN = Path(__file__).parent / "golden"
TEMPLATES = sorted(file.stem for file in (Path(__file__).parents[3] / "templates").glob("*.yaml"))
OPTIONS = Options(profile_for=lambda _: QueueProfile(), app_path="shop:app", deployment="prod", image="shop:1.2")

V1POD = client.V1Pod(
    metadata=client.V1ObjectMeta(labels={"team": "b"}),
    spec=client.V1PodSpec(
        host_network=False,
        tolerations=[client.V1Toleration(key="spot", operator="Exists")],
        containers=[
            client.V1Container(
                name="base",
                env=[client.V1EnvVar(name="LEVEL", value="3")],
                volume_mounts=[client.V1VolumeMount(name="data", mount_path="/data")],
            )
        ],
        volumes=[
            client.V1Volume(
                name="data",
                persistent_volume_claim=client.V1PersistentVolumeClaimVolumeSource(claim_name="data"),
            )
        ],
    ),
)
OVERRIDES: dict[str, Any] = {
    "none": None,
    "mapping": {
        "metadata": {"labels": {"team": "a", "podyard.dev/deployment": "mine"}, "annotations": {"note": ""}},
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "securityContext": {"runAsUser": 0, "runAsNonRoot": False, "seccompProfile": None},
            "containers": [
                {
                    "image": "shop:override",
                    "env": [{"name": "LEVEL", "value": ""}, {"name": "PODYARD_APP", "value": "other:app"}],
                    "resources": {"limits": {"memory": "8Gi"}},
                }
            ],
        },
    },
    "v1pod": pod_schema.plain_pod(V1POD, keep_nulls=False),  # as it travels in a message
    "sidecar": {
        "spec": {
            "initContainers": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}],
            "containers": [{"name": "base"}, {"name": "metrics", "image": "metrics:1", "args": ["--all"]}],
        }
    },
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "image": {"image": "busybox:1.37"},
    "arguments": {
        "image": "ubuntu:16.04",
        "namespace": "default",
        "name": "test",
        "cmds": ["bash", "-cx"],
        "arguments": ["echo", "10"],
        "labels": {"foo": "bar", "when": "2030-01-31T12:00:00+00:00"},
        "secrets": [
            {"type": "volume", "target": "/etc/sql_conn", "secret": "airflow-secrets", "key": "sql_alchemy_conn"},
            {"type": "env", "target": "SQL_CONN", "secret": "airflow-secrets", "key": "sql_alchemy_conn"},
            {"type": "env", "secret": "airflow-secrets-2"},
        ],
        "volumes": [{"name": "test-volume", "persistentVolumeClaim": {"claimName": "test-volume"}}],
        "volume_mounts": [{"name": "test-volume", "mountPath": "/root/mount_file", "readOnly": True}],
        "configmaps": ["test-configmap-1", "test-configmap-2"],
        "tolerations": [{"key": "key", "operator": "Equal", "value": "value"}],
        "hostnetwork": False,
        "termination_grace_period": 0,
        "container_resources": {"limits": {"memory": "1Gi"}},
    },
    "result": {"image": "busybox:1.37", "do_xcom_push": True, "init_containers": [{"name": "first", "image": "i"}]},
    "layers": {
        "pod_template_dict": {
            "metadata": {"labels": {"from": "template", "team": "a"}},
            "spec": {"containers": [{"name": "main", "image": "template:1", "env": [{"name": "A", "value": "1"}]}]},
        },
        "full_pod_spec": {
            "metadata": {"labels": {"from": "spec"}},
            "spec": {"containers": [{"name": "main", "image": "spec:1"}, {"name": "beside", "image": "b:1"}]},
        },
        "env_vars": {"B": "2"},
        "base_container_name": "main",
    },
}


def message(name: str = "routing.run", /, *, headers: Mapping[str, Any] | None = None, **kwargs: Any) -> Message:
    task_id = "0b8f5ad4-9f0e-4a53-9a7b-111122223333"
    return builders.message(task_id, name=name, kwargs=kwargs, headers={"retries": 1, **(headers or {})})


def wishing(**wishes: Any) -> dict[str, Any]:
    return {"podyard": {"name": ["census", "größe"], "labels": {"run_id": "manual 1", "task_id": "größe"}, **wishes}}


def build(
    sent: Message, *, profile: QueueProfile | None = None, options: Options = OPTIONS, owner: str = "dispatcher@host"
) -> dict[str, Any]:
    return builder.build(sent, profile=profile or QueueProfile(), options=options, owner=owner)


def assert_golden(name: str, made: Mapping[str, Any]) -> None:
    file = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=110)
    if os.environ.get("PODYARD_UPDATE_GOLDEN"):
        file.write_text(text)
    assert yaml.safe_load(file.read_text()) == made


@pytest.mark.parametrize("kind", OVERRIDES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_task_pod_is_as_the_golden_file_says(template: str, kind: str) -> None:
    """Each shipped template under each kind of override; that for Airflow with a workload of Airflow."""
    wishes = {} if OVERRIDES[kind] is None else {"pod_override": OVERRIDES[kind]}
    profile = QueueProfile(template=template, env={"LEVEL": "1"})
    sent = message(headers=wishing(**wishes))
    if template == "airflow":
        sent = replace(message(workload.TASK, headers=wishing(**wishes)), args=['{"token": "secret"}'], kwargs={})
    assert_golden(f"{template}.{kind}", build(sent, profile=profile))


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_a_pod_of_any_image_is_as_the_golden_file_says(kind: str) -> None:
    """Nothing of a template of ours is in it."""
    made = build(message(builder.ANY_IMAGE_TASK, headers=wishing(), **ARGUMENTS[kind]))
    assert_golden(f"any-image.{kind}", made)


def test_no_golden_file_is_left_over() -> None:
    """What is not made is not kept."""
    wanted = {f"{template}.{kind}.yaml" for template in TEMPLATES for kind in OVERRIDES}
    wanted |= {f"any-image.{kind}.yaml" for kind in ARGUMENTS}
    assert {file.name for file in GOLDEN.iterdir()} == wanted


def test_the_image_comes_from_override_queue_settings_template() -> None:
    """In this order."""

    def image(made: dict[str, Any]) -> str:
        return str(made["spec"]["containers"][0]["image"])

    override = {"podyard": {"pod_override": {"spec": {"containers": [{"image": "override"}]}}}}
    queue = QueueProfile(image="queue")
    assert image(build(message(headers=override), profile=queue)) == "override"
    assert image(build(message(), profile=queue)) == "queue"
    assert image(build(message())) == "shop:1.2"
    assert image(build(message(), options=replace(OPTIONS, image=None))) == "podyard:latest"


def add_team(pod: dict[str, Any]) -> None:
    """A hook that changes what it is given, and tries what it may not."""
    pod["metadata"].setdefault("labels", {})["team"] = "site"
    pod["metadata"]["name"] = "mine"
    pod["spec"]["restartPolicy"] = "Always"
    pod["spec"]["containers"][0]["command"] = ["rm"]


def another_pod(pod: dict[str, Any]) -> dict[str, Any]:
    """A hook that returns another one."""
    return {**pod, "spec": {**pod["spec"], "schedulerName": "own"}}


def raises(pod: dict[str, Any]) -> None:
    """A hook that does not like the pod."""
    raise LookupError("no team")


def misspells(pod: dict[str, Any]) -> None:
    """A hook with a typo."""
    pod["spec"]["nodeSelektor"] = {}


class TestHook:
    def build(self, hook: str) -> dict[str, Any]:
        return build(message(), options=replace(OPTIONS, pod_mutation_hook=f"{__name__}:{hook}"))

    def test_it_changes_the_pod_but_not_its_identity(self) -> None:
        made = self.build("add_team")
        assert made["metadata"]["labels"]["team"] == "site"
        assert made["metadata"]["name"] == names.pod_name(
            "routing.run", key="prod/0b8f5ad4-9f0e-4a53-9a7b-111122223333/1"
        )
        assert made["spec"]["restartPolicy"] == "Never"
        assert made["spec"]["containers"][0]["command"] == list(builder.COMMAND)

    def test_it_may_return_another_pod(self) -> None:
        assert self.build("another_pod")["spec"]["schedulerName"] == "own"

    def test_what_it_raises_is_the_failure_of_this_pod_alone(self) -> None:
        with pytest.raises(errors.InvalidPod, match="raises raised LookupError: no team"):
            self.build("raises")

    def test_what_it_leaves_is_checked(self) -> None:
        with pytest.raises(errors.InvalidPod, match=r'spec\.nodeSelektor: unknown field; did you mean "nodeSelector"'):
            self.build("misspells")

    def test_one_that_cannot_be_imported_is_named(self) -> None:
        with pytest.raises(errors.DispatcherError, match=r"pod_mutation_hook = '.*:nobody': cannot be imported"):
            self.build("nobody")


class TestNamespaces:
    def test_a_task_may_choose_one_that_the_policy_allows(self) -> None:
        options = replace(OPTIONS, policy=Policy(namespaces=("jobs-*",)))
        override = {"podyard": {"pod_override": {"metadata": {"namespace": "jobs-a"}}}}
        assert build(message(headers=override), options=options)["metadata"]["namespace"] == "jobs-a"
        sent = message(builder.ANY_IMAGE_TASK, image="x", namespace="jobs-b")
        assert build(sent, options=options)["metadata"]["namespace"] == "jobs-b"

    def test_no_other_one(self) -> None:
        override = {"podyard": {"pod_override": {"metadata": {"namespace": "kube-system"}}}}
        with pytest.raises(errors.InvalidPod, match=r"metadata\.namespace: 'kube-system' is not allowed"):
            build(message(headers=override))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, r"spec.containers\[0\].image: is missing"),
        ({"image": "x", "config_file": "/elsewhere"}, "config_file: is /elsewhere"),
        ({"image": "x", "cluster_context": "other"}, "cluster_context: is 'other'"),
        ({"image": "x", "labels": {"a b": "c"}}, "metadata.labels: 'a b' is not a label key"),
        (
            {"image": "x", "pod_template_dict": {"spec": {"containers": [{"name": "main", "image": "i"}]}}},
            "none is named 'base', which decides",
        ),
        ({"image": "x", "annotations": {"note": "x" * 300_000}}, "metadata.annotations: 600499 bytes"),
        ({"image": "x", "pod_template_file": "/nowhere.yaml"}, "/nowhere.yaml"),
        ({"image": "x", "do_xcom_push": True, "volumes": [{"name": "podyard-result", "emptyDir": {}}]}, "do_xcom_push"),
    ],
)
def test_what_cannot_be_launched_says_why(arguments: dict[str, Any], words: str) -> None:
    """Before any call to the API."""
    with pytest.raises(errors.DispatcherError, match=words):
        build(message(builder.ANY_IMAGE_TASK, **arguments))


def test_arguments_by_position_are_refused() -> None:
    """They would be dropped otherwise."""
    with pytest.raises(errors.InvalidPod, match="takes its arguments by name"):
        build(replace(message(builder.ANY_IMAGE_TASK, image="x"), args=["busybox"]))


def test_the_container_that_decides_is_written_on_the_pod() -> None:
    """So that whoever adopts the pod knows; an override cannot claim another one."""
    sent = message(builder.ANY_IMAGE_TASK, image="x", base_container_name="main")
    assert labels.base_of(build(sent)) == "main"
    claim = {"metadata": {"annotations": {labels.CONTAINER_ANNOTATION: "other"}}}
    assert labels.base_of(build(message(headers={"podyard": {"pod_override": claim}}))) == "base"


def test_ids_of_five_hundred_characters_fit() -> None:
    """In the name, in labels, and whole in annotations."""
    long = "größe/" * 85
    made = build(message(headers={"podyard": {"name": [long, long], "labels": {"run_id": long}}}))
    assert len(made["metadata"]["name"]) <= 63
    assert all(len(value) <= 63 for value in made["metadata"]["labels"].values())


LEARNED = {"growths": 1, "memory_limit": "1Gi", "avoid_nodes": ["n1"]}


@pytest.mark.parametrize(
    "sent",
    [
        message(headers=wishing(lessons=LEARNED)),
        message(builder.ANY_IMAGE_TASK, headers=wishing(lessons=LEARNED), image="busybox:1.37"),
    ],
    ids=["task pod", "any image"],
)
def test_what_earlier_attempts_teach_is_in_the_manifest(sent: Message) -> None:
    """After template and override; a first attempt has nothing of it."""
    made = build(sent)
    assert made["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1Gi"
    assert "growth 1" in made["metadata"]["annotations"]["podyard.dev/memory-growth"]
    assert "'n1'" in str(made["spec"]["affinity"])
    first = build(replace(sent, headers={**sent.headers, **wishing()}))
    assert "affinity" not in first["spec"]
    assert "podyard.dev/memory-growth" not in first["metadata"]["annotations"]


def test_lessons_that_cannot_be_read_fail_the_one_task() -> None:
    """Anybody may write a header."""
    with pytest.raises(errors.InvalidOverride, match=r"podyard\.lessons\.memory_limit"):
        build(message(headers=wishing(lessons={"memory_limit": "all"})))
