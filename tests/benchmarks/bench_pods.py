"""The Kubernetes half: pods created per second by the dispatcher, beside a bare aiohttp loop on the same API server.

Both create the same pods on a local cluster that holds pods as Running without a process (`--hold`), so that creating
is all that is measured: at once, and with 150 ms more for each create, as on a server that is far away; at once by two
dispatchers, too. Rates are taken from an independent watch: (pods - 1) / (last ADDED - first ADDED). Pairs are measured
by turns; the median of their ratios counts. Also: the dispatcher's memory with that many pods in flight, and the
seconds to adopt them all after a SIGKILL.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from dispatcher import options
from dispatcher.kubeapi import client, server_access
from dispatcher.localcluster.faults.client import Faults
from dispatcher.manifests import builder, labels
from dispatcher.protocol.message import Message
from tests import builders, parts
from tests.integration.yard_parts import Yard

PODS = int(os.environ.get("BENCH_PODS", "1000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
CONCURRENCY = options.Options.create_concurrency
LATENCIES_S = (0.0, 0.15)
PROFILE = options.QueueProfile()


async def added_times(kubeconfig: Path, *, deployment: str, ready: threading.Event, count: int) -> list[float]:
    """The times of the first `count` ADDED events of a deployment, seen by a watch of its own."""
    seen: list[float] = []
    async with client.KubeClient(server_access.connect(kubeconfig=kubeconfig)) as api:
        selector = labels.selector(deployment=deployment)
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
        json.dumps(builder.build(message(number), profile=PROFILE, options=chosen, owner="bare")).encode()
        for number in range(PODS)
    ]
    ready = threading.Event()
    watching = asyncio.create_task(added_times(kubeconfig, deployment=deployment, ready=ready, count=PODS))
    await asyncio.to_thread(ready.wait, 10)
    async with client.KubeClient(server_access.connect(kubeconfig=kubeconfig)) as api:
        slots = asyncio.Semaphore(CONCURRENCY)

        async def post(body: bytes) -> None:
            async with slots:
                await api.create_pod("default", body)

        await asyncio.gather(*map(post, bodies))
    return rate(await watching)


def message(number: int) -> Message:
    return builders.message(f"bare-{number}", name="tests.apps.yard.nap", args=[1])


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

    def are_all_there() -> bool:
        stats = yard.client.control.inspect([node], timeout=0.5).stats() or {}
        return bool(stats) and stats[node]["pool"]["pods-in-flight"] >= PODS

    parts.eventually(are_all_there, 60, every_s=0.1)
    return time.monotonic() - started


def main() -> None:
    os.environ["YARD_CONCURRENCY"] = str(PODS)
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        valkey = parts.Valkey.start(folder / "valkey")
        try:
            for latency_s in LATENCIES_S:
                print(f"creates take {1000 * latency_s:.0f} ms longer; {PODS} pods, {CONCURRENCY} creates at once")
                compare(folder, valkey, f"{1000 * latency_s:.0f}ms", latency_s=latency_s, launch=dispatched)
            print(f"two dispatchers on one queue, creates are answered at once; {PODS} pods")
            compare(folder, valkey, "two", latency_s=0.0, launch=shared_by_two)
        finally:
            valkey.stop()


def compare(
    folder: Path, valkey: parts.Valkey, label: str, *, latency_s: float, launch: Callable[[Yard], float]
) -> None:
    """Prints what a bare loop and dispatchers do by turns, each pair on a server of its own."""
    ratios = []
    for number in range(ROUNDS):
        place = folder / f"{label}-{number}"
        place.mkdir()
        local = parts.LocalCluster.start(place / "cluster", "--hold", "--faults")
        yard = Yard(folder=place, broker=valkey.fresh().url, kubeconfig=local.kubeconfig, deployment=f"bench-{label}")
        try:
            if latency_s:
                Faults.of(local.kubeconfig).delay("create", latency_s)
            plain = asyncio.run(bare(local.kubeconfig, deployment="bare"))
            ours = launch(yard)
            ratios.append(ours / plain)
            print(
                f"  bare aiohttp loop {plain:5.0f} pods/s, dispatcher {ours:5.0f}, ratio {ratios[-1]:.2f}", flush=True
            )
            if number == ROUNDS - 1 and len(yard.processes) == 1:
                in_flight(yard)
        finally:
            yard.stop()
            local.stop()
    print(f"  ratio, median: {statistics.median(ratios):.2f}", flush=True)


def in_flight(yard: Yard) -> None:
    """Prints what a dispatcher with so many pods costs."""
    process = psutil.Process(yard.processes[-1].pid)
    print(f"  dispatcher memory, {PODS} pods in flight:  {process.memory_info().rss / 2**20:8.0f} MiB")
    print(f"  dispatcher CPU with its start, per pod: {1000 * sum(process.cpu_times()[:2]) / PODS:8.2f} ms")
    print(f"  all adopted after SIGKILL and restart:  {adopted_s(yard):8.1f} s", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
