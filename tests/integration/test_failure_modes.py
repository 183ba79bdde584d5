"""Rows of docs/failure-modes.md on the Kubernetes side, each by its id: a fault, and what becomes of a task.

One dispatcher on a local cluster that takes faults (docs/testing.md); every test takes its faults back. "Runs once" is
judged by the line that the body appends to a file, and by the pods that the API server was asked to create.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from dispatcher import errors
from dispatcher.attempts import status_store
from dispatcher.localcluster.client import Client
from dispatcher.localcluster.faults import client, kinds
from dispatcher.manifests import names
from tests import builders, parts
from tests.integration.yard_parts import (
    WAIT_S,
    Yard,
    ended_by,
    ends_well,
    napping,
    pod_failure_of,
    pods_of,
    runs,
)

pytestmark = pytest.mark.usefixtures("no_pod_left")


@pytest.fixture(scope="module")
def yard(
    tmp_path_factory: pytest.TempPathFactory, valkey_server: parts.Valkey, faulty_cluster: parts.LocalCluster
) -> Iterator[Yard]:
    """A dispatcher whose cluster takes faults."""
    with Yard(
        folder=tmp_path_factory.mktemp("failure-modes"),
        broker=valkey_server.fresh().url,
        kubeconfig=faulty_cluster.kubeconfig,
        deployment="failure-modes",
    ) as yard:
        yard.dispatcher()
        yield yard


def failure(yard: Yard) -> errors.PodFailed:
    """How a task failed."""
    return pod_failure_of(yard.send("add", 2, 3))


# --- K: calls


def test_K1_a_server_that_is_away_at_launch_is_waited_for(yard: Yard, faults: client.Faults) -> None:
    """Every call is cut for two seconds; the task is parked and runs."""
    faults.fail("*", how="cut", resource="pods", for_s=2)
    ends_well(yard)


def test_K2_a_create_that_timed_out_but_worked_runs_once(yard: Yard, faults: client.Faults) -> None:
    """504, yet the pod is there: the repeated create meets it and adopts it."""
    faults.fail("create", 504, resource="pods", done=True, times=1)
    ends_well(yard)


def test_K3_a_create_that_timed_out_and_did_nothing_is_repeated(yard: Yard, faults: client.Faults) -> None:
    """504, and no pod: the second create makes it."""
    faults.fail("create", 504, resource="pods", times=1)
    ends_well(yard)
    assert faults.stats()["requests"]["pods"]["create"] == 2


def test_K4_an_answer_that_is_cut_off_runs_once(yard: Yard, faults: client.Faults) -> None:
    """The connection breaks after the pod was made."""
    faults.fail("create", resource="pods", how="cut", done=True, times=1)
    ends_well(yard)


def test_K5_too_many_requests_are_waited_out_as_long_as_the_server_says(yard: Yard, faults: client.Faults) -> None:
    """429 with Retry-After 1, twice: three creates, not a storm of them."""
    faults.fail("create", 429, resource="pods", retry_after_s=1, times=2)
    ends_well(yard)
    assert faults.stats()["requests"]["pods"]["create"] == 3


@pytest.mark.parametrize("status", [500, 503, 504])
def test_K6_errors_of_the_server_are_waited_out(yard: Yard, faults: client.Faults, status: int) -> None:
    """Twice, then it works."""
    faults.fail("create", status, resource="pods", times=2)
    ends_well(yard)


def test_K7_an_exceeded_quota_is_waited_for(yard: Yard, faults: client.Faults) -> None:
    """403 with the words of a quota is no refusal."""
    faults.fail("create", 403, resource="pods", times=2)
    ends_well(yard)


def test_K8_a_refusal_of_a_server_that_has_just_started_is_waited_out(yard: Yard, faults: client.Faults) -> None:
    """Its roles are not read yet: 403 in RBAC's words is held and tried again, and the task runs."""
    faults.restart_apiserver(down_s=0.5, forbidden_s=3.0)
    ends_well(yard)


def test_K8_a_missing_permission_is_named_and_ends_at_its_deadline(
    tmp_path: Path, valkey: parts.ValkeyDatabase, yard: Yard, faults: client.Faults, deployment: str
) -> None:
    """As a fault of the infrastructure, with the server's words."""
    faults.deny("create", "pods")
    strict = Yard(folder=tmp_path, broker=valkey.url, kubeconfig=yard.kubeconfig, deployment=deployment)
    strict.dispatcher(YARD_WAITS=json.dumps({"permission": "retry after 3s"}))
    try:
        failed = failure(strict)
    finally:
        strict.stop()
    assert 'cannot create resource "pods"' in str(failed)
    assert (failed.details["reason"], failed.details["cause"]) == ("NotPermitted", "infrastructure")


def test_K9_a_missing_namespace_fails_that_task_alone(yard: Yard, faults: client.Faults) -> None:
    """404 at the create; the next task runs."""
    faults.fail("create", 404, resource="pods", message='namespaces "nowhere" not found', times=1)
    assert 'namespaces "nowhere" not found' in str(failure(yard))
    ends_well(yard)


def test_K10_a_namespace_that_is_terminating_fails_without_a_loop(yard: Yard, faults: client.Faults) -> None:
    """403 with the server's words: one create."""
    words = "unable to create new content in namespace default because it is being terminated"
    faults.fail("create", 403, resource="pods", message=words, times=1)
    assert words in str(failure(yard))
    assert faults.stats()["requests"]["pods"]["create"] == 1


def test_K11_an_invalid_manifest_fails_with_the_field(yard: Yard, faults: client.Faults) -> None:
    """422 names the path."""
    words = "Pod is invalid: spec.containers[0].image: Required value"
    faults.fail("create", 422, resource="pods", message=words, times=1)
    assert words in str(failure(yard))


def test_K12_a_webhook_that_denies_fails_with_its_name(yard: Yard, faults: client.Faults) -> None:
    """Its message is the task's."""
    words = 'admission webhook "policy.example.com" denied the request: no latest tags'
    faults.fail("create", 400, resource="pods", message=words, times=1)
    assert words in str(failure(yard))


def test_K13_a_webhook_that_is_down_is_waited_for(yard: Yard, faults: client.Faults) -> None:
    """500 `failed calling webhook` heals."""
    words = 'failed calling webhook "policy.example.com": context deadline exceeded'
    faults.fail("create", 500, resource="pods", message=words, times=2)
    ends_well(yard)


def test_K17_a_token_that_is_refused_is_waited_out(yard: Yard, faults: client.Faults) -> None:
    """401 while tokens rotate: no restart, no failed task."""
    faults.fail("create", 401, resource="pods", times=2)
    ends_well(yard)


def test_K20_a_delete_that_meets_nothing_is_a_success(yard: Yard, faults: client.Faults) -> None:
    """It worked, and the answer was 404: nothing is left over and nothing is tried again."""
    faults.fail("delete", 404, resource="pods", done=True, times=1)
    ends_well(yard)
    parts.eventually(lambda: not pods_of(yard), 10)


def test_K21_a_forbidden_delete_keeps_the_verdict_and_is_tried_again_later(yard: Yard, faults: client.Faults) -> None:
    """The result is there at once; the pod goes when it may."""
    number = faults.fail("delete", 403, resource="pods", message="pods is forbidden: cannot delete")
    ends_well(yard)
    parts.eventually(lambda: faults.hits(number) >= 1, 10)
    ends_well(yard)
    faults.remove(number)
    parts.eventually(lambda: not pods_of(yard), 30)


# --- W: watches


@pytest.mark.parametrize("how", ["status", "event"])
def test_W1_W2_a_version_that_is_too_old_means_list_again(yard: Yard, faults: client.Faults, how: str) -> None:
    """410 as an answer and as an event, while a body runs."""
    sent, _ = napping(yard, 1.5)
    faults.expire_versions(how=how)  # type: ignore[arg-type]
    assert sent.get(timeout=WAIT_S) == "slept"  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["abort", "end"])
def test_W4_a_watch_that_ends_goes_on(yard: Yard, faults: client.Faults, how: str) -> None:
    """Cleanly or reset, while a body runs."""
    sent, _ = napping(yard, 1.5)
    assert faults.cut_watches(how=how) >= 1  # type: ignore[arg-type]
    assert sent.get(timeout=WAIT_S) == "slept"  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["duplicate", "reorder"])
def test_W5_doubled_and_reordered_events_hurt_nothing(yard: Yard, faults: client.Faults, how: str) -> None:
    """Each body runs once and each result comes once."""
    faults.disturb(how)  # type: ignore[arg-type]
    for _ in range(3):
        ends_well(yard)


def test_W8_a_pod_deleted_while_it_runs_is_the_infrastructures_fault(yard: Yard, faults: client.Faults) -> None:
    """Told as such, not charged to the author."""
    sent, pod = napping(yard)
    faults.delete(pod, grace_s=0)
    assert ended_by(sent)["cause"] == "infrastructure"


def test_W11_garbage_in_a_watch_is_skipped(yard: Yard, faults: client.Faults) -> None:
    """Lines that are no JSON, before every event."""
    faults.disturb("garbage", times=20)
    for _ in range(3):
        ends_well(yard)


# --- P: pods


def test_P2_out_of_memory_is_named_and_the_authors(yard: Yard, faults: client.Faults) -> None:
    """OOMKilled of the container's own limit."""
    sent, pod = napping(yard)
    faults.oom(pod)
    assert {"reason": "OOMKilled", "exit_code": 137, "cause": "application"}.items() <= ended_by(sent).items()
    error = sent.result  # type: ignore[attr-defined]
    assert "was killed by the kernel" in error.details["explanation"]
    assert "resources.limits.memory" in error.details["what_to_do"]
    assert "\n" not in str(error)
    assert error.details["what_to_do"] in repr(error), "what Celery's event carries, and Flower shows"


@pytest.mark.parametrize("reason", ["Evicted", "NodeShutdown"])
def test_P3_P7_pods_that_a_node_throws_out_are_the_infrastructures_fault(
    yard: Yard, faults: client.Faults, reason: str
) -> None:
    """Pressure, drain, shutdown."""
    sent, pod = napping(yard)
    faults.evict(pod, reason=reason)
    assert {"reason": reason, "cause": "infrastructure"}.items() <= ended_by(sent).items()


def test_P4_a_kill_without_a_word_of_memory_is_told_with_its_exit_code(yard: Yard, faults: client.Faults) -> None:
    """137 and `Error`: a fact, no guess at memory."""
    sent, pod = napping(yard)
    faults.kill(pod)
    assert {"reason": "Error", "exit_code": 137}.items() <= ended_by(sent).items()


def test_P6_a_preempted_pod_is_the_infrastructures_fault(yard: Yard, faults: client.Faults) -> None:
    """DisruptionTarget, then a delete."""
    sent, pod = napping(yard)
    faults.preempt(pod)
    assert ended_by(sent)["cause"] == "infrastructure"


def test_P11_a_missing_image_fails_and_leaves_no_pod_that_could_revive(yard: Yard, faults: client.Faults) -> None:
    """The pod is deleted with its verdict (the fixture waits for that)."""
    faults.unpullable("*", cause="not_found")
    assert failure(yard).details["cause"] == "application"


def test_P12_a_registry_that_limits_its_rate_is_the_infrastructures_fault(yard: Yard, faults: client.Faults) -> None:
    """429 of a registry."""
    faults.unpullable("*", cause="rate_limit")
    assert failure(yard).details["cause"] == "infrastructure"


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "NodeAffinity"])
def test_P29_a_node_that_refuses_a_pod_is_the_infrastructures_fault(
    yard: Yard, faults: client.Faults, reason: str
) -> None:
    """As kubelets say it."""
    sent, pod = napping(yard)
    faults.evict(pod, reason=reason)
    assert ended_by(sent)["cause"] == "infrastructure"


# --- what the chaos run found


def test_B5_a_message_that_comes_again_after_the_end_runs_nothing(yard: Yard, faults: client.Faults) -> None:
    """Its pod is gone and with it the name that was the claim: the stored outcome answers."""
    sent = yard.send("add", 2, 3)
    assert sent.get(timeout=WAIT_S) == 5
    parts.eventually(lambda: not pods_of(yard), 10)

    yard.send("add", 2, 3, task_id=sent.id, headers={"podyard_again": True})
    ends_well(yard)  # one after it has gone through

    assert runs(yard, sent.id) == 1


def test_B6_a_second_dispatcher_leaves_a_pod_to_the_one_that_has_it(yard: Yard, faults: client.Faults) -> None:
    """Delivered to both: the second one meets the pod, sees whose it is, and forgets the message."""
    control = yard.client.control
    first_node, second_node = (f"{name}@{yard.deployment}" for name in ("dispatcher", "second"))
    inspect = control.inspect([second_node], timeout=1)
    second = yard.dispatcher(name="second")
    try:
        control.cancel_consumer("kubernetes", destination=[second_node], reply=True)
        sent, _ = napping(yard, 4)
        control.cancel_consumer("kubernetes", destination=[first_node], reply=True)
        control.add_consumer("kubernetes", destination=[second_node], reply=True)
        yard.send("nap", 4, task_id=sent.id)  # type: ignore[attr-defined]
        parts.eventually(lambda: inspect.stats()[second_node]["total"], 10, what="it took the message")
        assert sent.get(timeout=WAIT_S) == "slept"  # type: ignore[attr-defined]
        assert inspect.stats()[second_node]["pool"]["pods-in-flight"] == 0
        assert runs(yard, sent.id) == 1  # type: ignore[attr-defined]
    finally:
        control.add_consumer("kubernetes", destination=[first_node], reply=True)
        parts.stop(second)


def deleted_unwatched(yard: Yard, dispatcher: subprocess.Popen[bytes], pod: str) -> None:
    """The dispatcher is killed, and then the pod is deleted."""
    yard.kill(dispatcher)
    Client.from_kubeconfig(yard.kubeconfig).call(
        "DELETE", f"/api/v1/namespaces/default/pods/{pod}", {"gracePeriodSeconds": 0}
    )
    parts.eventually(lambda: not pods_of(yard), 10)


@pytest.fixture
def recorded(
    tmp_path: Path,
    valkey: parts.ValkeyDatabase,
    own_valkey: parts.Valkey,
    local_cluster: parts.LocalCluster,
    deployment: str,
) -> Iterator[tuple[Yard, status_store.PodStore]]:
    """No dispatcher yet, a database, and a result backend of its own."""
    url = f"sqlite:///{tmp_path / 'pods.db'}"
    status_store.METADATA.create_all(sqlalchemy.create_engine(url))
    store = status_store.PodStore(url)
    with Yard(
        folder=tmp_path,
        broker=valkey.url,
        results=own_valkey.fresh().url,
        kubeconfig=local_cluster.kubeconfig,
        deployment=deployment,
        database=url,
    ) as yard:
        yield yard, store
    store.close()


def test_P24_a_pod_deleted_while_no_dispatcher_lives_is_told(recorded: tuple[Yard, status_store.PodStore]) -> None:
    """Its row is all that is left of it: the next dispatcher looks, and tells that it was lost."""
    yard, store = recorded
    first = yard.dispatcher()
    sent, pod = napping(yard)
    parts.eventually(lambda: any(row.phase == "Running" for row in store.pods()), 10)
    deleted_unwatched(yard, first, pod)

    yard.dispatcher()

    assert {"reason": "PodDeleted", "cause": "infrastructure"}.items() <= ended_by(sent).items()
    parts.eventually(lambda: [row.phase for row in store.pods()] == ["Lost"], 10)


def test_P25_a_pod_that_was_seen_to_end_and_vanished_before_its_result_was_stored_is_told(
    recorded: tuple[Yard, status_store.PodStore], own_valkey: parts.Valkey
) -> None:
    """The result backend was away; the row says Succeeded, and what the pod had left is gone with it."""
    yard, store = recorded
    first = yard.dispatcher()
    sent, pod = napping(yard, 1.0)
    own_valkey.kill()
    parts.eventually(lambda: [row.phase for row in store.pods()] == ["Succeeded"], WAIT_S)
    deleted_unwatched(yard, first, pod)
    own_valkey.restart()

    yard.dispatcher()

    assert {"reason": "PodDeleted", "cause": "infrastructure"}.items() <= ended_by(sent).items()
    parts.eventually(lambda: [row.phase for row in store.pods()] == ["Lost"], 10)


def test_K15_a_foreign_pod_of_the_same_name_is_left_alone(yard: Yard, faults: client.Faults) -> None:
    """The name is taken by somebody else's pod: the task fails, says so, and touches nothing."""
    task_id = "11111111-2222-3333-4444-555555555555"
    name = names.pod_name("tests.apps.yard.add", key=f"{yard.deployment}/{task_id}/0")
    cluster = Client.from_kubeconfig(yard.kubeconfig)
    cluster.call("POST", "/api/v1/namespaces/default/pods", builders.manifest(name, "sleep", "60"))
    try:
        sent = yard.send("add", 2, 3, task_id=task_id)
        assert ended_by(sent)["reason"] == "NameTaken"
        assert cluster.call("GET", f"/api/v1/namespaces/default/pods/{name}")["metadata"]["name"] == name
    finally:
        cluster.call("DELETE", f"/api/v1/namespaces/default/pods/{name}", {"gracePeriodSeconds": 0})


def test_every_kind_of_fault_is_one_that_the_cluster_knows() -> None:
    """The names used here are the language of docs/testing.md."""
    assert kinds.read({"kind": "fail", "status": 504, "done": True}) == kinds.Fail(status=504, done=True)
