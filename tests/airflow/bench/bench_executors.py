"""Pods for 200 tasks of a real Airflow: PodyardExecutor beside `CeleryExecutor,KubernetesExecutor` of the providers.

    PODYARD_TEST_AIRFLOW=.venv-airflow-3.3/bin/python python -m tests.airflow.bench.bench_executors

By turns, each on a new database, broker and local cluster; the cluster holds pods as Running without a process
(`--hold`), so that creating them is all that is measured: at once, and with 150 ms more for each create. The
provider's executor has its best tuning (256 pods a loop, created side by side). Times of pods are taken from a watch
of its own; "queued" is when Airflow's database says so. CPU is that of the executor's calls in the scheduler's process,
and of the processes that it started; beside it that of the whole scheduler.
"""

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from dispatcher.kubeapi import client, server_access
from dispatcher.localcluster.faults.client import Faults
from routing.standalone import layout
from tests import parts
from tests.airflow import installation

TASKS = int(os.environ.get("BENCH_TASKS", "200"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2"))
LATENCIES_S = (0.0, 0.15)
HERE = Path(__file__).parent
OURS, THEIRS = "PodyardExecutor", "CeleryExecutor,KubernetesExecutor"
SETTLE_S = 5.0
TEMPLATE = """\
apiVersion: v1
kind: Pod
metadata: {name: replaced}
spec:
  restartPolicy: Never
  containers: [{name: base, image: "apache/airflow:test"}]
"""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one round gave."""

    pods_per_s: float
    """From the first task that was queued to the last pod."""
    burst_per_s: float
    """From the first pod to the last one."""
    waits_s: list[float]
    """Queued -> pod created, sorted."""
    executor_ms: float
    """CPU for each pod: calls of the executor, and the processes that it started."""
    scheduler_ms: float
    """CPU for each pod of the scheduler with all its processes."""

    def __str__(self) -> str:
        p50_s, p95_s = statistics.median(self.waits_s), self.waits_s[int(0.95 * (len(self.waits_s) - 1))]
        return (
            f"{self.pods_per_s:4.0f} pods/s (first to last pod {self.burst_per_s:4.0f})"
            f"   queued -> created p50 {p50_s:5.2f} s, p95 {p95_s:5.2f} s"
            f"   CPU per pod: executor {self.executor_ms:5.1f} ms, whole scheduler {self.scheduler_ms:5.1f} ms"
        )


async def created_at(kubeconfig: Path, *, ready: threading.Event) -> dict[str, float]:
    """Map index -> when its pod was seen, by a watch of its own."""
    seen: dict[str, float] = {}
    async with client.KubeClient(server_access.connect(kubeconfig=kubeconfig)) as api:
        listed = await api.list_pods("default", selector="dag_id=launches")
        ready.set()
        async for event in api.watch_pods(
            "default", selector="dag_id=launches", resource_version=listed.resource_version, silence_s=120
        ):
            if event["type"] == "ADDED":
                seen[event["object"]["metadata"]["annotations"]["map_index"]] = time.time()
                if len(seen) == TASKS:
                    break
    return seen


def cpu_s(process: psutil.Process) -> tuple[float, float]:
    """CPU of a process, and of all that it started."""
    children = [child for child in process.children(recursive=True) if child.is_running()]
    own = process.cpu_times()
    below = sum(sum(child.cpu_times()[:2]) for child in children) + own.children_user + own.children_system
    return own.user + own.system, below


def measured(made: installation.Installation, times: Path) -> Figures:
    ready = threading.Event()
    scheduler = psutil.Process(made.processes["scheduler"].pid)
    with ThreadPoolExecutor(1) as watcher:
        seen = watcher.submit(lambda: asyncio.run(created_at(made.kubeconfig, ready=ready)))
        ready.wait(10)
        before, spent_s = cpu_s(scheduler), json.loads(times.read_text())
        run = made.trigger("launches")
        pods = seen.result(300)
    settled = time.monotonic() + SETTLE_S
    parts.eventually(lambda: time.monotonic() > settled, SETTLE_S + 5, every_s=0.1)
    after, spent_s = cpu_s(scheduler), json.loads(times.read_text()) - spent_s
    queued = {str(one["map_index"]): datetime.fromisoformat(one["queued_when"]) for one in run.tasks().values()}
    moments = sorted(pods.values())
    below_s = after[1] - before[1]
    return Figures(
        pods_per_s=len(moments) / (moments[-1] - min(queued.values()).timestamp()),
        burst_per_s=(len(moments) - 1) / (moments[-1] - moments[0]),
        waits_s=sorted(pods[index] - queued[index].timestamp() for index in pods),
        executor_ms=1_000 * (spent_s + below_s) / TASKS,
        scheduler_ms=1_000 * (after[0] - before[0] + below_s) / TASKS,
    )


def settings_of(executor: str, folder: Path, kubeconfig: Path) -> Mapping[str, str]:
    ours = executor == OURS
    (folder / "template.yaml").write_text(TEMPLATE)
    return {
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dagfiles"),
        "AIRFLOW__CORE__EXECUTOR": (
            "timed_executors.TimedPodyardExecutor" if ours else "CeleryExecutor,timed_executors.TimedKubernetesExecutor"
        ),
        "BENCH_EXECUTOR": "" if ours else "timed_executors.TimedKubernetesExecutor",
        "BENCH_TASKS": str(TASKS),
        "BENCH_TIMES": str(folder / "times"),
        "PYTHONPATH": str(HERE),
        "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
        "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": str(kubeconfig),
        "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": "default",
        "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(folder / "template.yaml"),
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY": "apache/airflow",
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG": "test",
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_PODS_CREATION_BATCH_SIZE": "256",
        "AIRFLOW__KUBERNETES_EXECUTOR__ASYNC_POD_CREATION": "True",
        "PODYARD_QUEUES__KUBERNETES__MAX_PODS": str(TASKS),
    }


def one_round(folder: Path, database: str, executor: str, *, latency_s: float) -> Figures:
    """`database` has Airflow's tables, and nothing in them."""
    folder.mkdir()
    cluster = parts.LocalCluster.start(folder / "cluster", "--hold", "--faults")
    valkey = parts.Valkey.start(folder / "valkey")
    made = installation.Installation(
        folder=folder,
        database=database,
        valkey=valkey,
        kubeconfig=cluster.kubeconfig,
        port=layout.free_port(),
        settings=settings_of(executor, folder, cluster.kubeconfig),
    )
    try:
        made.start_api_server()
        made.wait_for_api()
        made.start("dag-processor", "dag-processor")
        made.wait_for_dag("launches")
        made.stop("dag-processor")  # it would take CPU from those who are compared
        if executor == OURS:
            made.start_dispatcher(env={"PODYARD_QUEUES__KUBERNETES__MAX_PODS": str(TASKS)})
            made.wait_for_dispatcher()
        made.start_scheduler()
        parts.eventually((folder / "times").exists, 120, every_s=0.2, what="the scheduler's first heartbeat")
        if latency_s:
            Faults.of(cluster.kubeconfig).delay("create", latency_s)
        return measured(made, folder / "times")
    finally:
        made.stop(how=signal.SIGKILL)
        valkey.stop()
        cluster.stop()


def with_tables(folder: Path, postgres: parts.Postgres) -> str:
    """A database with Airflow's tables, to be copied."""
    valkey = parts.Valkey.start(folder / "valkey")
    name = postgres.create_database()
    made = installation.Installation(
        folder=folder, database=postgres.url(name), valkey=valkey, kubeconfig=folder / "none", port=0
    )
    made.prepare()
    valkey.stop()
    return name


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        postgres = parts.Postgres.start()
        try:
            tables = with_tables(Path(name), postgres)
            for latency_s in LATENCIES_S:
                print(f"{TASKS} tasks, creates take {1_000 * latency_s:.0f} ms longer")
                for number in range(ROUNDS):
                    for executor in (OURS, THEIRS):
                        place = Path(name) / f"{latency_s}-{number}-{executor[:3]}"
                        database = postgres.url(postgres.create_database(template=tables))
                        figures = one_round(place, database, executor, latency_s=latency_s)
                        print(f"  {executor:34} {figures}", flush=True)
        finally:
            postgres.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
