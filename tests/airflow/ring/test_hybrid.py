"""The hybrid on a real Airflow: tasks of one DAG in workers and in pods, with their logs, as the UI has them."""

from tests.airflow.installation import Installation


def test_tasks_run_where_their_queue_says_and_logs_of_all_are_there(airflow: Installation) -> None:
    """Four tasks in workers, four in pods, and one more pod that reads what all of them returned."""
    run = airflow.trigger("hybrid")
    assert run.wait(timeout_s=300) == "success"
    assert run.xcom("count") == "4 in workers, 4 in pods"
    for number in range(4):
        assert f"on_worker_{number} ran in a worker" in run.log(f"on_worker_{number}")
        assert f"in_pod_{number} ran in a pod" in run.log(f"in_pod_{number}")
