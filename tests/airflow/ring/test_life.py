"""One task's life on a real Airflow: failing, waiting, killed, lost and found again, each with what the user sees."""

import base64
import json
import signal
from uuid import uuid4

import pytest
from celery import Celery

from tests import parts
from tests.airflow import installation
from tests.airflow.installation import Installation

RUNS_S = 40


def test_a_failure_is_retried_and_each_try_has_its_log(airflow: Installation) -> None:
    """Two pods, two logs; the state is Airflow's own doing."""
    run = airflow.trigger("fails")
    assert run.wait(timeout_s=300) == "failed"
    assert run.task("fail")["try_number"] == 2
    for number in (1, 2):
        assert "about to fail" in run.log("fail", number)


def test_a_wrong_override_says_where_in_the_task_log_and_in_the_event_log(airflow: Installation) -> None:
    """And no pod was ever there."""
    run = airflow.trigger("wrong_override")
    assert run.wait(timeout_s=240) == "failed"
    log = run.log("never")
    assert "spec.containers[0].imagge" in log or "event log says why" in log
    assert "spec.containers[0].imagge" in run.events("state mismatch")[-1]["extra"]


def test_mapped_tasks_have_a_pod_each(airflow: Installation) -> None:
    """Their results come together in a worker."""
    run = airflow.trigger("mapped")
    assert run.wait(timeout_s=300) == "success"
    assert run.xcom("total") in (14, "14")
    assert "the square of 2" in run.log("square", map_index=1)


def test_the_log_of_a_running_pod_is_there_while_it_runs(airflow: Installation) -> None:
    """Neither scheduler nor API server may read pods; the pod object holds no token."""
    run = airflow.trigger("single", seconds=RUNS_S // 3)
    run.wait_for_body()
    found = run.pod_objects()
    assert found
    assert "eyJ" not in str(found)  # so every JWT begins
    assert run.wait(timeout_s=240) == "success"
    assert "has slept" in run.log("sleep")


def test_a_task_that_is_marked_failed_ends_its_pod(airflow: Installation) -> None:
    """The supervisor in the pod hears of it by its heartbeat."""
    run = airflow.trigger("single", seconds=300)
    run.wait_for_body()
    airflow.ask("PATCH", f"{run.path}/taskInstances/sleep", {"new_state": "failed"})
    parts.eventually(lambda: not run.pods(), 90, every_s=0.5, what="the pod is gone")
    assert run.task("sleep")["state"] == "failed"


def test_a_pod_that_is_deleted_fails_its_task_at_once_and_says_so(airflow: Installation) -> None:
    """Airflow alone would wait for a heartbeat of five minutes."""
    run = airflow.trigger("single", seconds=300)
    run.wait_for_body()
    (name,) = run.pods()
    airflow.cluster.call("DELETE", f"{installation.PODS}/{name}", {"gracePeriodSeconds": 0})
    assert run.wait(timeout_s=120) == "failed"
    assert "was deleted before its task had ended" in run.log("sleep")  # its own log went with it


@pytest.mark.parametrize("part", ["dispatcher", "scheduler"])
def test_whoever_is_killed_the_task_goes_on(airflow: Installation, part: str) -> None:
    """One pod, one body: the next one takes it back."""
    run = airflow.trigger("single", seconds=RUNS_S)
    run.wait_for_body()
    before = run.pods()
    airflow.stop(part, how=signal.SIGKILL)
    if part == "dispatcher":
        airflow.start_dispatcher()
    else:
        airflow.start_scheduler()
    assert run.pods() == before
    assert run.wait(timeout_s=300) == "success"
    assert run.task("sleep")["try_number"] == 1
    assert run.log("sleep").count("begins to sleep") == 1


def test_a_task_that_is_cleared_runs_again_and_a_pod_that_still_ran_goes(airflow: Installation) -> None:
    """Cleared while it runs, and cleared when it has ended: each time a new try with a pod and a log of its own."""
    run = airflow.trigger("single", seconds=300)
    run.wait_for_body()
    (first,) = run.pods()
    run.clear("sleep")
    parts.eventually(lambda: first not in run.pods(), 90, every_s=0.5, what="the pod of the first try is gone")
    assert run.wait(timeout_s=240) == "success"
    run.clear("sleep")
    parts.eventually(lambda: run.state() not in installation.DONE, 30, every_s=0.2, what="the run goes on")
    assert run.wait(timeout_s=240) == "success"
    assert run.task("sleep")["try_number"] == 3
    assert "has slept" not in run.log("sleep", 1)
    for number in (2, 3):
        assert "has slept" in run.log("sleep", number)


def test_a_deferred_task_has_no_pod_while_it_waits_and_resumes_in_a_second_one(airflow: Installation) -> None:
    """The triggerer waits for it."""
    run = airflow.trigger("deferred")
    first = parts.eventually(run.pods, 120, every_s=0.2, what="a pod that will defer")
    run.wait_for_task("wait", "deferred", timeout_s=120)
    parts.eventually(lambda: not run.pods(), 30, every_s=0.2, what="no pod while it is deferred")
    second = parts.eventually(run.pods, 120, every_s=0.2, what="a pod that resumes")
    assert run.wait(timeout_s=240) == "success"
    assert first != second
    assert run.task("wait")["try_number"] == 1


def test_a_workload_that_comes_twice_runs_once(airflow: Installation) -> None:
    """Under another id it gets another pod; Airflow lets no second body begin there."""
    run = airflow.trigger("single", seconds=RUNS_S)
    run.wait_for_body()
    (first,) = run.pods()
    secret = airflow.cluster.call("GET", f"/api/v1/namespaces/default/secrets/{first}")
    workload = base64.b64decode(secret["data"]["workload"]).decode()
    assert json.loads(workload)["token"]
    again = str(uuid4())
    with Celery(broker=airflow.broker, backend=airflow.broker, set_as_current=False) as app:
        app.send_task("execute_workload", args=[workload], queue="kubernetes", task_id=again)
        parts.eventually(
            lambda: app.backend.get_state(again) in ("FAILURE", "SUCCESS"), 120, every_s=0.5, what="the second is over"
        )
    assert run.task("sleep")["state"] == "running"
    assert run.wait(timeout_s=240) == "success"
    assert run.log("sleep").count("begins to sleep") == 1


def test_a_pod_is_given_no_way_into_airflow_but_its_token(airflow: Installation) -> None:
    """No broker, no result backend, no database, no secret that signs tokens: neither in the pod object nor inside."""
    run = airflow.trigger("surroundings")
    (pod,) = parts.eventually(run.pod_objects, 120, every_s=0.2, what="its pod")
    assert run.wait(timeout_s=240) == "success"
    log = run.log("look")
    assert "the pod has {" in log
    for words in (
        installation.SECRET,
        airflow.broker,
        airflow.database,
        airflow.database.replace("psycopg", "psycopg2"),
    ):
        assert words not in log
        assert words not in str(pod)
    assert "eyJ" not in str(pod)  # so every JWT begins


def test_pods_of_the_kubernetes_provider_run_beside_it(airflow: Installation) -> None:
    """KubernetesPodOperator is a task in a worker, which waits itself or leaves that to the triggerer."""
    run = airflow.trigger("beside")
    assert run.wait(timeout_s=300) == "success"
    for name in ("waits_in_worker", "waits_deferred"):
        assert f"{name} has a pod of its own" in run.log(name)
