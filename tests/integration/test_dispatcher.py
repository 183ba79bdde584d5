"""The dispatcher on real parts: Valkey, Celery and the local cluster's Kubernetes API."""

import pytest
from celery import chord, group

from dispatcher import errors
from tests import parts
from tests.integration.yard_parts import Yard, failure_of, pods_of, runs

WAIT_S = 30


@pytest.fixture(scope="module")
def shared(shared: Yard) -> Yard:
    """With a prefork worker beside the dispatcher."""
    shared.worker()
    return shared


def test_a_task_on_the_queue_kubernetes_runs_in_a_pod(shared: Yard) -> None:
    """Its result comes back through the pod, and AsyncResult knows nothing of pods."""
    assert shared.send("add", 2, 3).get(timeout=WAIT_S) == 5


def test_the_request_in_a_pod_is_the_messages_and_no_credential_is_there(shared: Yard) -> None:
    """`self.request` has id, retries, queue and root id; the environment has no broker."""
    sent = shared.send("about")

    about = sent.get(timeout=WAIT_S)

    assert about == {"id": sent.id, "retries": 0, "queue": "kubernetes", "root_id": sent.id, "environment": []}


def test_an_exception_keeps_type_arguments_and_traceback(shared: Yard) -> None:
    """The pod's traceback is the stored one, not that of the replay."""
    sent = shared.send("fail", "größer als ∞")

    error = failure_of(sent)

    assert (type(error), error.args) == (ValueError, ("größer als ∞", {"day": 5}))
    assert "raise ValueError(text" in sent.traceback
    assert "replay.py" not in sent.traceback


@pytest.mark.parametrize("size", [3_000, 60_000, 900_000])
def test_a_result_of_any_size_below_the_limit_comes_back(shared: Yard, size: int) -> None:
    """Small ones by the termination message, larger ones by a frame in the log."""
    assert shared.send("large", size).get(timeout=WAIT_S) == "x" * size


def test_a_result_over_the_limit_fails_with_size_limit_and_way_out(shared: Yard) -> None:
    """5 MB: the body ran, its result cannot travel, and the failure says so."""
    error = failure_of(shared.send("large", 5_000_000))

    assert isinstance(error, errors.PodFailed)
    assert "5000002 bytes" in str(error)
    assert "results.max_bytes" in str(error)


def test_a_result_without_json_form_fails_as_such(shared: Yard) -> None:
    """The cause is in the result."""
    error = failure_of(shared.send("strange"))

    assert "no JSON form" in str(error)


@pytest.mark.parametrize(("task", "reason"), [("leave", "Error"), ("leave_politely", "Error")])
def test_a_body_that_ends_the_interpreter_is_a_failure_with_its_exit_code(shared: Yard, task: str, reason: str) -> None:
    """os._exit leaves no outcome, sys.exit does: both name exit code 3 and the author's side."""
    error = failure_of(shared.send(task, 3))

    assert isinstance(error, errors.PodFailed)
    assert {"reason": reason, "exit_code": 3, "cause": "application"}.items() <= error.details.items()


def test_a_task_that_the_pod_does_not_know_fails_alone(shared: Yard) -> None:
    """An unknown name never reaches a pod: Celery's consumer refuses it; the dispatcher goes on."""
    shared.send("nobody_wrote_this")

    assert shared.send("add", 1, 1).get(timeout=WAIT_S) == 2


def test_retries_run_in_pods_of_their_own_until_success(shared: Yard) -> None:
    """`self.retry` in the pod is carried out by the dispatcher."""
    assert shared.send("flaky").get(timeout=WAIT_S) == 2


def test_autoretry_ends_with_the_last_exception(shared: Yard) -> None:
    """Two tries, then the task's own exception."""
    error = failure_of(shared.send("stubborn"))

    assert (type(error), error.args) == (OSError, ("try 1",))


def test_chains_go_from_pod_to_worker_to_pod(shared: Yard) -> None:
    """(((1 + 1) in a pod) + 10) in a worker + 100 in a pod."""
    steps = shared.signature("add", 1, 1) | shared.signature("add", 10, queue="default") | shared.signature("add", 100)

    assert steps.apply_async().get(timeout=WAIT_S) == 112


def test_a_mixed_chord_counts_both_halves(shared: Yard) -> None:
    """Header half in pods, half in workers; the body sees all values."""
    header = group(
        shared.signature("add", number, 0, queue="kubernetes" if number % 2 else "default", app=shared.client)
        for number in range(6)
    )

    result = chord(header, app=shared.client)(shared.signature("total", queue="default"))

    assert result.get(timeout=WAIT_S) == 15


def test_a_pod_of_any_image_is_a_celery_task(shared: Yard) -> None:
    """`dispatcher.pod` succeeds by exit code 0, and its log is saved before the pod is deleted; not for everybody."""
    kwargs = {
        "image": "busybox:1.36",
        "cmds": ["sh", "-c"],
        "arguments": ["echo hello $NAME"],
        "env_vars": {"NAME": "yard"},
    }
    sent = shared.client.send_task("dispatcher.pod", kwargs=kwargs, queue="kubernetes")

    assert sent.get(timeout=WAIT_S) is None
    log = shared.logs / f"{sent.id}.log"
    assert parts.eventually(lambda: log.exists() and log.read_text(), 10) == "hello yard\n"
    assert log.stat().st_mode & 0o007 == 0


def test_a_failing_pod_of_any_image_tells_exit_code_and_container(shared: Yard) -> None:
    """The base container decides."""
    kwargs = {"image": "busybox:1.36", "cmds": ["sh", "-c", "exit 3"]}
    error = failure_of(shared.client.send_task("dispatcher.pod", kwargs=kwargs, queue="kubernetes"))

    assert isinstance(error, errors.PodFailed)
    assert {"exit_code": 3, "reason": "Error", "container": "base"}.items() <= error.details.items()


def test_a_wish_that_cannot_be_granted_fails_before_any_call(shared: Yard) -> None:
    """An override with an unknown field names its path; no pod is made."""
    wishes = {"podyard": {"pod_override": {"spec": {"containers": [{"name": "base", "imagge": "x"}]}}}}
    error = failure_of(shared.send("add", 1, 1, headers=wishes))

    assert "spec.containers[0].imagge" in str(error)


def test_flower_and_inspect_see_the_pod_as_the_worker_process(shared: Yard) -> None:
    """`inspect active` shows the pod's name, `stats` the pods in flight; `revoke(terminate=True)` deletes the pod."""
    sent = shared.send("nap", 60)
    inspect = shared.client.control.inspect([f"dispatcher@{shared.deployment}"], timeout=1)

    def mine() -> dict[str, object] | None:
        active = (inspect.active() or {}).get(f"dispatcher@{shared.deployment}", [])
        return next((entry for entry in active if entry["id"] == sent.id), None)

    entry = parts.eventually(mine, 10)

    pod = entry["worker_pid"]
    assert pod.startswith("tests-apps-yard-nap-")
    node = f"dispatcher@{shared.deployment}"
    parts.eventually(lambda: inspect.stats()[node]["pool"]["pods-in-flight"] >= 1, WAIT_S)
    assert pod in pods_of(shared)

    shared.client.control.revoke(sent.id, terminate=True)
    parts.eventually(lambda: sent.state == "REVOKED", 10)
    parts.eventually(lambda: pod not in pods_of(shared), 15, what="the pod is deleted")


def test_a_hard_time_limit_ends_the_pod(shared: Yard) -> None:
    """TimeLimitExceeded is Celery's own; the pod is deleted."""
    error = failure_of(shared.send("nap", 60, time_limit=1))

    assert type(error).__name__ == "TimeLimitExceeded"


def test_pods_are_deleted_after_their_outcome_is_stored(shared: Yard) -> None:
    """Nothing is left over when all tasks are done."""
    assert shared.send("add", 1, 2).get(timeout=WAIT_S) == 3
    parts.eventually(lambda: not pods_of(shared), 15, what="no pod of the deployment is left")


def test_a_killed_dispatcher_loses_nothing_and_runs_nothing_twice(yard: Yard) -> None:
    """SIGKILL in the middle: the next one adopts the pods, results are stored, chains go on, each body ran once."""
    first = yard.dispatcher()
    chained = (yard.signature("nap", 3) | yard.signature("about")).apply_async()
    naps = [yard.send("nap", 3) for _ in range(4)]
    parts.eventually(lambda: yard.trace.exists() and len(yard.trace.read_text().splitlines()) == 5, 20)

    yard.kill(first)
    yard.dispatcher()

    assert [nap.get(timeout=WAIT_S) for nap in naps] == ["slept"] * 4
    with pytest.raises(TypeError):  # `about` takes no argument: it ran, in the chain
        chained.get(timeout=WAIT_S)
    ran = [line.split()[0] for line in yard.trace.read_text().splitlines()]
    assert len(ran) == len(set(ran)) == 5
    parts.eventually(lambda: not pods_of(yard), 15)


def test_what_waits_so_long_that_it_comes_again_outlives_the_dispatcher(yard: Yard) -> None:
    """Both deliveries are one message to the broker: it is not acknowledged before there is a pod."""
    first = yard.dispatcher(YARD_MAX_PODS="1")
    running = yard.send("nap", 20)
    parts.eventually(lambda: runs(yard, running.id) == 1, 20)
    waiting = yard.send("nap", 0.1)
    log = yard.folder / "dispatcher.log"
    parts.eventually(lambda: f"runs once attempt_id={waiting.id}" in log.read_text(), 30)

    yard.kill(first)
    yard.dispatcher(YARD_MAX_PODS="1")

    assert [sent.get(timeout=2 * WAIT_S) for sent in (running, waiting)] == ["slept"] * 2
    assert (runs(yard, running.id), runs(yard, waiting.id)) == (1, 1)
    parts.eventually(lambda: unacknowledged(yard) == 0, WAIT_S, what="nothing is left in the broker")


def test_what_waits_so_long_that_it_comes_again_can_be_revoked(yard: Yard) -> None:
    """Celery forgets a request's id when a second delivery of it ends; the first is found all the same."""
    yard.dispatcher(YARD_MAX_PODS="1")
    running = yard.send("nap", 30)
    parts.eventually(lambda: runs(yard, running.id) == 1, 20)
    waiting = yard.send("nap", 0.1)
    log = yard.folder / "dispatcher.log"
    parts.eventually(lambda: f"runs once attempt_id={waiting.id}" in log.read_text(), 30)

    yard.client.control.revoke(waiting.id, terminate=True)

    parts.eventually(lambda: waiting.state == "REVOKED", 10)
    assert running.get(timeout=2 * WAIT_S) == "slept"
    assert runs(yard, waiting.id) == 0


def unacknowledged(yard: Yard) -> int:
    """Messages that the broker has given out and heard nothing of."""
    with yard.client.connection_for_read() as connection:
        count: int = connection.default_channel.client.hlen("unacked")
        return count


def test_pods_that_ended_while_nobody_watched_are_finished_from_their_status(yard: Yard) -> None:
    """The dispatcher is away when the pods end; their outcomes wait in the cluster."""
    first = yard.dispatcher()
    naps = [yard.send("nap", 1) for _ in range(3)]
    parts.eventually(lambda: yard.trace.exists() and len(yard.trace.read_text().splitlines()) == 3, 20)
    yard.kill(first)
    parts.eventually(lambda: {pod["status"]["phase"] for pod in pods_of(yard).values()} == {"Succeeded"}, 15)

    yard.dispatcher()

    assert [nap.get(timeout=WAIT_S) for nap in naps] == ["slept"] * 3


def test_the_limit_of_pods_holds_and_the_rest_waits_its_turn(yard: Yard) -> None:
    """max_pods = 2: five naps run two at a time, and all of them end."""
    yard.dispatcher(YARD_MAX_PODS="2")
    naps = [yard.send("nap", 0.5) for _ in range(5)]
    peak = 0

    def done() -> bool:
        nonlocal peak
        alive = [pod for pod in pods_of(yard).values() if pod["status"]["phase"] in ("Pending", "Running")]
        peak = max(peak, len(alive))
        return all(nap.ready() for nap in naps)

    parts.eventually(done, WAIT_S, every_s=0.05)
    assert peak <= 2


def test_a_broker_that_dies_ends_no_worker_and_doubles_no_task(
    tmp_path, own_valkey: parts.Valkey, local_cluster: parts.LocalCluster, deployment: str
) -> None:
    """SIGKILL of the broker while messages wait unacknowledged: both workers reconnect, each body runs once."""
    broker = own_valkey.fresh().url
    with Yard(folder=tmp_path, broker=broker, kubeconfig=local_cluster.kubeconfig, deployment=deployment) as yard:
        processes = [yard.dispatcher(YARD_MAX_PODS="2"), yard.worker()]
        naps = [yard.send("nap", 1) for _ in range(6)]
        parts.eventually(lambda: yard.trace.exists() and len(yard.trace.read_text().splitlines()) >= 2, 20)

        own_valkey.kill()
        own_valkey.restart()

        for nap in naps:
            assert yard.client.AsyncResult(nap.id).get(timeout=60) == "slept"
        assert [process.poll() for process in processes] == [None, None]
        ran = [line.split()[0] for line in yard.trace.read_text().splitlines()]
        assert sorted(ran) == sorted(nap.id for nap in naps)
