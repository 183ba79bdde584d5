"""The Kubernetes half: pods created per second by the dispatcher, beside a bare aiohttp loop on the same API server.

Both create the same pods on a local cluster that holds pods as Running without a process (`--hold`), so that creating
is all that is measured: at once, and with 150 ms more for each create, as on a server that is far away. Rates are taken
from an independent watch: (pods - 1) / (last ADDED - first ADDED). Also: the dispatcher's memory with that many pods in
flight, and the seconds to adopt them all after a SIGKILL.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from dispatcher import cluster, manifest, options
from dispatcher.localcluster.faults.client import Faults
from dispatcher.message import Message
from tests import parts
from tests.integration.yard_parts import Yard

PODS = int(os.environ.get("BENCH_PODS", "1000"))
CONCURRENCY = options.Options.create_concurrency
LATENCIES_S = (0.0, 0.15)
PROFILE = options.QueueProfile()


async def added_times(kubeconfig: Path, *, deployment: str, ready: threading.Event, count: int) -> list[float]:
    """The times of the first `count` ADDED events of a deployment, seen by a watch of its own."""
    seen: list[float] = []
    async with cluster.Cluster(cluster.connect(kubeconfig=kubeconfig)) as api:
        selector = manifest.selector(deployment=deployment)
        listed = await api.list_pods("default", selector=selector)
        ready.set()
        async for event in api.watch_pods(
            "default", selector=selector, resource_version=listed.resource_version, silence_s=60
        ):
            if event["type"] == "ADDED":
                seen.append(time.monotonic())
                if len(seen) == count:
                    break
    return seen


def rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


async def bare(kubeconfig: Path, *, deployment: str) -> float:
    """Creates per second of a loop that does nothing but post manifests built before."""
    chosen = options.Options(profile_for=lambda _: PROFILE, app_path="a:b", deployment=deployment)
    bodies = [
        json.dumps(manifest.build(message(number), profile=PROFILE, options=chosen, owner="bare")).encode()
        for number in range(PODS)
    ]
    ready = threading.Event()
    watching = asyncio.create_task(added_times(kubeconfig, deployment=deployment, ready=ready, count=PODS))
    await asyncio.to_thread(ready.wait, 10)
    async with cluster.Cluster(cluster.connect(kubeconfig=kubeconfig)) as api:
        slots = asyncio.Semaphore(CONCURRENCY)

        async def post(body: bytes) -> None:
            async with slots:
                await api.create_pod("default", body)

        await asyncio.gather(*map(post, bodies))
    return rate(await watching)


def message(number: int) -> Message:
    return Message(
        name="tests.apps.yard.nap",
        id=f"bare-{number}",
        args=[1],
        headers={"retries": 0},
        delivery_info={"routing_key": "kubernetes"},
    )


def dispatched(yard: Yard) -> float:
    """The same pods by the dispatcher, whose queue is full before it starts."""
    for _ in range(PODS):
        yard.send("nap", 1, ignore_result=True)
    ready = threading.Event()
    with ThreadPoolExecutor(1) as watcher:
        times = watcher.submit(
            lambda: asyncio.run(added_times(yard.kubeconfig, deployment=yard.deployment, ready=ready, count=PODS))
        )
        ready.wait(10)
        yard.dispatcher(YARD_MAX_PODS=str(PODS))
        return rate(times.result(120))


def shared_by_two(yard: Yard) -> float:
    """The same pods by two dispatchers on one queue, both of which stand still until it is full."""
    two = [yard.dispatcher(name=name, YARD_MAX_PODS=str(PODS)) for name in ("first", "second")]
    for process in two:
        process.send_signal(signal.SIGSTOP)
    for _ in range(PODS):
        yard.send("nap", 1, ignore_result=True)
    ready = threading.Event()
    with ThreadPoolExecutor(1) as watcher:
        times = watcher.submit(
            lambda: asyncio.run(added_times(yard.kubeconfig, deployment=yard.deployment, ready=ready, count=PODS))
        )
        ready.wait(10)
        for process in two:
            process.send_signal(signal.SIGCONT)
        return rate(times.result(120))


def adopted_s(yard: Yard) -> float:
    """Seconds from the restart after a SIGKILL until all pods are in flight again."""
    yard.kill(yard.processes[-1])
    started = time.monotonic()
    yard.dispatcher(YARD_MAX_PODS=str(PODS))
    node = f"dispatcher@{yard.deployment}"

    def in_flight() -> bool:
        stats = yard.client.control.inspect([node], timeout=0.5).stats() or {}
        return bool(stats) and stats[node]["pool"]["pods-in-flight"] >= PODS

    parts.eventually(in_flight, 60, every_s=0.1)
    return time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        valkey = parts.Valkey.start(folder / "valkey")
        local = parts.LocalCluster.start(folder / "cluster", "--hold", "--faults")
        os.environ["YARD_CONCURRENCY"] = str(PODS)
        yards: list[Yard] = []
        try:
            for latency_s in LATENCIES_S:
                yards.append(compared(folder, valkey, local, latency_s=latency_s))
                yards[-1].stop()
            yards.append(compared_two(folder, valkey, local))
        finally:
            for yard in yards:
                yard.stop()
            local.stop()
            valkey.stop()


def compared(folder: Path, valkey: parts.Valkey, local: parts.LocalCluster, *, latency_s: float) -> Yard:
    """Prints what a bare loop and the dispatcher do on a server whose creates take so much longer."""
    faults = Faults.of(local.kubeconfig)
    faults.clear()
    if latency_s:
        faults.delay("create", latency_s)
    label = f"{1000 * latency_s:.0f}ms"
    place = folder / label
    place.mkdir()
    yard = Yard(folder=place, broker=valkey.fresh().url, kubeconfig=local.kubeconfig, deployment=f"bench-{label}")
    plain = asyncio.run(bare(local.kubeconfig, deployment=f"bare-{label}"))
    faults.reset_stats()
    ours = dispatched(yard)
    process = psutil.Process(yard.processes[-1].pid)
    memory, cpu_s = process.memory_info().rss / 2**20, sum(process.cpu_times()[:2])
    print(f"creates take {label} longer; {PODS} pods, {CONCURRENCY} creates at once")
    print(f"  pods created per second, bare aiohttp loop:  {plain:8.0f}")
    print(f"  pods created per second, dispatcher:         {ours:8.0f}")
    print(f"  ratio:                                       {ours / plain:8.2f}")
    print(f"  dispatcher memory, {PODS} pods in flight:      {memory:8.0f} MiB")
    print(f"  dispatcher CPU so far, per pod:              {1000 * cpu_s / PODS:8.2f} ms")
    print(f"  all adopted after SIGKILL and restart:       {adopted_s(yard):8.1f} s", flush=True)
    return yard


def compared_two(folder: Path, valkey: parts.Valkey, local: parts.LocalCluster) -> Yard:
    """Prints what two dispatchers on one queue do on a server that answers at once."""
    Faults.of(local.kubeconfig).clear()
    place = folder / "two"
    place.mkdir()
    yard = Yard(folder=place, broker=valkey.fresh().url, kubeconfig=local.kubeconfig, deployment="bench-two")
    plain = asyncio.run(bare(local.kubeconfig, deployment="bare-two"))
    ours = shared_by_two(yard)
    print(f"two dispatchers on one queue, creates are answered at once; {PODS} pods")
    print(f"  pods created per second, bare aiohttp loop:  {plain:8.0f}")
    print(f"  pods created per second, two dispatchers:    {ours:8.0f}")
    print(f"  ratio:                                       {ours / plain:8.2f}", flush=True)
    return yard


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
