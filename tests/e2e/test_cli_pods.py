"""`podyard dags render` and `podyard pods cleanup`, as a user types them, against a local cluster."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.kubeapi import client, server_access
from dispatcher.manifests import builder, labels
from tests import builders, parts
from tests.integration.yard_parts import api_get
from tests.terminal import Answer, inside

DAG = """
from routing import DAG, EmptyOperator, KubernetesPodOperator, task

@task(queue="kubernetes", executor_config={"pod_override": {"spec": {"containers": [
    {"name": "base", "env": [{"name": "API_TOKEN", "value": "hunter2"}, {"name": "LEVEL", "value": "3"}]}]}}})
def in_a_pod():
    return 1

@task
def on_a_worker(number):
    return number

with DAG("both"):
    on_a_worker(in_a_pod()) >> KubernetesPodOperator(
        task_id="any_image", image="busybox:1.37", cmds=["sh", "-c", "true"], do_xcom_push=True
    ) >> EmptyOperator(task_id="end")
"""


@pytest.fixture
def folder(tmp_path: Path, local_cluster: parts.LocalCluster, deployment: str) -> Path:
    """A folder with settings and a DAG."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "both.py").write_text(DAG)
    (tmp_path / "podyard.toml").write_text(
        f'deployment = "{deployment}"\n[kubernetes]\nkubeconfig = "{local_cluster.kubeconfig}"\n'
    )
    return tmp_path


def podyard(folder: Path, *words: str, code: int = 0) -> Answer:
    answer = inside(folder, *words)
    assert answer.returncode == code, answer
    return answer


def documents(answer: Answer) -> dict[str, dict[str, Any]]:
    return {pod["metadata"]["labels"]["task_id"]: pod for pod in yaml.safe_load_all(answer.stdout)}


class TestRender:
    def test_each_task_that_gets_a_pod_is_shown_with_its_manifest(self, folder: Path) -> None:
        """Those of Celery workers, and those without a body, get none. Secrets are hidden."""
        pods = documents(podyard(folder, "dags", "render", "both"))

        assert list(pods) == ["in_a_pod", "any_image"]
        env = {one["name"]: one.get("value") for one in pods["in_a_pod"]["spec"]["containers"][0]["env"]}
        assert (env["API_TOKEN"], env["LEVEL"]) == ("•••", "3")
        assert pods["in_a_pod"]["spec"]["containers"][0]["command"] == list(builder.COMMAND)
        assert pods["any_image"]["spec"]["initContainers"][0]["restartPolicy"] == "Always"
        assert "hunter2" not in str(pods)

    def test_the_server_is_asked_and_nothing_is_created(self, folder: Path) -> None:
        """`--validate` is a dry run."""
        answer = podyard(folder, "dags", "render", "both", "any_image", "--validate")

        assert "would take 1 pods" in answer.stderr
        assert list(documents(answer)) == ["any_image"]

    def test_a_pod_that_the_server_would_not_take_is_told_in_its_words(self, folder: Path) -> None:
        """And a message of a plain Celery task is rendered as well as a DAG's."""
        mounts = [{"name": "nowhere", "mountPath": "/data"}]
        sent = {"task": "dispatcher.pod", "queue": "kubernetes", "kwargs": {"image": "x", "volume_mounts": mounts}}
        (folder / "message.json").write_text(json.dumps(sent))

        answer = podyard(folder, "dags", "render", "--message", "message.json", "--validate", code=1)

        assert "the API server would not take the pod" in answer.stderr
        assert "volumeMounts[0].name" in answer.stderr

    def test_memory_that_grew_is_shown_only_where_it_did(self, folder: Path) -> None:
        """A first attempt is what author and queue wrote; a message of a later one says what it learned."""
        assert "memory-growth" not in podyard(folder, "dags", "render", "both").stdout
        learned = {"growths": 1, "memory_limit": "1Gi"}
        sent = {"task": "dispatcher.pod", "kwargs": {"image": "x"}, "headers": {"podyard": {"lessons": learned}}}
        (folder / "message.json").write_text(json.dumps(sent))

        (shown,) = yaml.safe_load_all(podyard(folder, "dags", "render", "--message", "message.json").stdout)

        assert shown["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}
        assert shown["metadata"]["annotations"]["podyard.dev/memory-growth"] == (
            "growth 1: limits.memory not set -> 1Gi"
        )

    def test_a_task_without_a_pod_is_told_where_it_runs(self, folder: Path) -> None:
        """In one line."""
        assert "runs on Celery workers" in podyard(folder, "dags", "render", "both", "on_a_worker", code=1).stderr
        assert "no task 'nobody'" in podyard(folder, "dags", "render", "both", "nobody", code=1).stderr
        assert "not in" in podyard(folder, "dags", "render", "neither", code=1).stderr

    def test_what_the_dispatcher_would_refuse_is_refused(self, folder: Path) -> None:
        """By the same code, with the path."""
        sent = {"task": "dispatcher.pod", "kwargs": {"image": "x", "hostnetwork": True}}
        (folder / "message.json").write_text(json.dumps(sent))

        assert "spec.hostNetwork" in podyard(folder, "dags", "render", "--message", "message.json", code=1).stderr


def create(kubeconfig: Path, *pods: dict[str, Any]) -> None:
    """Creates pods, and waits until they have ended."""

    async def work() -> None:
        async with client.KubeClient(server_access.connect(kubeconfig=kubeconfig)) as api:
            for pod in pods:
                await api.create_pod("default", json.dumps(pod).encode())

    asyncio.run(work())
    for pod in pods:
        path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}"
        parts.eventually(lambda path=path: api_get(kubeconfig, path)["status"]["phase"] == "Succeeded", 15)


def pod(name: str, deployment: str, *, is_done: bool = True) -> dict[str, Any]:
    given = {labels.MANAGED_BY_LABEL: labels.MANAGED_BY, labels.DEPLOYMENT_LABEL: deployment}
    if is_done:
        given[labels.DONE_LABEL] = "true"
    return builders.manifest(f"{deployment}-{name}", labels=given)


class TestCleanup:
    def test_only_kept_pods_of_this_deployment_go_once_they_are_old_enough(
        self, folder: Path, local_cluster: parts.LocalCluster, deployment: str
    ) -> None:
        """What is not marked as done is still wanted, whatever its age."""
        create(
            local_cluster.kubeconfig,
            pod("kept", deployment),
            pod("unread", deployment, is_done=False),
            pod("foreign", f"{deployment}-other"),
        )

        assert podyard(folder, "pods", "cleanup", "--output", "json").stdout == "[]\n"
        failed = podyard(folder, "pods", "cleanup", "--older-than", "0s", "--outcome", "failed")
        assert "no leftovers" in failed.stderr
        listed = podyard(folder, "pods", "cleanup", "--older-than", "0s", "--dry-run", "--output", "json")
        assert [(one["pod"], one["result"]) for one in json.loads(listed.stdout)] == [
            (f"{deployment}-kept", "would be deleted")
        ]
        assert "1 finished pods are left alone" in listed.stderr
        gone = podyard(folder, "pods", "cleanup", "--older-than", "0s", "--output", "json")
        assert [(one["pod"], one["result"]) for one in json.loads(gone.stdout)] == [(f"{deployment}-kept", "deleted")]
        assert podyard(folder, "pods", "cleanup", "--older-than", "0s", "--output", "json").stdout == "[]\n"

    def test_an_age_that_is_none_is_refused(self, folder: Path) -> None:
        """With examples."""
        assert "36h" in podyard(folder, "pods", "cleanup", "--older-than", "yesterday", code=2).stderr
