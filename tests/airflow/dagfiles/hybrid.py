"""DAGs of the ring: what a person who moves from Airflow 2 has, in small. No Podyard in here."""

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

POD = "kubernetes"
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def _say_where(name: str) -> str:
    side = "pod" if os.environ.get("HYBRID_SIDE") == "pod" else "worker"
    print(f"{name} ran in a {side}")
    return side


with DAG("hybrid", start_date=WHEN, schedule=None, catchup=False):

    @task
    def where(name: str) -> str:
        return _say_where(name)

    @task
    def count(sides: list[str]) -> str:
        answer = f"{sides.count('worker')} in workers, {sides.count('pod')} in pods"
        print(answer)
        return answer

    sides = [where.override(task_id=f"on_worker_{number}")(f"on_worker_{number}") for number in range(4)] + [
        where.override(
            task_id=f"in_pod_{number}",
            queue=POD,
            executor_config={"pod_override": {"metadata": {"labels": {"team": "red"}}}},
        )(f"in_pod_{number}")
        for number in range(4)
    ]
    count.override(queue=POD)(sides)


with DAG("single", start_date=WHEN, schedule=None, catchup=False, params={"seconds": 0.0}):

    @task(queue=POD)
    def sleep(params: dict | None = None, ti: Any = None) -> None:
        print("begins to sleep", flush=True)
        if ti is not None and ti.try_number == 1:  # whoever is cleared has slept enough
            time.sleep(float((params or {}).get("seconds", 0)))
        print("has slept")

    sleep()


with DAG("fails", start_date=WHEN, schedule=None, catchup=False):

    @task(queue=POD, retries=1, retry_delay=timedelta(seconds=1))
    def fail() -> None:
        print("about to fail")
        raise ValueError("on purpose")

    fail()


with DAG("wrong_override", start_date=WHEN, schedule=None, catchup=False):

    @task(
        queue=POD,
        executor_config={"pod_override": {"spec": {"containers": [{"name": "base", "imagge": "busybox"}]}}},
    )
    def never() -> None:
        print("this is never printed")

    never()


with DAG("mapped", start_date=WHEN, schedule=None, catchup=False):

    @task(queue=POD)
    def square(number: int) -> int:
        print(f"the square of {number}")
        return number * number

    @task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    total(square.expand(number=[1, 2, 3]))
