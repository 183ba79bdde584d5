"""What a pod pays before the author's code runs: CPU seconds and peak memory of the pod's entry point.

Beside it, in the same run and in turns, a bare `python -c 'import celery'`. The task is a no-op of a DAG file, so that
loading the file is part of the figure.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = 9
DAG = """
from routing import DAG, task

with DAG("bench"):
    @task
    def nothing():
        return None
    nothing()
"""


def cost(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """(CPU seconds, peak MiB) of one run of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{command} ended with status {status}")
    del before
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        (folder / "bench.py").write_text(DAG)
        kwargs = {
            "dag_file": "bench.py",
            "dag_id": "bench",
            "run_id": "r",
            "task_id": "nothing",
            "map_index": -1,
            "try_number": 1,
            "logical_date": "2026-01-01T00:00:00+00:00",
            "conf": {},
            "inputs": {},
        }
        message = {"v": 1, "name": "routing.run", "id": "x", "kwargs": kwargs, "headers": {"retries": 0}}
        env = {
            "PATH": os.environ["PATH"],
            "PODYARD_APP": "routing.worker.run:pod_app",
            "PODYARD_MESSAGE": json.dumps(message),
            "PODYARD_DAGS__FOLDER": name,
            "PODYARD_TERMINATION_PATH": str(folder / "termination"),
        }
        entry = [sys.executable, "-m", "dispatcher.pod"]
        celery = [sys.executable, "-c", "import celery; celery.Celery"]
        bare_costs, pod_costs = [], []
        for _ in range(RUNS):
            bare_costs.append(cost(celery, env))
            pod_costs.append(cost(entry, env))
        for label, costs in (("bare import of celery", bare_costs), ("pod's entry point, no-op task", pod_costs)):
            cpu, memory = (statistics.median(column) for column in zip(*costs, strict=True))
            print(f"{label:32} {cpu:6.2f} s CPU {memory:6.0f} MiB (median of {RUNS})")


if __name__ == "__main__":
    main()
