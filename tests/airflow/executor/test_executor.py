"""PodyardExecutor against the installed provider: what it sends, reports and takes back. No server and no network.

Runs in the environment of Airflow (`make test-airflow`), once for each release that is supported: what the provider
calls by name and does with the answer is held here.
"""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from airflow.executors.workloads import ExecuteTask
from airflow.providers.celery.executors.celery_executor import CeleryExecutor
from airflow.utils.state import TaskInstanceState
from celery import states
from celery.exceptions import TaskRevokedError
from kombu import exceptions

from dispatcher import errors
from routing.airflow import PodyardExecutor

POD_QUEUE = "kubernetes"
INSTANCE = ExecuteTask.model_fields["ti"].annotation
assert INSTANCE is not None


def workload(queue: str = POD_QUEUE, task: str = "load", **config: Any) -> ExecuteTask:
    """A workload as the scheduler of this Airflow makes it."""
    given = {
        "id": str(uuid4()),
        "dag_version_id": str(uuid4()),
        "dag_id": "sales",
        "task_id": task,
        "run_id": "manual__1",
        "try_number": 1,
        "map_index": -1,
        "pool_slots": 1,
        "priority_weight": 1,
        "queue": queue,
        "executor_config": config or None,
        "external_executor_id": str(uuid4())
        if CeleryExecutor.__dict__.get("pre_assigns_external_executor_id")
        else None,
    }
    known = {name: value for name, value in given.items() if name in INSTANCE.model_fields}
    return ExecuteTask(
        ti=INSTANCE.model_validate(known),
        dag_rel_path="sales.py",
        token="not-for-everybody",
        bundle_info={"name": "dags-folder"},
        log_path="a/path.log",
    )


@pytest.fixture
def executor() -> Iterator[PodyardExecutor]:
    made = PodyardExecutor()
    made.celery_app.conf.result_backend_transport_options = {}
    yield made
    with made.celery_app.connection_for_write() as connection:
        for queue in (POD_QUEUE, "default"):
            connection.SimpleQueue(queue).clear()


def queue_up(executor: PodyardExecutor, *workloads: ExecuteTask) -> None:
    """As the scheduler does, and one heartbeat."""
    for one in workloads:
        executor.queue_workload(one, session=None)
    executor.heartbeat()


def sent(executor: PodyardExecutor, queue: str) -> list[Any]:
    """The messages in a queue."""
    found = []
    with executor.celery_app.connection_for_write() as connection:
        inbox = connection.SimpleQueue(queue)
        while inbox.qsize():
            found.append(inbox.get_nowait())
    return found


def test_each_task_goes_to_the_side_of_its_queue(executor: PodyardExecutor) -> None:
    """Both are known to the provider as sent: running, QUEUED under their Celery ids, and queued no longer."""
    pod, worker = workload(), workload("default", "report")
    queue_up(executor, pod, worker)
    (for_pod,), (for_worker,) = sent(executor, POD_QUEUE), sent(executor, "default")
    assert for_pod.headers["podyard"]["name"] == ["sales", "load"]
    assert "podyard" not in for_worker.headers
    assert executor.running == {pod.ti.key, worker.ti.key}
    assert not executor.queued_tasks
    assert executor.get_event_buffer() == {
        pod.ti.key: (TaskInstanceState.QUEUED, for_pod.headers["id"]),
        worker.ti.key: (TaskInstanceState.QUEUED, for_worker.headers["id"]),
    }


def test_the_message_is_one_that_airflows_own_worker_could_run(executor: PodyardExecutor) -> None:
    """Same task, same body; the id is the one that the scheduler has committed, where it does."""
    pod = workload()
    queue_up(executor, pod)
    (message,) = sent(executor, POD_QUEUE)
    (body,), kwargs, _ = message.decode()
    assert (message.headers["task"], kwargs) == ("execute_workload", {})
    assert json.loads(body) == json.loads(pod.model_dump_json())
    committed = getattr(pod.ti, "external_executor_id", None)
    assert committed is None or message.headers["id"] == committed


def test_no_monitor_is_shown_the_token(executor: PodyardExecutor) -> None:
    """Celery puts a readable form of the arguments into headers and events."""
    queue_up(executor, workload())
    (message,) = sent(executor, POD_QUEUE)
    assert "not-for-everybody" not in json.dumps(dict(message.headers))


def test_executor_config_travels_beside_the_workload(executor: PodyardExecutor) -> None:
    """Airflow leaves it out of the workload's JSON."""
    override = {"spec": {"containers": [{"name": "base", "image": "mine:1"}]}}
    queue_up(executor, workload(pod_override=override, pod_template_file="gpu"))
    (message,) = sent(executor, POD_QUEUE)
    pod = message.headers["podyard"]
    assert pod["pod_override"]["spec"] == override["spec"]
    assert pod["pod_template_file"] == "gpu"
    assert pod["labels"]["dag_id"] == "sales"


def test_a_wrong_override_fails_that_one_task_and_says_where(executor: PodyardExecutor) -> None:
    """Nothing is sent for it; its neighbour is not touched."""
    wrong = workload(pod_override={"spec": {"containers": [{"name": "base", "imagge": "x"}]}})
    right = workload(task="right")
    queue_up(executor, wrong, right)
    executor.sync()
    assert len(sent(executor, POD_QUEUE)) == 1
    events = executor.get_event_buffer()
    state, info = events[wrong.ti.key]
    assert state == TaskInstanceState.FAILED
    assert "spec.containers[0].imagge" in info
    assert events[right.ti.key][0] == TaskInstanceState.QUEUED


class Broken:
    """A broker that is away, in the place of Celery's connection pool."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise exceptions.OperationalError("connection refused")


def test_a_broker_that_is_away_leaves_tasks_queued(executor: PodyardExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """They fail on the provider's own way; here they are sent by a later heartbeat, under the same id."""
    one, other = workload(), workload(task="other")
    with monkeypatch.context() as patch:
        patch.setattr(executor.celery_app, "producer_or_acquire", Broken())
        queue_up(executor, one, other)
        assert set(executor.queued_tasks) == {one.ti.key, other.ti.key}
        assert not executor.get_event_buffer()
    executor.heartbeat()
    assert len(sent(executor, POD_QUEUE)) == 2
    assert not executor.queued_tasks


def stored(executor: PodyardExecutor, result: Any, state: str) -> tuple[Any, Any]:
    """A task of a pod that was sent, and what a dispatcher stored for it; then a sync."""
    one = workload()
    queue_up(executor, one)
    (message,) = sent(executor, POD_QUEUE)
    executor.get_event_buffer()
    executor.celery_app.backend.store_result(message.headers["id"], result, state)
    executor.sync()
    return one.ti.key, executor.get_event_buffer()


def test_the_reason_of_a_failure_reaches_the_event(executor: PodyardExecutor) -> None:
    """From there it gets into Airflow's event log; the provider alone loses it."""
    failed = errors.PodFailed("the pod x failed: OOMKilled", {"reason": "OOMKilled", "what_to_do": "give it memory"})
    key, events = stored(executor, failed, states.FAILURE)
    assert events == {key: (TaskInstanceState.FAILED, "the pod x failed: OOMKilled; to do: give it memory")}


def test_success_is_reported_as_ever(executor: PodyardExecutor) -> None:
    """And the task runs no longer."""
    key, events = stored(executor, None, states.SUCCESS)
    assert events == {key: (TaskInstanceState.SUCCESS, None)}
    assert not executor.running


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (TaskRevokedError("expired"), states.REVOKED),
        (errors.PodFailed("too late", {"reason": "WorkloadExpired"}), states.FAILURE),
    ],
)
def test_an_expired_token_is_reported_to_nobody(executor: PodyardExecutor, result: Any, state: str) -> None:
    """The row stays QUEUED, so Airflow finds it stuck and queues it again; then it is revoked and forgotten."""
    key, events = stored(executor, result, state)
    assert events == {}
    assert key in executor.running


def test_another_revocation_is_a_failure(executor: PodyardExecutor) -> None:
    """Somebody ended the task, in Flower for example."""
    key, events = stored(executor, TaskRevokedError("revoked"), states.REVOKED)
    assert events[key][0] == TaskInstanceState.FAILED


def test_no_error_of_the_result_backend_leaves_sync(
    executor: PodyardExecutor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scheduler would end of it. It is said once, not with every heartbeat."""
    queue_up(executor, workload())

    def away(keys: Any) -> Any:
        raise ConnectionError("results are away")

    monkeypatch.setattr(executor.celery_app.backend, "mget", away)
    for _ in range(5):
        executor.sync()
    assert capsys.readouterr().out.count("results are away") == 1


class Control:
    """Takes down what is revoked, in the place of Celery's remote control."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.is_away = is_away

    def revoke(self, task_id: str, **more: Any) -> None:
        if self.is_away:
            raise exceptions.OperationalError("connection refused")
        self.calls.append((task_id, more))


@pytest.mark.parametrize(("queue", "ends_pod"), [(POD_QUEUE, True), ("default", False)])
def test_a_task_that_is_taken_back_is_ended_where_it_waits(
    executor: PodyardExecutor, monkeypatch: pytest.MonkeyPatch, queue: str, ends_pod: bool
) -> None:
    """A pod that waits is deleted; in a worker the provider only forbids the start. No event, nothing remembered."""
    one = workload(queue)
    queue_up(executor, one)
    (message,) = sent(executor, queue)
    executor.get_event_buffer()
    control = Control()
    monkeypatch.setattr(executor.celery_app, "control", control)
    executor.revoke_task(ti=one.ti)
    assert ((message.headers["id"], {"terminate": True}) in control.calls) is ends_pod
    assert one.ti.key not in executor.running
    assert not executor.get_event_buffer()


def test_a_broker_that_is_away_raises_nothing_from_a_revocation(
    executor: PodyardExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow asks so: the scheduler goes on."""
    one = workload()
    queue_up(executor, one)
    monkeypatch.setattr(executor.celery_app, "control", Control(is_away=True))
    executor.revoke_task(ti=one.ti)
    assert one.ti.key not in executor.running


def test_logs_of_workers_are_not_ours(executor: PodyardExecutor) -> None:
    """The provider answers as ever."""
    assert executor.get_task_log(workload("default").ti, 1) == ([], [])


def test_a_token_says_until_when_its_message_is_good(executor: PodyardExecutor) -> None:
    """The message expires a little before, by the form of token that this Airflow makes."""
    until = datetime.now(UTC) + timedelta(seconds=600)
    one = workload()
    one.token = executor.jwt_generator.generate(extras={"sub": str(one.ti.id)})
    queue_up(executor, one)
    (message,) = sent(executor, POD_QUEUE)
    expires = datetime.fromisoformat(message.headers["expires"])
    assert timedelta(seconds=-60) < expires - until < timedelta(seconds=0)


def test_the_scheduler_pays_for_nothing_heavy() -> None:
    """Neither for the dispatcher's half nor for the record."""
    assert not {
        name for name in sys.modules if name.startswith(("dispatcher.kubeapi", "dispatcher.worker", "routing.store"))
    }
