"""The whole way of an outcome: from the end of a pod's process to its verdict in the record, under a steady load.

Everything is real: scheduler and dispatcher are processes of the command line, pods are processes of a local cluster,
50 of them begin each second. A pod writes the time of its end itself, as its last act; the record is read past all code
of ours, by plain SQL every 20 ms. The aim is 1 s in the median.

    python -m tests.benchmarks.bench_outcome [--seconds 20] [--rate 50] [--database sqlite|postgres|both]
"""

import argparse
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from routing.results import backend
from tests import parts
from tests.integration.halves import Half

PER_RUN = 5
DAG = """
ATTEMPT = {{"fieldRef": {{"fieldPath": "metadata.annotations['podyard.dev/attempt-id']"}}}}
with DAG("load"):
    for number in range({pods}):
        KubernetesPodOperator(
            task_id=f"p{{number}}",
            image="busybox",
            cmds=["sh", "-c", 'sleep 0.5; echo "$ATTEMPT $(date +%s.%N)" >> {ends}'],
            env_vars=[{{"name": "ATTEMPT", "valueFrom": ATTEMPT}}],
        )
"""
SETTINGS = """
[kubernetes]
kubeconfig = "{kubeconfig}"
[queues.kubernetes]
side = "kubernetes"
max_pods = 200
"""
FINAL = sa.text("SELECT id, state FROM attempt WHERE state IN ('succeeded', 'failed', 'lost', 'revoked')")


class Verdicts:
    """When the record first showed each verdict."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: dict[str, float] = {}
        self.states: dict[str, str] = {}

    def __enter__(self) -> "Verdicts":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._engine.dispose()

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            with self._engine.connect() as connection:
                rows = connection.execute(FINAL).all()
            now = time.time()
            for attempt, state in rows:
                self.seen.setdefault(attempt, now)
                self.states[attempt] = state


def measure(folder: Path, *, broker: str, database: str | None, rate: int, seconds: int) -> None:
    """Prints how late the verdicts came."""
    local = parts.LocalCluster.start(folder / "cluster")
    half = Half.make(
        folder / "half", broker=broker, database=database, more=SETTINGS.format(kubeconfig=local.kubeconfig)
    )
    ends = folder / "ends"
    half.write_dag(DAG.format(pods=PER_RUN, ends=ends))
    running = [_start(half, word) for word in ("scheduler", "dispatcher")]
    try:
        half.wait(half.trigger("load"), timeout_s=60)  # all is warm
        ends.unlink()
        with Verdicts(half.settings.database.url) as verdicts:
            runs = rate * seconds // PER_RUN
            begun = time.monotonic()
            for number in range(runs):
                while time.monotonic() < begun + number * PER_RUN / rate:
                    time.sleep(0.002)
                half.store.create_run("load", run_id=f"load-{number}", at=datetime.now(UTC))
                backend.wake(half.app)
            wanted = (runs + 1) * PER_RUN
            parts.eventually(lambda: len(verdicts.seen) >= wanted, 120, every_s=0.1, what="all verdicts")
        _print(_ends(ends), verdicts)
    finally:
        for process in running:
            parts.stop(process)
        half.close()
        local.stop()


def _start(half: Half, word: str) -> "parts.subprocess.Popen[bytes]":
    return parts.start(
        [sys.executable, "-m", "routing.cli", word],
        log=half.folder / f"{word}.log",
        env={"PODYARD_CONFIG": str(half.config)},
        cwd=half.folder,
    )


def _ends(path: Path) -> dict[str, float]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {attempt: float(at) for attempt, at in lines}


def _print(ends: dict[str, float], verdicts: Verdicts) -> None:
    late = sorted(verdicts.seen[attempt] - at for attempt, at in ends.items())
    times = sorted(ends.values())
    rate = (len(times) - 1) / (times[-1] - times[0])
    quantile: Callable[[float], float] = lambda part: late[int(part * (len(late) - 1))]  # noqa: E731 - three words
    failed = sum(state != "succeeded" for state in verdicts.states.values())
    print(f"  {len(late)} pods, {rate:.0f} ended per second, {failed} not succeeded")
    print(
        f"  end of a pod to its verdict in the record: median {statistics.median(late):.2f} s, "
        f"95th percentile {quantile(0.95):.2f} s, worst {late[-1]:.2f} s",
        flush=True,
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        valkey = parts.Valkey.start(Path(name) / "valkey")
        sizes = {"rate": options.rate, "seconds": options.seconds}
        try:
            if options.database in ("sqlite", "both"):
                print("SQLite:")
                measure(Path(name) / "sqlite", broker=valkey.fresh().url, database=None, **sizes)
            if options.database in ("postgres", "both"):
                print("PostgreSQL:")
                postgres = parts.Postgres.start()
                try:
                    url = postgres.url(postgres.create_database())
                    measure(Path(name) / "postgres", broker=valkey.fresh().url, database=url, **sizes)
                finally:
                    postgres.stop()
        finally:
            valkey.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
