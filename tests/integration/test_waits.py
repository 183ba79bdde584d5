"""Every wait on real parts: `tasks explain` says what for, since when, until when and what then; and then it happens.

One installation with a queue for each kind of wait and each action, all with deadlines of seconds. Each task is brought
into its wait by the world (a quota, a volume that nobody has, an image that cannot be pulled …), not by a mock.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from dispatcher.attempts import wait_rules
from dispatcher.localcluster.faults import client, kinds
from routing.store import rows
from tests import parts
from tests.integration import yard_parts
from tests.integration.halves import Half

AFTER_S = 3
ACTIONS = ("wait", "retry", "fail")
OF_PODS = ("slot", "quota", "api_server", "unschedulable", "image", "config", "volume", "start")
NAMESPACES = {"quota": "full", "api_server": "away"}
POD = """
KubernetesPodOperator(
        task_id="{name}", queue="{name}", image="{image}", cmds=["sh", "-c", "true"], full_pod_spec={spec}
    )
"""
CSI = {
    "volumes": [{"name": "far", "csi": {"driver": "nowhere.example.com"}}],
    "containers": [{"name": "base", "volumeMounts": [{"name": "far", "mountPath": "/far"}]}],
}
SECRET = [{"name": "base", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "a"}}}]}]
INIT = [{"name": "slow", "image": "busybox:1.37", "command": ["sleep", "600"]}]
SPECS = {
    "unschedulable": {"nodeSelector": {"disk": "holographic"}},
    "config": {"containers": SECRET},
    "volume": CSI,
    "start": {"initContainers": INIT},
}
REASONS = {
    "slot": "QueueLimit",
    "quota": "QuotaExceeded",
    "api_server": "ApiServerError",
    "unschedulable": "Unschedulable",
    "image": "ErrImagePull|ImagePullBackOff",
    "config": "CreateContainerConfigError",
    "volume": "FailedMount",
    "start": "PodInitializing",
}


@dataclass(kw_only=True)
class House:
    """An installation with both sides, and what was seen of its waits."""

    half: Half
    cluster: parts.LocalCluster
    dispatcher: "parts.subprocess.Popen[bytes] | None" = None
    run: rows.RunRow | None = None
    seen: dict[str, rows.Explanation] = field(default_factory=dict)
    """Task -> the last explanation of its first attempt that named a wait of the kind that it was made for."""

    def explain(self, task_id: str, *, run: rows.RunRow | None = None) -> rows.Explanation:
        """As `podyard tasks explain` does."""
        of = run or self.run
        assert of is not None
        return self.half.store.explain(of.run_id, task_id, dag_id=of.dag_id, at=datetime.now(UTC))

    def waits_as(
        self, task_id: str, kind: str, *, run: rows.RunRow | None = None, timeout_s: float = 20
    ) -> rows.WaitRow:
        """The wait of a task, once it is of that kind and has a deadline."""

        def look() -> rows.WaitRow | None:
            wait = self.explain(task_id, run=run).wait
            return wait if wait is not None and wait.kind == kind and wait.at_deadline else None

        return parts.eventually(look, timeout_s, what=f"{task_id} waits for {kind}")


def rules() -> str:
    """The rules of all queues. Nobody consumes a queue that no rule names exactly, unless told to."""
    tables = []
    for action in ACTIONS:
        for kind in OF_PODS:
            most = 1 if kind == "slot" else 100
            namespace = NAMESPACES.get(kind, "default")
            about_pods = f'namespace = "{namespace}"\nmax_pods = {most}'
            tables.append(rule(f"{kind}-{action}", "kubernetes", kind, action, about_pods))
        tables.append(rule(f"nobody-celery-{action}", "celery", "consumer", action))
        tables.append(rule(f"nobody-kubernetes-{action}*", "kubernetes", "consumer", action))
        tables.append(rule(f"busy-{action}", "celery", "queued", action))
    return "".join(tables)


def rule(queue: str, side: str, kind: str, action: str, more: str = "") -> str:
    waits = f'waits = {{ {kind} = "{action} after {AFTER_S}s" }}'
    return f'[queues."{queue}"]\nside = "{side}"\n{waits}\n{more}\n'


def dags() -> str:
    """One DAG that holds slots, one whose tasks wait."""
    text = 'with DAG("holds"):\n'
    for action in ACTIONS:
        pod = POD.format(name=f"slot-{action}", image="busybox:1.37", spec={}).replace("true", "sleep 600")
        text += f"    {pod.strip()}\n"
    text += (
        '    @task(queue="busy-wait")\n    def works():\n        import time\n        time.sleep(600)\n    works()\n'
    )
    text += 'with DAG("waits"):\n'
    for kind in OF_PODS:
        for action in ACTIONS:
            image = "missing:1" if kind == "image" else "busybox:1.37"
            spec = {"spec": SPECS[kind]} if kind in SPECS else {}
            text += f"    {POD.format(name=f'{kind}-{action}', image=image, spec=spec).strip()}\n"
    names = [f"nobody-{side}-{action}" for side in ("celery", "kubernetes") for action in ACTIONS]
    for name in [*names, *(f"busy-{action}" for action in ACTIONS)]:
        text += f'    BashOperator(task_id="{name}", bash_command="true", queue="{name}")\n'
    return text


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, valkey_server: parts.Valkey) -> Iterator[House]:
    """Everything runs, every task waits, and what their explanations said first was kept."""
    folder = tmp_path_factory.mktemp("waits")
    with contextlib.ExitStack() as stack:
        cluster = parts.LocalCluster.start(folder / "cluster", "--faults")
        stack.callback(cluster.stop)
        more = (
            f'[kubernetes]\nkubeconfig = "{cluster.kubeconfig}"\n'
            f"[scheduler]\ninfra_retries = 1\ninfra_retry_delay_s = 0.1\n{rules()}"
        )
        half = Half.make(folder / "half", broker=valkey_server.fresh().url, more=more)
        stack.callback(half.close)
        make_the_world(cluster)
        half.write_dag(dags())
        process = stack.enter_context(dispatcher(half, [f"{kind}-{action}" for kind in OF_PODS for action in ACTIONS]))
        stack.enter_context(half.worker(concurrency=1, queues=",".join(f"busy-{action}" for action in ACTIONS)))
        stack.enter_context(half.scheduler())
        house = House(half=half, cluster=cluster, dispatcher=process)
        held = half.trigger("holds")
        for task in half.store.tasks(held.run_id, dag_id="holds"):
            half.wait_task(held, task.task_id, lambda task: task.state == "running", timeout_s=60)
        busy = {f"busy-{action}" for action in ACTIONS}
        parts.eventually(lambda: busy <= {one.queue for one in half.store.consumers()}, 20, what="the worker is seen")
        house.run = half.trigger("waits")
        watch(house)
        yield house


@contextlib.contextmanager
def dispatcher(
    half: Half, queues: list[str], name: str = "dispatcher@waits"
) -> Iterator["parts.subprocess.Popen[bytes]"]:
    """The dispatcher as people start it."""
    log = half.folder / f"{name}.log"
    words = ("dispatcher", "--config", half.config, "--name", name, "--queues", ",".join(queues))
    process = parts.start([sys.executable, "-m", "routing.cli", *words], log=log, cwd=half.folder)
    try:
        yield process
    finally:
        parts.stop(process)


def make_the_world(cluster: parts.LocalCluster) -> None:
    """Namespaces, a quota of nothing, an image that cannot be pulled, creates that fail."""
    for name in NAMESPACES.values():
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        yard_parts.api_call(cluster.kubeconfig, "/api/v1/namespaces", method="POST", body=body)
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "nothing"},
        "spec": {"hard": {"pods": "0"}},
    }
    path = "/api/v1/namespaces/full/resourcequotas"
    yard_parts.api_call(cluster.kubeconfig, path, method="POST", body=quota)
    faults = client.Faults.of(cluster.kubeconfig)
    faults.add(kinds.Unpullable(image="missing:*"))
    faults.fail("create", 503, resource="pods", namespace="away")


def kind_of(task_id: str) -> str:
    kind = task_id.rpartition("-")[0]
    return {"nobody-celery": "consumer", "nobody-kubernetes": "consumer", "busy": "queued"}.get(kind, kind)


def watch(house: House) -> None:
    """Look at all tasks until each was seen in its wait, with a reason that is not only about to be known."""
    wanted = {task.task_id for task in tasks(house)}

    def look() -> bool:
        for task_id in wanted - house.seen.keys():
            facts = house.explain(task_id)
            wait = facts.wait
            is_first = len(facts.attempts) == 1
            if is_first and wait is not None and wait.kind == kind_of(task_id) and wait.at_deadline:
                house.seen[task_id] = facts
        assert not wanted - house.seen.keys(), {one: house.explain(one).lines[:4] for one in wanted - house.seen.keys()}
        return True

    parts.eventually(look, 30, what="each task was seen in its wait")


def tasks(house: House) -> list[rows.TaskRow]:
    assert house.run is not None
    return house.half.store.tasks(house.run.run_id, dag_id="waits")


def of(action: str) -> list[str]:
    names = [*OF_PODS, "nobody-celery", "nobody-kubernetes", "busy"]
    return [f"{name}-{action}" for name in names]


ALL = [name for action in ACTIONS for name in of(action)]


@pytest.mark.parametrize("task_id", ALL)
def test_each_wait_says_what_for_since_when_until_when_and_what_then(house: House, task_id: str) -> None:
    """In words, and as fields."""
    facts = house.seen[task_id]
    wait, kind, action = facts.wait, kind_of(task_id), task_id.rpartition("-")[2]
    assert wait is not None
    assert wait.deadline_at is not None
    assert (wait.kind, wait.at_deadline) == (kind, action)
    assert AFTER_S - 0.5 <= (wait.deadline_at - wait.since).total_seconds() <= AFTER_S + 0.5
    if kind in REASONS:
        assert re.fullmatch(REASONS[kind], wait.reason or ""), wait
    told = "\n".join(facts.lines)
    assert wait_rules.Rule(action=wait_rules.action(action)).consequence in told
    assert f"waits.{kind} of the queue {task_id}" in told
    assert f"since {wait.since.astimezone():%H:%M:%S}" in told


@pytest.mark.parametrize("task_id", of("fail"))
def test_fail_ends_it_with_kind_time_and_way_out(house: House, task_id: str) -> None:
    """As the task's own failure, which its own `retries` may answer."""
    task = finished(house, task_id)
    [attempt] = house.explain(task_id).attempts
    assert (task.state, attempt.state, attempt.cause) == ("failed", "failed", "application")
    assert f"{AFTER_S} s (waits.{kind_of(task_id)} of the queue {task_id})" in (attempt.error or "")
    assert wait_rules.KINDS[kind_of(task_id)].remedy in (attempt.error or "")


@pytest.mark.parametrize("task_id", of("retry"))
def test_retry_ends_it_on_the_budget_of_the_infrastructure(house: House, task_id: str) -> None:
    """Its next attempt waits as long, and then the budget of one is used up."""
    task = finished(house, task_id)
    attempts = house.explain(task_id).attempts
    assert [one.cause for one in attempts] == ["infrastructure", "infrastructure"]
    assert task.state == "failed"


@pytest.mark.parametrize("task_id", of("wait"))
def test_wait_goes_on_and_says_that_its_deadline_has_passed(house: House, task_id: str) -> None:
    """It is the same attempt."""

    def passed() -> bool:
        facts = house.explain(task_id)
        assert [one.state for one in facts.attempts] == ["sent"], facts.lines
        return any("its deadline was" in line and "it goes on waiting" in line for line in facts.lines)

    parts.eventually(passed, 20)


def test_P15_a_pod_that_fits_no_node_ends_at_its_deadline_as_the_queue_says(house: House) -> None:
    """Its own failure, or the infrastructure's; with the scheduler's words."""
    for action, cause in (("fail", "application"), ("retry", "infrastructure")):
        finished(house, f"unschedulable-{action}")
        attempt = house.explain(f"unschedulable-{action}").attempts[-1]
        assert (attempt.reason, attempt.cause) == ("Unschedulable", cause)
        assert "didn't match Pod's node affinity/selector" in (attempt.error or "")


def test_P18_a_pod_stuck_in_ContainerCreating_ends_at_its_deadline_with_what_it_waits_for(house: House) -> None:
    """Its status says only ContainerCreating; its events name the volume."""
    finished(house, "volume-retry")
    attempt = house.explain("volume-retry").attempts[0]
    assert (attempt.reason, attempt.cause) == ("FailedMount", "infrastructure")
    assert 'volume "far"' in (attempt.error or "")


@pytest.mark.parametrize("side", ["celery", "kubernetes"])
def test_B10_a_queue_without_a_consumer_is_named_and_ends_attempts_as_it_says(house: House, side: str) -> None:
    """Either side; the message in the queue begins nothing later."""
    assert f"no worker consumes the queue 'nobody-{side}-wait'" in house.seen[f"nobody-{side}-wait"].lines[1]
    finished(house, f"nobody-{side}-fail")
    assert house.explain(f"nobody-{side}-fail").attempts[0].reason == "NoConsumer"


def test_no_pod_of_an_ended_attempt_is_left(house: House) -> None:
    """Deleted before the verdict, whatever the policy says: none can start later."""
    for task_id in (*of("fail"), *of("retry")):
        finished(house, task_id)
    alive = {"slot-wait", "slot-retry", "slot-fail"} | {f"{kind}-wait" for kind in OF_PODS}
    for pod in yard_parts.api_get(house.cluster.kubeconfig, "/api/v1/pods")["items"]:
        assert pod["metadata"]["annotations"]["podyard.dev/queue"] in alive


def test_a_message_whose_attempt_has_ended_begins_nothing_when_a_consumer_comes(house: House) -> None:
    """The verdict was given while nobody consumed the queue; the message is still in it, and leaves no pod."""
    finished(house, "nobody-kubernetes-fail")
    queue = "nobody-kubernetes-fail"
    with dispatcher(house.half, [queue], name="late@waits"):
        parts.eventually(lambda: backlog(house, queue) == 0, 30, what="the message is taken")
        [consumer] = parts.eventually(
            lambda: [one for one in house.half.store.consumers() if one.queue == queue], 20, what="it consumes"
        )
        assert consumer.worker == "late@waits"
    [attempt] = house.explain(queue).attempts
    assert (attempt.state, attempt.pod, attempt.started_at) == ("failed", None, None)
    assert {entry.get("verdict") for entry in attempt.evidence} <= {"revoked"}
    pods = yard_parts.api_get(house.cluster.kubeconfig, "/api/v1/pods")["items"]
    assert queue not in {pod["metadata"]["annotations"]["podyard.dev/queue"] for pod in pods}


def backlog(house: House, queue: str) -> int:
    """Messages in a queue; an empty one does not exist in Redis."""
    with house.half.app.connection_for_write() as connection, contextlib.suppress(*connection.channel_errors):
        return int(connection.default_channel.queue_declare(queue=queue, passive=True).message_count)
    return 0


def test_what_a_dispatcher_that_is_gone_said_of_a_wait_is_old(house: House) -> None:
    """Its slots do not matter any more: nobody consumes the queue, and that is what is told. Comes last: it kills."""
    house.waits_as("slot-wait", "slot")
    assert house.dispatcher is not None
    house.dispatcher.kill()
    house.waits_as("slot-wait", "consumer")
    lines = house.explain("slot-wait").lines
    assert "no worker consumes the queue 'slot-wait'" in lines[1]
    assert "(waits.consumer of the queue slot-wait)" in lines[2]


def finished(house: House, task_id: str) -> rows.TaskRow:
    assert house.run is not None
    return house.half.wait_task(house.run, task_id, lambda task: task.state in ("failed", "success"), timeout_s=40)
