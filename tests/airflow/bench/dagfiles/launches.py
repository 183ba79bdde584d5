"""Tasks whose pods are to be created, on the executor that BENCH_EXECUTOR names."""

import os
from datetime import UTC, datetime

from airflow.sdk import DAG, task

TASKS = int(os.environ.get("BENCH_TASKS", "200"))

with DAG("launches", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, catchup=False, max_active_tasks=TASKS):

    @task(queue="kubernetes", executor=os.environ.get("BENCH_EXECUTOR") or None, max_active_tis_per_dag=TASKS)
    def one(number: int) -> None:
        print(number)

    one.expand(number=list(range(TASKS)))
