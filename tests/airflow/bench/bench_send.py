"""What the executor costs the scheduler for each task: sending, and asking for results. In the environment of Airflow.

    .venv-airflow-3.3/bin/python tests/airflow/bench/bench_send.py redis://127.0.0.1:6379/0

Real executor, real broker and result backend; workloads are made beforehand, as the scheduler makes them. Tasks of
workers go the provider's own way, with one process for sending as for pods, so that the two can be compared.
"""

import os
import sys
import tempfile
import time
from typing import Any
from uuid import uuid4

TASKS = 200
ROUNDS = 3


def main(url: str) -> None:
    os.environ |= {
        "AIRFLOW_HOME": tempfile.mkdtemp(prefix="podyard-bench-"),
        "AIRFLOW__CELERY__BROKER_URL": url,
        "AIRFLOW__CELERY__RESULT_BACKEND": url,
        "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64,
    }
    from routing.airflow import PodyardExecutor

    executor = PodyardExecutor(parallelism=1_000_000)
    for round_ in range(ROUNDS):
        for queue in ("kubernetes", "default"):
            print(f"{round_} {queue}: {measure(executor, queue)}")


def measure(executor: Any, queue: str) -> str:
    """One round: send, ask while nothing is finished, ask when all is."""
    from celery import states

    for number in range(TASKS):
        executor.queue_workload(workload(queue, number), session=None)
    began_s, sending_ms = time.perf_counter(), cpu_ms(lambda: executor.trigger_tasks(TASKS))
    rate = TASKS / (time.perf_counter() - began_s)
    asking_ms = cpu_ms(executor.sync)
    for result in list(executor._sent().values()):
        executor.celery_app.backend.store_result(result.task_id, None, states.SUCCESS)
    ending_ms = cpu_ms(executor.sync)
    executor.get_event_buffer()
    return f"CPU ms/task: send {sending_ms:.2f}, ask {asking_ms:.3f}, end {ending_ms:.3f}; {rate:,.0f} sent/s"


def cpu_ms(call: Any) -> float:
    """CPU of this process for one task."""
    before_s = time.process_time()
    call()
    return (time.process_time() - before_s) / TASKS * 1_000


def workload(queue: str, number: int) -> Any:
    from airflow.executors.workloads import ExecuteTask

    kind: Any = ExecuteTask.model_fields["ti"].annotation
    instance = {
        "id": str(uuid4()),
        "dag_version_id": str(uuid4()),
        "dag_id": "bench",
        "task_id": f"task_{number}",
        "run_id": str(uuid4()),
        "try_number": 1,
        "map_index": -1,
        "pool_slots": 1,
        "priority_weight": 1,
        "queue": queue,
        "external_executor_id": str(uuid4()),
        "executor_config": {"pod_override": {"metadata": {"labels": {"team": "red"}}}},
    }
    return ExecuteTask(
        ti=kind.model_validate({name: value for name, value in instance.items() if name in kind.model_fields}),
        dag_rel_path="bench.py",
        token="x" * 400,
        bundle_info={"name": "dags-folder"},
        log_path="a/path.log",
    )


if __name__ == "__main__":
    main(sys.argv[1])
