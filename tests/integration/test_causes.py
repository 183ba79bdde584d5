"""Why attempts fail, and what follows, on real parts: scheduler, dispatcher, and a local cluster that takes faults.

Judged by the API server's pods, which are kept, by the record, and by what `podyard tasks explain` prints.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.localcluster.faults import client
from routing.store import rows
from tests import parts
from tests.integration.halves import Half
from tests.integration.yard_parts import api_get
from tests.terminal import PODYARD, inside

WAIT_S = 40
MORE = """
[scheduler]
infra_retry_delay_s = 0.05
[kubernetes]
kubeconfig = "{kubeconfig}"
[queues.grows]
side = "kubernetes"
delete = "never"
memory_growth = 1.5
memory_growth_max = "1Gi"
avoid_failed_nodes = true
[queues.plain]
side = "kubernetes"
delete = "never"
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A scheduler in this process, a dispatcher, and a cluster of their own."""

    half: Half
    cluster: parts.LocalCluster
    faults: client.Faults

    def pods(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        """Its pods as the API server keeps them, by attempt."""
        every = api_get(self.cluster.kubeconfig, "/api/v1/namespaces/default/pods")["items"]
        labels = {id(pod): pod["metadata"]["labels"] for pod in every}
        mine = [pod for pod in every if (labels[id(pod)]["dag_id"], labels[id(pod)]["task_id"]) == (dag_id, task_id)]
        return sorted(mine, key=lambda pod: int(labels[id(pod)]["try_number"]))

    def running(self, dag_id: str, task_id: str, number: int = 1) -> str:
        """The name of the pod of an attempt, once its container runs."""

        def look() -> str:
            pod = self.pods(dag_id, task_id)[-1]
            assert pod["metadata"]["labels"]["try_number"] == str(number)
            assert pod["status"]["phase"] == "Running", pod["status"]
            return str(pod["metadata"]["name"])

        return parts.eventually(look, WAIT_S, what=f"attempt {number} of {task_id} runs")

    def attempts(self, run: rows.RunRow, task_id: str) -> list[tuple[str, str | None, str | None]]:
        found = self.half.store.attempts(run.run_id, task_id, dag_id=run.dag_id)
        return [(one.state, one.reason, one.cause) for one in found]

    def explain(self, run: rows.RunRow, task_id: str, *words: str) -> str:
        """What the command prints."""
        named = ["--dag", run.dag_id, run.run_id, task_id]
        answer = inside(self.half.folder, "--config", str(self.half.config), "tasks", "explain", *named, *words)
        assert answer.returncode == 0, answer
        return answer.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, valkey_server: parts.Valkey) -> Iterator[Site]:
    """One for all tests."""
    folder = tmp_path_factory.mktemp("causes")
    cluster = parts.LocalCluster.start(folder / "cluster", "--faults")
    more = MORE.format(kubeconfig=cluster.kubeconfig)
    half = Half.make(folder / "half", broker=valkey_server.fresh().url, dag="causes", more=more)
    command = [PODYARD, "--config", half.config, "dispatcher", "--queues", "grows,plain"]
    dispatcher = parts.start(command, log=folder / "dispatcher.log", cwd=half.folder)
    with half.scheduler():
        yield Site(half=half, cluster=cluster, faults=client.Faults.of(cluster.kubeconfig))
    parts.stop(dispatcher)
    half.close()
    cluster.stop()


@pytest.fixture(autouse=True)
def _faults_are_taken_back(site: Site) -> Iterator[None]:
    yield
    site.faults.clear()


def memory_of(pod: dict[str, Any]) -> dict[str, str]:
    resources = next(one for one in pod["spec"]["containers"] if one["name"] == "base")["resources"]
    return {part: resources[part]["memory"] for part in ("requests", "limits")}


# --- memory


def test_P2_a_task_that_was_killed_for_its_memory_gets_more(site: Site) -> None:
    """One growth, no retry of the author's, and everybody can see it."""
    run = site.half.trigger("hungry")
    site.faults.oom(site.running("hungry", "learns"))
    assert site.half.wait(run).state == "success"

    first, second = site.pods("hungry", "learns")
    assert memory_of(first) == {"requests": "128Mi", "limits": "512Mi"}
    assert memory_of(second) == {"requests": "192Mi", "limits": "768Mi"}
    assert "podyard.dev/memory-growth" not in first["metadata"]["annotations"]
    assert second["metadata"]["annotations"]["podyard.dev/memory-growth"] == (
        "growth 1: requests.memory 128Mi -> 192Mi, limits.memory 512Mi -> 768Mi"
    )
    told = site.explain(run, "learns")
    assert "why: the container base needed more than its memory limit of 512Mi" in told
    assert "its pod: a memory limit of at least 768Mi" in told


def test_at_the_cap_it_is_the_authors_failure(site: Site) -> None:
    """512Mi, 768Mi, 1Gi: the third kill is the last."""
    run = site.half.trigger("greedy")
    for number in (1, 2, 3):
        site.faults.oom(site.running("greedy", "never-full", number))
    assert site.half.wait(run).state == "failed"

    assert [memory_of(pod)["limits"] for pod in site.pods("greedy", "never-full")] == ["512Mi", "768Mi", "1Gi"]
    assert site.attempts(run, "never-full") == [("failed", "OOMKilled", "application")] * 3
    assert "memory of its queue grows to 1Gi" in str(site.half.task(run, "never-full").reason)
    facts = json.loads(site.explain(run, "never-full", "--output", "json"))
    assert facts["diagnosis"]["reason"] == "OOMKilled"
    assert "its memory limit of 1Gi" in facts["diagnosis"]["explanation"]
    assert [attempt["lessons"] for attempt in facts["attempts"]] == [
        None,
        {"growths": 1, "memory_request": "192Mi", "memory_limit": "768Mi"},
        {"growths": 2, "memory_request": "288Mi", "memory_limit": "1Gi"},
    ]
    assert any("resources.limits.memory" in step for step in facts["next"])


def test_without_the_queues_setting_nothing_grows(site: Site) -> None:
    run = site.half.trigger("modest")
    site.faults.oom(site.running("modest", "alone"))
    assert site.half.wait(run).state == "failed"
    assert site.attempts(run, "alone") == [("failed", "OOMKilled", "application")]


# --- time


def test_the_execution_timeout_of_a_pod_of_any_image_ends_it(site: Site) -> None:
    """It is the author's failure; and people read the task's own name, not the one of the Celery task behind it."""
    run = site.half.trigger("late")
    assert site.half.wait(run).state == "failed"

    assert site.attempts(run, "sleeper") == [("failed", "TimeLimitExceeded", "application")]
    task = site.half.task(run, "sleeper")
    assert task.started_at is not None
    assert task.ended_at is not None
    assert 1.0 <= (task.ended_at - task.started_at).total_seconds() < 12, task
    listed = inside(site.half.folder, "--config", str(site.half.config), "pods", "list", "--output", "json")
    assert "late.sleeper" in {pod["task"] for pod in json.loads(listed.stdout)}


# --- the infrastructure


def test_each_fault_of_the_cluster_is_tried_again_at_no_cost_of_the_author(site: Site) -> None:
    """Six faults, six tasks without retries of their own: each has a second attempt."""
    site.faults.unpullable("*limited*", cause="rate_limit", times=1)
    run = site.half.trigger("unlucky")
    site.faults.evict(site.running("unlucky", "evicted"))
    site.faults.evict(site.running("unlucky", "shutdown"), reason="NodeShutdown")
    site.faults.evict(site.running("unlucky", "refused"), reason="UnexpectedAdmissionError")
    site.faults.preempt(site.running("unlucky", "preempted"))
    site.faults.delete(site.running("unlucky", "deleted"), grace_s=0)
    assert site.half.wait(run, timeout_s=WAIT_S).state == "success"

    reasons = {}
    for task in site.half.store.tasks(run.run_id, dag_id="unlucky"):
        (first, reason, cause), (second, *_) = site.attempts(run, task.task_id)
        assert (first, cause, second) == ("failed", "infrastructure", "succeeded"), task
        reasons[task.task_id] = reason
    assert reasons == {
        "evicted": "Evicted",
        "shutdown": "NodeShutdown",
        "refused": "UnexpectedAdmissionError",
        "preempted": "PreemptionByScheduler",
        "deleted": "PodDeleted",
        "limited": "ErrImagePull",
    }
    assert "why: the node local ran low on memory" in site.explain(run, "evicted")


def test_P9_a_lost_node_is_avoided(site: Site) -> None:
    """As a preference: the only node is taken all the same once it is back."""
    run = site.half.trigger("homeless")
    site.running("homeless", "lost")
    site.faults.lose_node()
    site.faults.remove_node()
    site.half.wait_task(run, "lost", lambda task: task.try_number == 2, timeout_s=WAIT_S)
    site.faults.restore_node()
    assert site.half.wait(run, timeout_s=WAIT_S).state == "success"

    second = site.pods("homeless", "lost")[-1]
    (preferred,) = second["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    (rule,) = preferred["preference"]["matchExpressions"]
    assert rule == {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["local"]}
    assert "rather not on local" in site.explain(run, "lost")


def test_P18_a_node_on_which_a_pod_does_not_start_is_avoided(site: Site) -> None:
    """A volume that this node cannot mount: the second attempt would rather be elsewhere."""
    run = site.half.trigger("stuck")

    def look() -> dict[str, Any]:
        """A pod that is late is deleted at once, so there is one at a time."""
        pod = site.pods("stuck", "never-starts")[-1]
        assert pod["metadata"]["labels"]["try_number"] == "2"
        return pod

    second = parts.eventually(look, WAIT_S, what="a second attempt")
    site.half.store.cancel_run(run.run_id, dag_id="stuck", at=datetime.now(UTC))

    assert "'values': ['local']" in str(second["spec"]["affinity"])
    (first, *_) = site.half.store.attempts(run.run_id, "never-starts", dag_id="stuck")
    assert (first.cause, first.diagnosis and first.diagnosis["explanation"]) == (
        "infrastructure",
        'the volume "far" cannot be mounted on the node local',
    )


def test_the_budget_of_the_infrastructure_has_an_end(site: Site) -> None:
    """Three more attempts, then the task has failed, and says whose fault it was."""
    run = site.half.trigger("cursed")
    for number in range(1, 5):
        site.faults.evict(site.running("cursed", "thrown", number), reason="NodeShutdown")
    assert site.half.wait(run).state == "failed"
    assert site.attempts(run, "thrown") == [("failed", "NodeShutdown", "infrastructure")] * 4
    assert "the infrastructure failed 4 times" in str(site.half.task(run, "thrown").reason)
    assert all("affinity" not in pod["spec"] for pod in site.pods("cursed", "thrown"))


def test_a_pod_that_no_node_takes_says_which_of_the_usual_causes_it_is(site: Site) -> None:
    """While it waits, with the step that helps."""
    causes = {
        "cpu": ("too little cpu is free on 1 node(s)", "resources.requests"),
        "memory": ("too little memory is free on 1 node(s)", "resources.requests"),
        "selector": ("the labels that nodeSelector or affinity asks for", "nodeSelector"),
        "taint": ("the taint {dedicated: other}", "toleration"),
        "volume": ("PersistentVolumeClaim of the pod is not bound", "kubectl describe pvc"),
    }
    site.faults.fail("create", 504, resource="pods", done=True, times=1)  # its events are faster than the create
    for cause in causes:
        site.faults.unschedulable(f"nowhere-{cause}-*", cause=cause)
    run = site.half.trigger("nowhere")
    for cause, (why, step) in causes.items():

        def look(cause: str = cause) -> str:
            told = site.explain(run, cause)
            assert "why: no node takes the pod" in told, told
            return told

        told = parts.eventually(look, WAIT_S)
        assert why in told
        assert step in next(line for line in told.splitlines() if line.startswith("what to do: "))
    site.faults.clear()
    assert site.half.wait(run).state == "success"
