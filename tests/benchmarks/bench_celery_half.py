"""Measures the Celery half: independent no-op DAG tasks from trigger to merged, as a ratio to raw Celery.

Raw Celery publishes in batches, runs on a prefork worker of the same size with the same events, and gathers by MGET.
Both run by turns in the same minutes, on the same Valkey server. Also measures one hop: upstream ended -> downstream
started.

    python -m tests.benchmarks.bench_celery_half [--tasks 2000] [--rounds 3] [--database sqlite|postgres|both]
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from celery import Celery

from tests import parts
from tests.integration.halves import Half

RAW_WORKER = """
import sys
from tests.benchmarks import bench_celery_half
app = bench_celery_half.raw_app(sys.argv[1])
app.worker_main(["worker", "-c", sys.argv[2], "-n", "raw@bench", "-Q", "raw", "--loglevel", "WARNING"])
"""
DAG = """
with DAG("noops"):
    for number in range({tasks}):
        PythonOperator(task_id=f"t{{number}}", python_callable=lambda: None)
"""
CHAIN = """
with DAG("chain"):
    before = None
    for number in range({tasks}):
        now = PythonOperator(task_id=f"c{{number}}", python_callable=lambda: None)
        if before is not None:
            before >> now
        before = now
"""


def raw_app(url: str) -> Celery:
    """Celery as its users configure it, with a no-op."""
    app = Celery("raw", broker=url, backend=url)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_default_queue="raw",
        worker_send_task_events=True,
        broker_connection_retry_on_startup=True,
    )

    @app.task(name="raw.noop")
    def noop() -> None:
        pass

    return app


def measure_raw(app: Celery, tasks: int) -> float:
    """Tasks per second from the first publish to the last result gathered."""
    backend = app.backend
    backend.on_task_call = lambda *_: None  # no SUBSCRIBE for each task: results are gathered by MGET
    begin = time.perf_counter()
    ids = [str(uuid4()) for _ in range(tasks)]
    with app.producer_or_acquire() as producer, producer.batch(max_size=500):
        for task_id in ids:
            app.send_task("raw.noop", task_id=task_id, queue="raw", producer=producer)
    waiting = {backend.get_key_for_task(task_id) for task_id in ids}
    while waiting:
        chunk = list(waiting)
        for start in range(0, len(chunk), 500):
            keys = chunk[start : start + 500]
            waiting.difference_update(
                key for key, value in zip(keys, backend.client.mget(keys), strict=True) if value is not None
            )
        time.sleep(0.02 if waiting else 0)
    return tasks / (time.perf_counter() - begin)


def measure_ours(half: Half) -> float:
    """Tasks per second from the trigger to the run's end in the record."""
    begin = time.perf_counter()
    run = half.trigger("noops")
    done = parts.eventually(lambda: _ended(half, run.id), 300, every_s=0.01)
    seconds = time.perf_counter() - begin
    assert done == "success", done
    states = half.store.run(run.run_id)
    assert states is not None
    return sum(states.task_states.values()) / seconds


def measure_hops(half: Half) -> list[float]:
    """Milliseconds from the end of a task to the start of the next."""
    run = half.trigger("chain")
    parts.eventually(lambda: _ended(half, run.id), 120, every_s=0.05)
    tasks = half.store.tasks(run.run_id)
    assert all(task.state == "success" for task in tasks)
    return [
        (after.started_at - before.ended_at).total_seconds() * 1000
        for before, after in itertools.pairwise(tasks)
        if after.started_at and before.ended_at
    ]


def _ended(half: Half, run: int) -> str | None:
    with half.store.reading() as book:
        row = book.run_state(run)
    return row if row in ("success", "failed") else None


def _compare(folder: Path, url: str, database: str | None, *, tasks: int, rounds: int, concurrency: int) -> None:
    app = raw_app(url)
    half = Half.make(folder, broker=url, database=database)
    half.write_dag(DAG.format(tasks=tasks), "noops.py")
    half.write_dag(CHAIN.format(tasks=40), "chain.py")
    raw = parts.start([sys.executable, "-c", RAW_WORKER, url, str(concurrency)], log=folder / "raw.log")
    try:
        with half.worker(concurrency=concurrency), half.scheduler():
            measure_raw(app, 200)
            hops = measure_hops(half)
            figures = []
            for number in range(rounds):
                pair = measure_raw(app, tasks), measure_ours(half)
                figures.append(pair)
                print(
                    f"  round {number + 1}: raw {pair[0]:,.0f}/s, ours {pair[1]:,.0f}/s, ratio {pair[1] / pair[0]:.2f}"
                )
            ratio = statistics.median(ours / raw for raw, ours in figures)
            print(f"  median ratio {ratio:.2f}; hop median {statistics.median(hops):.1f} ms, worst {max(hops):.1f} ms")
    finally:
        parts.stop(raw)
        half.close()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    options = parser.parse_args()
    sizes = {"tasks": options.tasks, "rounds": options.rounds, "concurrency": options.concurrency}
    with tempfile.TemporaryDirectory() as name:
        valkey = parts.Valkey.start(Path(name) / "valkey")
        try:
            if options.database in ("sqlite", "both"):
                print(f"Celery half, {options.tasks} no-op tasks, {options.concurrency} worker processes, SQLite:")
                _compare(Path(name) / "sqlite", valkey.fresh().url, None, **sizes)
            if options.database in ("postgres", "both"):
                print(f"Celery half, {options.tasks} no-op tasks, {options.concurrency} worker processes, PostgreSQL:")
                postgres = parts.Postgres.start()
                try:
                    url = postgres.url(postgres.create_database())
                    _compare(Path(name) / "postgres", valkey.fresh().url, url, **sizes)
                finally:
                    postgres.stop()
        finally:
            valkey.stop()


if __name__ == "__main__":
    main()
