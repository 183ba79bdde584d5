"""What cannot run on a real Airflow, and the one line that a user finds about it where users look."""

import json
import subprocess
from typing import Any
from uuid import uuid4

from celery import Celery

from dispatcher.localcluster.faults import kinds
from dispatcher.localcluster.faults.client import Faults
from tests import parts
from tests.airflow import installation
from tests.airflow.installation import Installation


def test_each_fault_of_a_task_is_told_in_its_log_and_in_the_event_log(airflow: Installation) -> None:
    """Wrong override, unknown template, missing image: each fails its own task, and nothing else."""
    faults = Faults.of(airflow.kubeconfig)
    number = faults.add(kinds.Unpullable(image="registry.example/*")).number
    try:
        run = airflow.trigger("faulty")
        assert run.wait(timeout_s=240) == "failed"
    finally:
        faults.remove(number)
    told = {
        "no_image": "registry.example/no/such:image",
        "no_template": "nowhere",
        "wrong_override": "spec.containers[0].imagge",
    }
    events = {event["task_id"]: event["extra"] for event in run.events("state mismatch")}
    for task, words in told.items():
        assert run.task(task)["state"] == "failed"
        lines = [line for line in run.log(task).splitlines() if line.startswith("podyard: ")]
        assert any(words in line or "event log says why" in line for line in lines), lines
        assert words in events[task]


def test_a_refused_secret_is_told_in_the_task_log(airflow: Installation) -> None:
    """The workload travels in one: a dispatcher whose role lacks them can launch nothing."""
    faults = Faults.of(airflow.kubeconfig)
    number = faults.add(kinds.Deny(verb="create", resource="secrets")).number
    try:
        run = airflow.trigger("single")
        parts.eventually(lambda: "secrets" in run.log("sleep"), 120, every_s=1, what="the task's log tells of secrets")
    finally:
        faults.remove(number)
    assert run.wait(timeout_s=240) in installation.DONE


def test_a_workload_that_the_image_cannot_read_is_told_with_the_log_of_its_pod(airflow: Installation) -> None:
    """As of an Airflow newer than the image. The result backend has the line that the executor would report."""
    task_id = str(uuid4())
    with Celery(broker=airflow.broker, backend=airflow.broker, set_as_current=False) as app:
        workload = json.dumps({"type": "ExecuteSomethingNew", "token": "x", "ti": {}})
        app.send_task("execute_workload", args=[workload], queue="kubernetes", task_id=task_id)
        result = app.AsyncResult(task_id)
        parts.eventually(lambda: result.state == "FAILURE", 120, every_s=0.5, what="the pod has failed")
        assert "exit code 1" in str(result.result)


def check(airflow: Installation) -> tuple[int, dict[str, dict[str, Any]]]:
    """`podyard airflow check`, as a user types it in the environment of Airflow: exit code, findings by name."""
    answer = subprocess.run(
        [installation.python().with_name("podyard"), "airflow", "check", "--output", "json"],
        env={
            **airflow.environment(),
            "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "routing.airflow.log_config.LOGGING_CONFIG",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.stdout, answer.stderr
    return answer.returncode, {one["check"]: one for one in json.loads(answer.stdout)}


def test_check_says_what_works_and_who_is_missing(airflow: Installation) -> None:
    """And the log of a task that waits says the same, where people look first."""
    code, findings = check(airflow)
    assert (code, {one["result"] for one in findings.values()}) == (0, {"ok"}), findings
    airflow.stop("dispatcher")
    try:
        code, findings = check(airflow)
        assert code == 1
        assert "podyard dispatcher --airflow" in findings["queue kubernetes"]["message"]
        run = airflow.trigger("single")
        run.wait_for_task("sleep", "queued")
        parts.eventually(
            lambda: "no dispatcher answers" in run.log("sleep"), 60, every_s=1, what="its log says who is missing"
        )
    finally:
        airflow.start_dispatcher(env={"PODYARD_KUBERNETES__IMAGE": "apache/airflow:2.11.0"})
    assert run.wait(timeout_s=240) == "success"
    code, findings = check(airflow)
    assert code == 0
    assert "here is 3." in findings["image"]["message"]
