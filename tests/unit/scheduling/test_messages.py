"""The Celery message of a DAG task: the name that people read, and the limits that hold it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from routing.authoring.spec import TaskSpec
from routing.scheduling import messages


def message(**fields: Any) -> dict[str, Any]:
    """That of the task `load` of the DAG `sales`."""
    occasion = messages.Occasion(
        dag_file="f.py",
        dag_id="sales",
        run_id="r",
        logical_date=datetime(2026, 1, 1, tzinfo=UTC),
        conf={},
        try_number=1,
        inputs={},
    )
    return messages.build(TaskSpec(task_id="load", **fields), occasion)


@pytest.mark.parametrize("operator", ["python", "bash", "pod"])
def test_people_read_dag_and_task(operator: str) -> None:
    """Celery's `shadow` is the name in events, in Flower and in the pods' table; the task stays `routing.run`."""
    assert message(operator=operator)["shadow"] == "sales.load"


def test_a_pod_of_any_image_ends_at_its_time_out() -> None:
    """There is no body to interrupt: the limit of the message is the time-out itself."""
    assert message(operator="pod", execution_timeout_s=3.0)["time_limit"] == 3.0


def test_a_body_that_does_not_end_at_its_time_out_has_a_hard_limit_behind_it() -> None:
    """Celery or the dispatcher ends what swallows the interruption."""
    limit_s = message(operator="python", execution_timeout_s=3.0)["time_limit"]
    assert limit_s == 3.0 + messages.HARD_LIMIT_AFTER_S


@pytest.mark.parametrize("operator", ["python", "pod"])
def test_without_a_time_out_there_is_no_limit(operator: str) -> None:
    """As the author has it."""
    assert message(operator=operator)["time_limit"] is None
