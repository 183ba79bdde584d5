"""A manifest says what template, profile and override say, and whose attempt it is whatever they say."""

import copy
import re
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from dispatcher import errors
from dispatcher.manifests import labels, names, podspec, template
from tests import builders

TEMPLATE: dict[str, Any] = {
    "metadata": {"name": "replaced", "labels": {"team": "a"}, "namespace": "elsewhere"},
    "spec": {
        "restartPolicy": "OnFailure",
        "serviceAccountName": "tasks",
        "containers": [
            {"name": "sidecar", "image": "s"},
            {"name": "base", "image": "i", "args": ["old"], "env": [{"name": "A", "value": "template"}]},
        ],
    },
}
IDENTITY = podspec.Identity(
    deployment="prod",
    attempt_id="0b8f5ad4-9f0e-4a53-9a7b-111122223333",
    retries=2,
    queue="gpu queue",
    task="routing.run",
    owner="dispatcher@host",
    message='{"id": "0b8f"}',
    name=("census", "count"),
)
COMMAND = ["python", "-m", "dispatcher.pod"]


def build(**changes: Any) -> dict[str, Any]:
    given_ = {"template": TEMPLATE, "identity": IDENTITY, "namespace": "work", "command": COMMAND, **changes}
    return podspec.build_pod(**given_)


def env_of(pod: dict[str, Any]) -> dict[str, Any]:
    return {
        entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in builders.container_of(pod).get("env", [])
    }


def in_base(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "base", **fields}]}}


def test_the_whole_manifest_of_a_task_pod() -> None:
    pod = build(
        image="queue:1",
        env={"A": "queue", "PODYARD_APP": "app:app"},
        labels={"dag_id": "census", "run_id": "manual run", "none": None},
        override=in_base(resources={"limits": {"memory": "1Gi"}}),
    )
    assert pod == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.pod_name("census", "count", key="prod/0b8f5ad4-9f0e-4a53-9a7b-111122223333/2"),
            "namespace": "work",
            "labels": {
                "team": "a",
                "dag_id": "census",
                "run_id": names.label_value("manual run"),
                "none": "",
                "app.kubernetes.io/managed-by": "podyard",
                "podyard.dev/deployment": "prod",
                "podyard.dev/queue": names.label_value("gpu queue"),
                "podyard.dev/attempt": "0b8f5ad4-9f0e-4a53-9a7b-111122223333",
                "podyard.dev/task": "routing.run",
                "podyard.dev/owner": names.label_value("dispatcher@host"),
            },
            "annotations": {
                "podyard.dev/attempt-id": "0b8f5ad4-9f0e-4a53-9a7b-111122223333",
                "podyard.dev/retries": "2",
                "podyard.dev/queue": "gpu queue",
                "podyard.dev/task": "routing.run",
                "podyard.dev/message": '{"id": "0b8f"}',
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "tasks",
            "containers": [
                {"name": "sidecar", "image": "s"},
                {
                    "name": "base",
                    "image": "queue:1",
                    "command": COMMAND,
                    "env": [
                        {"name": "A", "value": "queue"},
                        {"name": "PODYARD_APP", "value": "app:app"},
                        {
                            "name": "PODYARD_MESSAGE",
                            "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['podyard.dev/message']"}},
                        },
                    ],
                    "resources": {"limits": {"memory": "1Gi"}},
                },
            ],
        },
    }


@pytest.mark.parametrize(
    ("changes", "image"),
    [
        ({}, "i"),
        ({"image": "queue:1"}, "queue:1"),
        ({"image": "queue:1", "override": in_base(image="mine:2")}, "mine:2"),
        ({"image": "", "override": in_base(image="")}, "i"),
    ],
)
def test_the_image_is_the_overrides_else_the_queues_else_the_templates(changes: dict[str, Any], image: str) -> None:
    assert builders.container_of(build(**changes))["image"] == image


def test_an_override_wins_over_the_queues_environment_but_not_over_ours() -> None:
    pod = build(
        env={"A": "queue", "B": "queue", "PODYARD_APP": "app:app"},
        override=in_base(
            env=[
                {"name": name, "value": "override"} for name in ("B", "PODYARD_APP", "PODYARD_MESSAGE", "PODYARD_OTHER")
            ]
        ),
    )
    env = env_of(pod)
    assert (env["A"], env["B"], env["PODYARD_APP"], env["PODYARD_OTHER"]) == (
        "queue",
        "override",
        "app:app",
        "override",
    )
    assert "fieldRef" in env["PODYARD_MESSAGE"]


def test_an_override_cannot_claim_another_identity() -> None:
    ours = build()["metadata"]
    claims = {
        "apiVersion": "v9",
        "kind": "Node",
        "metadata": {
            "name": "other",
            "generateName": "other-",
            "namespace": "work",
            "labels": {key: "other" for key in ours["labels"] if key != "team"} | {"dag_id": "other", "mine": "m"},
            "annotations": {**dict.fromkeys(ours["annotations"], "other"), "mine": "m"},
        },
        "status": {"phase": "Succeeded"},
    }
    pod = build(override=claims, labels={"dag_id": "census"})
    assert pod == {
        **build(),
        "metadata": {
            **ours,
            "labels": {**ours["labels"], "dag_id": "census", "mine": "m"},
            "annotations": {**ours["annotations"], "mine": "m"},
        },
    }


@pytest.mark.parametrize("field", ["name", "labels", "annotations"])
def test_removing_identity_has_no_effect(field: str) -> None:
    removed = build(override={"metadata": {field: None}})["metadata"]
    ours = build()["metadata"]
    ours["labels"].pop("team")
    removed["labels"].pop("team", None)
    assert removed == ours


def test_labels_that_look_like_ours_are_ours() -> None:
    given = {labels.DEPLOYMENT_LABEL: "other", labels.MANAGED_BY_LABEL: "other"}
    assert build(labels=given)["metadata"]["labels"] == build()["metadata"]["labels"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (in_base(command=["sh"]), r"spec\.containers\[0\]\.command: cannot be overridden"),
        (in_base(args=["x"]), r"spec\.containers\[0\]\.args: cannot be overridden"),
        (in_base(command=None), r"spec\.containers\[0\]\.command: cannot be overridden"),
        (in_base(terminationMessagePath="/x"), r"spec\.containers\[0\]\.terminationMessagePath: cannot be overridden"),
        ({"spec": {"containers": [{"args": ["x"]}]}}, r"spec\.containers\[0\]\.args: cannot be overridden"),
        (
            {"spec": {"containers": [{"name": "a"}, {"name": "base", "args": ["x"]}]}},
            r"spec\.containers\[1\]\.args: cannot be overridden",
        ),
        (in_base(restartPolicy="Always"), r"spec\.containers\[0\]\.restartPolicy: cannot be overridden"),
        (in_base(restartPolicyRules=[{"action": "Restart"}]), r"spec\.containers\[0\]\.restartPolicy: cannot be"),
        ({"spec": {"restartPolicy": "Always"}}, r"spec\.restartPolicy: cannot be overridden: .*Never"),
        ({"metadata": {"namespace": "other"}}, r"metadata\.namespace: cannot be overridden: .*'work'"),
        ({"spec": {"contianers": []}}, r'spec\.contianers: unknown field; did you mean "containers"'),
    ],
)
def test_an_override_that_would_run_something_else_is_refused(override: Any, told: str) -> None:
    with pytest.raises(errors.InvalidOverride, match=told):
        build(override=override)


@pytest.mark.parametrize(
    "override",
    [
        {"metadata": {"namespace": "work"}},
        {"metadata": {"namespace": ""}},
        {"spec": {"restartPolicy": "Never"}},
        {"spec": {"restartPolicy": None}},
        in_base(command=[], args=[]),
        in_base(restartPolicy="Never"),
    ],
)
def test_an_override_that_changes_nothing_is_no_mistake(override: Any) -> None:
    assert build(override=override) == build()


def test_other_containers_run_what_they_like() -> None:
    override = {"spec": {"containers": [{"name": "sidecar", "command": ["sh"], "args": ["-c", "true"]}]}}
    assert build(override=override)["spec"]["containers"][0] == {
        "name": "sidecar",
        "image": "s",
        "command": ["sh"],
        "args": ["-c", "true"],
    }


def test_a_template_cannot_restart_the_task_container_nor_hide_its_outcome() -> None:
    changed = copy.deepcopy(TEMPLATE)
    changed["spec"]["containers"][1] |= {
        "restartPolicy": "Always",
        "restartPolicyRules": [{"action": "Restart"}],
        "terminationMessagePath": "/elsewhere",
    }
    assert build(template=changed) == build()


def test_arguments_of_the_command_replace_those_of_the_template() -> None:
    assert builders.container_of(build(args=["a"]))["args"] == ["a"]
    assert "args" not in builders.container_of(build())


def test_a_pod_of_any_image_keeps_its_own_command() -> None:
    override = in_base(command=["sh"], args=["-c", "true"], terminationMessagePath="/x")
    pod = build(command=None, override=override, env={"A": "queue", "PODYARD_DAGS__FOLDER": "/dags"})
    assert builders.container_of(pod) == {
        "name": "base",
        "image": "i",
        "command": ["sh"],
        "args": ["-c", "true"],
        "terminationMessagePath": "/x",
        "env": [{"name": "A", "value": "queue"}, {"name": "PODYARD_DAGS__FOLDER", "value": "/dags"}],
    }
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["metadata"] == build()["metadata"]


@pytest.mark.parametrize("restart", [{"spec": {"restartPolicy": "Always"}}, in_base(restartPolicy="Always")])
def test_a_pod_of_any_image_is_not_restarted_either(restart: Any) -> None:
    with pytest.raises(errors.InvalidOverride, match="restartPolicy: cannot be overridden"):
        build(command=None, override=restart)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ({"spec": {"containers": None}}, r"spec\.containers: none is named 'base'"),
        ({"spec": None}, r"spec\.containers: none is named 'base'"),
        (in_base(image=None), r"spec\.containers\[1\]\.image: is missing"),
    ],
)
def test_a_pod_without_its_task_container_is_refused(override: Any, told: str) -> None:
    with pytest.raises(errors.InvalidPod, match=told):
        build(override=override)


def test_a_template_that_is_wrong_is_told() -> None:
    with pytest.raises(errors.InvalidTemplate, match=r"spec\.hostNetwork: must be true or false"):
        build(template={"spec": {"hostNetwork": 1}})


@pytest.mark.parametrize("key", ["", "a b", "-a", "a/b/c", "/a", "Ä", "A.example/a", "x" * 64, "a\n"])
def test_a_label_key_that_kubernetes_refuses_is_told(key: str) -> None:
    with pytest.raises(errors.InvalidPod, match=r"metadata\.labels: .* is not a label key"):
        build(labels={key: "v"})


@pytest.mark.parametrize("key", ["a", "a.b_c-d", "a.example/b", "9", "x" * 63])
def test_a_label_key_that_kubernetes_takes_is_kept(key: str) -> None:
    assert build(labels={key: "v"})["metadata"]["labels"][key] == "v"


def test_a_label_that_is_a_number_is_its_text() -> None:
    assert build(labels={"try_number": 1})["metadata"]["labels"]["try_number"] == "1"


def test_a_message_that_no_environment_can_hold_is_told() -> None:
    """Linux refuses to start a program with such a variable, and the pod would end with a riddle."""
    fits = 131_072 - len("PODYARD_MESSAGE=") - 1
    assert build(identity=_with_message("x" * fits))
    with pytest.raises(errors.InvalidPod, match=r"podyard\.dev/message.*131056 bytes.*by reference"):
        build(identity=_with_message("x" * (fits + 1)))


def test_more_annotations_than_kubernetes_takes_are_told() -> None:
    with pytest.raises(errors.InvalidPod, match=r"metadata\.annotations: \d+ bytes in all, Kubernetes takes 262144"):
        build(override={"metadata": {"annotations": {"a": "x" * 262_144}}})
    with pytest.raises(errors.InvalidPod, match=r"metadata\.annotations"):
        build(identity=_with_message("x" * 262_144), command=None)


def test_a_pod_without_a_name_for_people_is_named_after_its_task() -> None:
    unnamed = podspec.Identity(
        deployment="d", attempt_id="a", retries=0, queue="q", task="shop.send_mail", owner="o", message="{}"
    )
    assert re.fullmatch(r"shop-send-mail-[a-z0-9]{12}", build(identity=unnamed)["metadata"]["name"])


@pytest.mark.parametrize("change", [{"deployment": "x"}, {"attempt_id": "x"}, {"retries": 3}])
def test_another_attempt_has_another_name(change: dict[str, Any]) -> None:
    assert replace(IDENTITY, **change).pod_name != IDENTITY.pod_name


@pytest.mark.parametrize("change", [{"owner": "x"}, {"queue": "x"}, {"message": "x"}])
def test_the_same_attempt_has_the_same_name_whoever_launches_it(change: dict[str, Any]) -> None:
    assert replace(IDENTITY, **change).pod_name == IDENTITY.pod_name


def test_a_client_object_is_an_override_too() -> None:
    override = client.V1Pod(spec=client.V1PodSpec(priority=0, containers=[client.V1Container(name="", image="mine:2")]))
    assert build(override=override) == build(override={"spec": {"priority": 0, **in_base(image="mine:2")["spec"]}})


def test_inputs_stay_as_they_are_and_share_nothing_with_the_result() -> None:
    override = {"metadata": {"labels": {"a": "b"}}, "spec": {"tolerations": [{"key": "k"}]}}
    inputs = [TEMPLATE, override, {"A": "a"}, {"l": "v"}, [*COMMAND], ["x"]]
    before = copy.deepcopy(inputs)
    pod = podspec.build_pod(
        template=inputs[0],
        override=inputs[1],
        env=inputs[2],
        labels=inputs[3],
        command=inputs[4],
        args=inputs[5],
        identity=IDENTITY,
        namespace="work",
    )
    pod["spec"]["tolerations"][0]["key"] = "spoiled"
    pod["metadata"]["labels"].clear()
    builders.container_of(pod)["command"].append("spoiled")
    builders.container_of(pod)["args"].append("spoiled")
    builders.container_of(pod)["env"].clear()
    pod["spec"]["containers"].clear()
    assert inputs == before


LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
TEXT = st.text(max_size=80)


@given(st.builds(podspec.Identity, deployment=TEXT, attempt_id=TEXT, retries=st.integers(0, 99), queue=TEXT, task=TEXT,
                 owner=TEXT, message=TEXT, name=st.lists(TEXT, max_size=3).map(tuple)))  # fmt: skip
def test_any_identity_makes_a_pod_that_says_it(identity: podspec.Identity) -> None:
    """Valid name and labels for selectors, and the raw truth in annotations."""
    metadata = build(identity=identity)["metadata"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", metadata["name"])
    assert all(LABEL_VALUE.fullmatch(value) for value in metadata["labels"].values())
    assert metadata["annotations"] == {
        labels.ATTEMPT_ANNOTATION: identity.attempt_id,
        labels.RETRIES_ANNOTATION: str(identity.retries),
        labels.QUEUE_ANNOTATION: identity.queue,
        labels.TASK_ANNOTATION: identity.task,
        labels.MESSAGE_ANNOTATION: identity.message,
    }


def test_threads_that_share_a_template_do_not_meet() -> None:
    shared = template.Templates().get("default")
    before = copy.deepcopy(shared)
    pods: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda number: pods.extend(build(template=shared, image=f"i:{number}") for _ in range(20)),
            args=(number,),
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(builders.container_of(pod)["image"] for pod in pods) == sorted(
        [f"i:{number}" for number in range(4)] * 20
    )
    assert shared == before


def _with_message(message: str) -> podspec.Identity:
    return replace(IDENTITY, message=message)


@pytest.mark.parametrize(("others", "room"), [(0, None), (1, None), (2, "3072"), (10, "1024")])
def test_a_pod_of_many_containers_is_told_how_little_is_kept_of_its_last_words(others: int, room: str | None) -> None:
    """The kubelet keeps 12 KiB of all termination messages of a pod; the template has two containers already."""
    more = [{"name": f"init-{number}", "image": "i"} for number in range(others)]
    assert env_of(build(override={"spec": {"initContainers": more}})).get(podspec.TERMINATION_ENV) == room
