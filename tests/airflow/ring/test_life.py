"""One task's life on a real Airflow: failing, waiting, killed, lost and found again, each with what the user sees."""

import signal
from typing import Any

import pytest

from dispatcher.localcluster.client import Client
from tests import parts
from tests.airflow.installation import Installation, Run

PODS = "/api/v1/namespaces/default/pods"
RUNS_S = 40


def begun(run: Run) -> None:
    """The body of `single` runs."""

    def look() -> bool:
        log = run.log("sleep")
        assert "begins to sleep" in log, log
        return True

    run.wait_for_task("sleep", "running", timeout_s=240)
    parts.eventually(look, 60, every_s=0.5, what="the log of the running pod")


def objects(airflow: Installation, run: Run) -> list[dict[str, Any]]:
    """The pods of a DAG as the API server has them."""
    query = {"labelSelector": f"dag_id={run.dag}"}
    found: list[dict[str, Any]] = Client.from_kubeconfig(airflow.kubeconfig).call("GET", PODS, **query)["items"]
    return found


def pods(airflow: Installation, run: Run) -> list[str]:
    """The names of pods of a DAG that are there."""
    return [pod["metadata"]["name"] for pod in objects(airflow, run)]


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
    assert "spec.containers[0].imagge" in run.log("never")
    events = airflow.get("/api/v2/eventLogs?dag_id=wrong_override&event=state mismatch".replace(" ", "%20"))
    assert "spec.containers[0].imagge" in events["event_logs"][-1]["extra"]


def test_mapped_tasks_have_a_pod_each(airflow: Installation) -> None:
    """Their results come together in a worker."""
    run = airflow.trigger("mapped")
    assert run.wait(timeout_s=300) == "success"
    assert run.xcom("total") in (14, "14")
    assert "the square of 2" in run.log("square", map_index=1)


def test_the_log_of_a_running_pod_is_there_while_it_runs(airflow: Installation) -> None:
    """Neither scheduler nor API server may read pods; the pod object holds no token."""
    run = airflow.trigger("single", seconds=RUNS_S)
    begun(run)
    found = objects(airflow, run)
    assert found
    assert "eyJ" not in str(found)  # so every JWT begins
    assert run.wait(timeout_s=240) == "success"
    assert "has slept" in run.log("sleep")


def test_a_task_that_is_marked_failed_ends_its_pod(airflow: Installation) -> None:
    """The supervisor in the pod hears of it by its heartbeat."""
    run = airflow.trigger("single", seconds=300)
    begun(run)
    airflow.ask("PATCH", f"{run.path}/taskInstances/sleep", {"new_state": "failed"})
    parts.eventually(lambda: not pods(airflow, run), 90, every_s=0.5, what="the pod is gone")
    assert run.task("sleep")["state"] == "failed"


def test_a_pod_that_is_deleted_fails_its_task_at_once_and_says_so(airflow: Installation) -> None:
    """Airflow alone would wait for a heartbeat of five minutes."""
    run = airflow.trigger("single", seconds=300)
    begun(run)
    (name,) = pods(airflow, run)
    Client.from_kubeconfig(airflow.kubeconfig).call("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
    assert run.wait(timeout_s=120) == "failed"
    assert "was deleted before its task had ended" in run.log("sleep")  # its own log went with it


@pytest.mark.parametrize("part", ["dispatcher", "scheduler"])
def test_whoever_is_killed_the_task_goes_on(airflow: Installation, part: str) -> None:
    """One pod, one body: the next one takes it back."""
    run = airflow.trigger("single", seconds=RUNS_S)
    begun(run)
    before = pods(airflow, run)
    airflow.stop(part, how=signal.SIGKILL)
    if part == "dispatcher":
        airflow.start_dispatcher()
    else:
        airflow.start_scheduler()
    assert pods(airflow, run) == before
    assert run.wait(timeout_s=300) == "success"
    assert run.task("sleep")["try_number"] == 1
    assert run.log("sleep").count("begins to sleep") == 1
