"""The replay path: pods that end at once, from message to stored result, with events on, on a local cluster without
processes (`--instant`).

Prints tasks per second and the dispatcher's CPU per task; its memory with many pods in flight (`--hold`); and the
time from a published message to the pod that an independent watch sees, at low load.
"""

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from dispatcher.kubeapi import client, server_access
from dispatcher.manifests import labels
from tests import parts
from tests.integration.yard_parts import Yard

TASKS = int(os.environ.get("BENCH_TASKS", "2000"))
IN_FLIGHT = int(os.environ.get("BENCH_PODS", "2000"))
PROBES = 50
KWARGS = {"image": "busybox", "cmds": ["true"]}


def replayed(folder: Path, valkey: parts.Valkey) -> None:
    """Tasks whose pods end at once."""
    local = parts.LocalCluster.start(folder / "instant", "--instant")
    yard = Yard(folder=folder, broker=valkey.fresh().url, kubeconfig=local.kubeconfig, deployment="replay")
    try:
        yard.dispatcher(YARD_MAX_PODS="500", YARD_LOGS="")
        for number in range(100):
            yard.client.send_task("dispatcher.pod", kwargs=KWARGS, queue="kubernetes", task_id=f"warm-{number}")
        ended(yard, [f"warm-{number}" for number in range(100)])
        process = psutil.Process(yard.processes[-1].pid)
        yard.processes[-1].send_signal(signal.SIGSTOP)
        for number in range(TASKS):
            yard.client.send_task(
                "dispatcher.pod", kwargs=KWARGS, queue="kubernetes", task_id=f"task-{number}", add_to_parent=False
            )
        before, hub_before, started = cpu_s(process), hub_s(process), time.monotonic()
        yard.processes[-1].send_signal(signal.SIGCONT)
        ended(yard, [f"task-{number}" for number in range(TASKS)])
        took, used = time.monotonic() - started, cpu_s(process) - before
        print(f"tasks per second, pods that end at once:         {TASKS / took:8.0f}")
        hub = hub_s(process) - hub_before
        print(f"dispatcher CPU per task, events on:              {1000 * used / TASKS:8.2f} ms")
        print(f"    of it on Celery's thread, which replays:     {1000 * hub / TASKS:8.2f} ms")
    finally:
        yard.stop()
        local.stop()


def held(folder: Path, valkey: parts.Valkey) -> None:
    """Pods that stay, and the way of single messages."""
    local = parts.LocalCluster.start(folder / "hold", "--hold")
    yard = Yard(folder=folder, broker=valkey.fresh().url, kubeconfig=local.kubeconfig, deployment="held")
    try:
        yard.dispatcher(YARD_MAX_PODS=str(IN_FLIGHT + PROBES))
        times = latencies(yard)
        print(f"published message to pod seen, median of {PROBES}:     {1000 * statistics.median(times):8.1f} ms")
        print(
            f"                               95th percentile:  {1000 * statistics.quantiles(times, n=20)[-1]:8.1f} ms"
        )
        for number in range(IN_FLIGHT):
            yard.send("nap", 1, ignore_result=True, task_id=f"held-{number}")
        node = f"dispatcher@{yard.deployment}"

        def in_flight() -> bool:
            stats = yard.client.control.inspect([node], timeout=0.5).stats() or {}
            return bool(stats) and stats[node]["pool"]["pods-in-flight"] >= IN_FLIGHT

        parts.eventually(in_flight, 120, every_s=0.2)
        memory = psutil.Process(yard.processes[-1].pid).memory_info().rss / 2**20
        print(f"dispatcher memory, {IN_FLIGHT} pods in flight:          {memory:8.0f} MiB")
    finally:
        yard.stop()
        local.stop()


def latencies(yard: Yard) -> list[float]:
    """Seconds from sending a message until another watch sees its pod; one message at a time."""
    seen: dict[str, float] = {}
    ready = threading.Event()

    async def watch() -> None:
        async with client.KubeClient(server_access.connect(kubeconfig=yard.kubeconfig)) as api:
            selector = labels.selector(deployment=yard.deployment)
            listed = await api.list_pods("default", selector=selector)
            ready.set()
            async for event in api.watch_pods(
                "default", selector=selector, resource_version=listed.resource_version, silence_s=60
            ):
                if event["type"] == "ADDED":
                    seen[event["object"]["metadata"]["annotations"]["podyard.dev/attempt-id"]] = time.monotonic()
                    if len(seen) == PROBES:
                        return

    with ThreadPoolExecutor(1) as watcher:
        watching = watcher.submit(lambda: asyncio.run(watch()))
        ready.wait(10)
        sent = {}
        for number in range(PROBES):
            sent[f"probe-{number}"] = time.monotonic()
            yard.send("nap", 1, ignore_result=True, task_id=f"probe-{number}")
            parts.eventually(lambda number=number: f"probe-{number}" in seen, 20, every_s=0.005)
        watching.result(20)
    return [seen[task_id] - at for task_id, at in sent.items()]


def ended(yard: Yard, ids: list[str]) -> None:
    """Waits until all of them have a result, with one cheap question."""
    client = yard.client.backend.client

    def there() -> bool:
        return client.exists(*(f"celery-task-meta-{task_id}" for task_id in ids)) == len(ids)

    parts.eventually(there, 120, every_s=0.05)


def cpu_s(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def hub_s(process: psutil.Process) -> float:
    """CPU seconds of the main thread."""
    return next(sum(thread[1:]) for thread in process.threads() if thread.id == process.pid)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        valkey = parts.Valkey.start(folder / "valkey")
        os.environ["YARD_CONCURRENCY"] = str(IN_FLIGHT + PROBES)
        try:
            replayed(folder, valkey)
            held(folder, valkey)
        finally:
            valkey.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
