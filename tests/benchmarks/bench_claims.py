"""What a claim before each create costs: pods per second with it and without, by turns on the same API server.

The same pods of the same dispatcher, on a local cluster that holds pods as Running without a process; only the result
backend differs: Celery's own, and the one that knows claims. At once, and with 150 ms more for each create.
"""

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from dispatcher.localcluster.faults.client import Faults
from routing.worker import celery_app
from tests import parts
from tests.benchmarks.bench_pods import PODS, added_times, rate
from tests.integration.yard_parts import Yard

LATENCIES_S = (0.0, 0.15)
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        valkey = parts.Valkey.start(folder / "valkey")
        local = parts.LocalCluster.start(folder / "cluster", "--hold", "--faults")
        os.environ["YARD_CONCURRENCY"] = str(PODS)
        try:
            for latency_s in LATENCIES_S:
                compare(folder, valkey, local, latency_s=latency_s)
        finally:
            local.stop()
            valkey.stop()


def compare(folder: Path, valkey: parts.Valkey, local: parts.LocalCluster, *, latency_s: float) -> None:
    """Prints the medians of both, and their ratio."""
    faults = Faults.of(local.kubeconfig)
    faults.clear()
    if latency_s:
        faults.delay("create", latency_s)
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for number in range(ROUNDS):
        for claims in (False, True):
            label = f"{1000 * latency_s:.0f}-{number}-{claims}"
            (folder / label).mkdir()
            database = valkey.fresh().url
            yard = Yard(
                folder=folder / label,
                broker=database,
                kubeconfig=local.kubeconfig,
                deployment=f"claims-{label.lower()}",
                results=celery_app.result_backend_url(database) if claims else None,
            )
            try:
                found[claims].append(launched(yard))
            finally:
                yard.stop()
    rate_without, rate_with = (statistics.median(one[0] for one in found[claims]) for claims in (False, True))
    cpu_without, cpu_with = (statistics.median(one[1] for one in found[claims]) for claims in (False, True))
    print(f"creates take {1000 * latency_s:.0f} ms longer; {PODS} pods, median of {ROUNDS}")
    print(f"  pods created per second, without claims:  {rate_without:8.0f}")
    print(f"  pods created per second, with claims:     {rate_with:8.0f}")
    ratios = sorted(with_[0] / without[0] for without, with_ in zip(found[False], found[True], strict=True))
    middle = statistics.median(ratios)
    print(f"  ratio, median of pairs (all):             {middle:8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"  dispatcher CPU per pod, ms:               {cpu_without:8.2f} and {cpu_with:.2f}", flush=True)


def launched(yard: Yard) -> tuple[float, float]:
    """Pods per second by an independent watch, and the dispatcher's CPU time in ms per pod."""
    for _ in range(PODS):
        yard.send("nap", 1)
    ready = threading.Event()
    with ThreadPoolExecutor(1) as watcher:
        times = watcher.submit(
            lambda: asyncio.run(added_times(yard.kubeconfig, deployment=yard.deployment, ready=ready, count=PODS))
        )
        ready.wait(10)
        process = psutil.Process(yard.dispatcher(YARD_MAX_PODS=str(PODS)).pid)
        seen = rate(times.result(120))
    return seen, 1000 * sum(process.cpu_times()[:2]) / PODS


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
