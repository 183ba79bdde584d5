"""Recovery of a dispatcher that is killed with many pods in flight: seconds, memory and requests until it has them.

Pods stay Running without a process (`--hold`). Seconds count from the start of the new process, so Python's and
Celery's own start is in them; they end when `inspect stats` says that all pods are in flight. The aims are 10 s for
1,000 pods, and 5,000 at all: they are listed in pages.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil

from dispatcher.localcluster.faults.client import Faults
from tests import parts
from tests.benchmarks.bench_replay import cpu_s
from tests.integration.yard_parts import Yard, pods_of

SIZES = tuple(int(word) for word in os.environ.get("BENCH_PODS", "1000 5000").split())


def in_flight(yard: Yard) -> int:
    node = f"dispatcher@{yard.deployment}"
    stats = yard.client.control.inspect([node], timeout=0.5).stats() or {}
    return int(stats[node]["pool"]["pods-in-flight"]) if stats else 0


def measure(folder: Path, valkey: parts.Valkey, *, pods: int) -> None:
    """Prints what the recovery took."""
    local = parts.LocalCluster.start(folder / f"cluster-{pods}", "--hold", "--max-pods", str(pods))
    os.environ["YARD_CONCURRENCY"] = str(pods)
    place = folder / str(pods)
    place.mkdir()
    yard = Yard(folder=place, broker=valkey.fresh().url, kubeconfig=local.kubeconfig, deployment=f"adopt-{pods}")
    try:
        for number in range(pods):
            yard.send("nap", 1, ignore_result=True, task_id=f"held-{number}")
        yard.dispatcher(YARD_MAX_PODS=str(pods))
        parts.eventually(lambda: in_flight(yard) >= pods, 120, every_s=0.5, what=f"{pods} pods in flight")
        before = {pod["metadata"]["uid"] for pod in pods_of(yard).values()}
        yard.kill(yard.processes[-1])
        faults = Faults.of(local.kubeconfig)
        faults.reset_stats()
        begun = time.monotonic()
        yard.dispatcher(YARD_MAX_PODS=str(pods))
        answered_s = time.monotonic() - begun
        parts.eventually(lambda: in_flight(yard) >= pods, 120, every_s=0.05, what="all are adopted")
        took_s = time.monotonic() - begun
        process = psutil.Process(yard.processes[-1].pid)
        after = {pod["metadata"]["uid"] for pod in pods_of(yard).values()}
        requests = {
            f"{verb} {what}": n for what, verbs in faults.stats()["requests"].items() for verb, n in verbs.items()
        }
        print(f"  {pods} pods: all adopted after {took_s:.1f} s (it answered after {answered_s:.1f} s),", end=" ")
        print(f"{process.memory_info().rss / 2**20:.0f} MiB, {cpu_s(process):.1f} s of CPU;", end=" ")
        print(f"other pods than before: {len(before ^ after)}; requests: {requests}", flush=True)
    finally:
        yard.stop()
        local.stop()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        valkey = parts.Valkey.start(folder / "valkey")
        try:
            for pods in SIZES:
                measure(folder, valkey, pods=pods)
        finally:
            valkey.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
