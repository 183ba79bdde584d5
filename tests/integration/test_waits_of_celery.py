"""Deadlines of waits where no DAG is, where a server gives no clear answer, and while the result backend is away."""

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dispatcher import errors
from dispatcher.attempts import status_store
from dispatcher.localcluster.faults import client
from routing.store.store import Store
from tests import parts
from tests.integration.yard_parts import Yard, pod_failure_of, pods_of, row_of, runs

WAITS = {
    "unschedulable": "retry after 2s",
    "image": "fail after 2s",
    "api_server": "fail after 2s",
    "quota": "wait after 1s",
    "start": "fail after 3s",
    "results": "wait after 1s",
}


pytestmark = pytest.mark.usefixtures("no_pod_left")


@pytest.fixture(scope="module")
def yard(
    tmp_path_factory: pytest.TempPathFactory, valkey_server: parts.Valkey, faulty_cluster: parts.LocalCluster
) -> Iterator[Yard]:
    """A plain Celery application; its dispatcher has short deadlines and a cluster that takes faults."""
    folder = tmp_path_factory.mktemp("waits-of-celery")
    database = f"sqlite:///{folder / 'pods.db'}"
    store = Store.open(database)
    store.upgrade()
    store.close()
    with Yard(
        folder=folder,
        broker=valkey_server.fresh().url,
        kubeconfig=faulty_cluster.kubeconfig,
        deployment="waits",
        database=database,
    ) as yard:
        yard.dispatcher(YARD_WAITS=json.dumps(WAITS))
        yield yard


def failure(yard: Yard) -> errors.PodFailed:
    """How a task failed."""
    return pod_failure_of(yard.send("add", 1, 2))


def test_retry_ends_a_plain_task_as_every_fault_of_the_infrastructure_does(yard: Yard, faults: client.Faults) -> None:
    """Celery has no second budget: the failure says whose it was."""
    faults.unschedulable()
    failed = failure(yard)
    assert {"reason": "Unschedulable", "cause": "infrastructure"}.items() <= failed.details.items()
    assert "within 2 s (waits.unschedulable of the queue kubernetes)" in str(failed)
    assert pods_of(yard) == {}


def test_retry_gives_a_task_back_that_asks_for_it_and_it_gets_another_pod(yard: Yard, faults: client.Faults) -> None:
    """`retry_on_worker_lost`: the message goes into its queue again, as after a lost pod."""
    faults.unschedulable()
    sent = yard.send("add_whatever_happens", 1, 2)
    [first] = parts.eventually(lambda: list(pods_of(yard).values()), 15, what="the first pod")
    parts.eventually(
        lambda: first["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in pods_of(yard).values()}, 15
    )
    faults.clear()
    assert sent.get(timeout=30) == 3
    assert runs(yard, sent.id) == 1


def test_an_image_that_cannot_be_pulled_is_given_its_time(yard: Yard, faults: client.Faults) -> None:
    """ErrImagePull fails at once elsewhere; here the registry may come back within two seconds, and does."""
    number = faults.unpullable("*", cause="unreachable")
    sent = yard.send("add", 1, 2)
    parts.eventually(lambda: "image" in _waiting(yard), 15)
    faults.remove(number)
    assert sent.get(timeout=30) == 3


def _waiting(yard: Yard) -> str:
    statuses = [status for pod in pods_of(yard).values() for status in pod["status"].get("containerStatuses", ())]
    return json.dumps([status["state"] for status in statuses]).lower()


def test_a_pod_that_has_started_unseen_is_left_alone_at_its_deadline(yard: Yard, faults: client.Faults) -> None:
    """The watch is silent, so the dispatcher knows nothing; before it ends anything it asks."""
    faults.silence_watches()
    sent = yard.send("nap", 5)
    parts.eventually(lambda: "goes on at its deadline" in (yard.folder / "dispatcher.log").read_text(), 15)
    faults.cut_watches()
    assert sent.get(timeout=30) is not None
    assert runs(yard, sent.id) == 1


def test_a_create_without_an_answer_is_no_reason_to_end_what_it_made(yard: Yard, faults: client.Faults) -> None:
    """Every create works and looks failed, beyond the deadline: the pod is found under its name, and runs once."""
    number = faults.fail("create", how="cut", done=True, resource="pods")
    sent = yard.send("nap", 4)
    parts.eventually(lambda: runs(yard, sent.id) == 1, 15)
    parts.eventually(sent.ready, 30)
    faults.remove(number)
    assert not isinstance(sent.result, errors.PodFailed), sent.result
    assert runs(yard, sent.id) == 1


def test_creates_that_fail_for_long_end_the_task_once_the_server_says_that_there_is_no_pod(
    yard: Yard, faults: client.Faults
) -> None:
    """503 says nothing about the pod: it is looked for first."""
    faults.fail("create", 503, resource="pods")
    failed = failure(yard)
    assert {"reason": "ApiServerError", "cause": "application"}.items() <= failed.details.items()
    assert "waited for the API server longer than 2 s" in str(failed)


def test_a_wait_that_goes_on_is_told_once_in_the_log_and_always_in_the_record(
    yard: Yard, faults: client.Faults
) -> None:
    """Many tasks, one line; each row has the deadline that has passed."""
    quota = "exceeded quota: q, requested: pods=1, used: pods=9, limited: pods=9"
    number = faults.fail("create", 403, resource="pods", message=f'pods "x" is forbidden: {quota}')
    sent = [yard.send("add", 1, 2) for _ in range(3)]

    def told() -> bool:
        rows = [row_of(yard, one.id) for one in sent]
        now = datetime.now(UTC)
        assert all(row and row.reason == "QuotaExceeded" and row.at_deadline == "wait" for row in rows), rows
        assert all(row and row.deadline_at and row.deadline_at < now for row in rows), rows
        return "waits too long and goes on" in (yard.folder / "dispatcher.log").read_text()

    parts.eventually(told, 20)
    faults.remove(number)
    assert [one.get(timeout=60) for one in sent] == [3, 3, 3]
    log = (yard.folder / "dispatcher.log").read_text()
    assert log.count("waits too long and goes on") == 1
    assert "wait=quota" in log


def test_an_attempt_whose_outcome_may_stand_waits_for_the_result_backend_and_says_so(
    tmp_path: Path, own_valkey: parts.Valkey
) -> None:
    """It waited for a slot so long that it may have come twice; while nobody can tell, it is not run."""
    database = f"sqlite:///{tmp_path / 'pods.db'}"
    store = Store.open(database)
    store.upgrade()
    store.close()
    cluster = parts.LocalCluster.start(tmp_path / "cluster")
    broker = own_valkey.fresh().url
    yard = Yard(folder=tmp_path, broker=broker, kubeconfig=cluster.kubeconfig, deployment="away", database=database)
    try:
        yard.dispatcher(YARD_MAX_PODS="1", YARD_WAITS=json.dumps(WAITS))
        first, second = yard.send("nap", 5), yard.send("add", 1, 2)
        parts.eventually(lambda: runs(yard, first.id) == 1, 20)
        parts.eventually(lambda: row_of(yard, second.id).phase == "Waiting", 20)
        own_valkey.kill()
        row = parts.eventually(lambda: _of_reason(yard, second.id, "ResultBackendUnavailable"), 30)
        assert (row.at_deadline, row.deadline_at is not None) == ("wait", True)
        own_valkey.restart()
        assert second.get(timeout=60) == 3
        assert runs(yard, second.id) == 1
    finally:
        yard.stop()
        cluster.stop()


def _of_reason(yard: Yard, task_id: str, reason: str) -> status_store.PodRow | None:
    row = row_of(yard, task_id)
    return row if row.reason == reason else None


def test_a_dispatcher_that_never_reached_its_server_keeps_the_same_deadline(
    tmp_path: Path, valkey: parts.ValkeyDatabase
) -> None:
    """And says meanwhile what it waits for."""
    cluster = parts.LocalCluster.start(tmp_path / "cluster")
    os.kill(cluster.process.pid, signal.SIGKILL)
    database = f"sqlite:///{tmp_path / 'pods.db'}"
    store = Store.open(database)
    store.upgrade()
    store.close()
    yard = Yard(
        folder=tmp_path, broker=valkey.url, kubeconfig=cluster.kubeconfig, deployment="never", database=database
    )
    try:
        yard.dispatcher(YARD_WAITS=json.dumps(WAITS))
        sent = yard.send("add", 1, 2)
        row = parts.eventually(lambda: _of_reason(yard, sent.id, "ApiServerUnavailable"), 15)
        assert (row.phase, row.at_deadline) == ("Waiting", "fail")
        parts.eventually(sent.ready, 15)
        assert isinstance(sent.result, errors.PodFailed)
        assert "waited for the API server longer than 2 s" in str(sent.result)
    finally:
        yard.stop()
        cluster.stop()


def test_a_server_that_is_gone_ends_the_wait_of_what_was_never_sent_to_it(
    tmp_path: Path, valkey: parts.ValkeyDatabase
) -> None:
    """No connection, so no pod: nothing has to be asked."""
    cluster = parts.LocalCluster.start(tmp_path / "cluster")
    yard = Yard(folder=tmp_path, broker=valkey.url, kubeconfig=cluster.kubeconfig, deployment="gone")
    try:
        yard.dispatcher(YARD_WAITS=json.dumps(WAITS))
        assert yard.send("add", 1, 2).get(timeout=30) == 3
        os.kill(cluster.process.pid, signal.SIGKILL)
        cluster.process.wait(10)
        failed = failure(yard)
        assert {"reason": "ApiServerUnavailable", "cause": "application"}.items() <= failed.details.items()
    finally:
        yard.stop()
        cluster.stop()
