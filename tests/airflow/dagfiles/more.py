"""More DAGs of the ring: what stands beside plain tasks in pods. No Podyard in here."""

import json
import os
from datetime import UTC, datetime, timedelta

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, task

POD = "kubernetes"
LIGHT = "light"
"""A queue of pods whose image runs no body: it tells Airflow that the task began and that it ended."""
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


with DAG("deferred", start_date=WHEN, schedule=None, catchup=False):
    DateTimeSensorAsync(
        task_id="wait",
        queue=POD,
        target_time="{{ (dag_run.run_after + macros.timedelta(seconds=params.seconds)).isoformat() }}",
        params={"seconds": 20},
    )


with DAG("surroundings", start_date=WHEN, schedule=None, catchup=False):

    @task(queue=POD)
    def look() -> str:
        print(f"the pod has {json.dumps(dict(os.environ))}")
        return "seen"

    look()


with DAG("many", start_date=WHEN, schedule=None, catchup=False, max_active_tasks=500, params={"tasks": 200}):

    @task
    def numbers(params: dict | None = None) -> list[int]:
        return list(range((params or {})["tasks"]))

    @task(queue=LIGHT, retries=3, retry_delay=timedelta(seconds=1), max_active_tis_per_dag=500)
    def one(number: int) -> None:
        raise AssertionError(f"the image of the queue runs no body: {number}")

    one.expand(number=numbers())


with DAG("beside", start_date=WHEN, schedule=None, catchup=False):
    for name, is_deferrable in (("waits_in_worker", False), ("waits_deferred", True)):
        KubernetesPodOperator(
            task_id=name,
            name=name.replace("_", "-"),
            namespace="default",
            image="busybox:1",
            cmds=["/bin/sh", "-c"],
            arguments=[f"echo '{name} has a pod of its own'; sleep 1"],
            config_file=os.environ.get("BESIDE_KUBECONFIG"),
            in_cluster=False,
            do_xcom_push=False,
            deferrable=is_deferrable,
            poll_interval=1,
        )


with DAG("faulty", start_date=WHEN, schedule=None, catchup=False):

    @task(queue=POD)
    def never() -> None:
        print("this is never printed")

    never.override(
        task_id="no_image",
        executor_config={
            "pod_override": {"spec": {"containers": [{"name": "base", "image": "registry.example/no/such:image"}]}}
        },
    )()
    never.override(task_id="no_template", executor_config={"pod_template_file": "nowhere"})()
    never.override(
        task_id="wrong_override",
        executor_config={"pod_override": {"spec": {"containers": [{"name": "base", "imagge": "busybox"}]}}},
    )()
