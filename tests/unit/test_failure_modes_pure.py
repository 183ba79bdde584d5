"""Rows of docs/failure-modes.md that pure parts decide, each by its id."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatcher.attempts import sightings
from dispatcher.pod import bounds
from dispatcher.protocol import outcome
from dispatcher.status import observation
from dispatcher.worker import requests
from routing.authoring import child, loading

NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
MINUTES_5 = timedelta(minutes=5)


def left_s(started_at: datetime, *, limit_s: float, now: datetime) -> float | None:
    """What is left of a hard time limit whose container says when it began; its pod was made at noon."""
    seen = observation.Observation(verdict="running", started_at=started_at.isoformat())
    bounded_at, _ = sightings.times(seen, created=NOON.isoformat())
    assert bounded_at is not None
    return requests.left_s(bounded_at, limit_s=limit_s, now=now)


@pytest.mark.parametrize("off", [-MINUTES_5, MINUTES_5])
def test_T1_P30_a_nodes_clock_neither_shortens_nor_stretches_a_time_limit(off: timedelta) -> None:
    """Its words are bounded by when the API server made the pod; nobody gets more than the whole limit."""
    after_10_s = left_s(NOON + off, limit_s=60, now=NOON + timedelta(seconds=10))

    assert after_10_s is not None
    assert 50 <= after_10_s <= 60


def test_T1_P30_no_duration_is_negative() -> None:
    """A node that is behind, and one whose clock was set back while the container ran."""
    behind, set_back = NOON - MINUTES_5, NOON + timedelta(seconds=30)
    for began, ended in ((behind, behind), (set_back, behind), (NOON + MINUTES_5, NOON)):
        seen = observation.Observation(verdict="succeeded", started_at=began.isoformat(), ended_at=ended.isoformat())
        started_at, ended_at = sightings.times(seen, created=NOON.isoformat())
        assert started_at is not None
        assert ended_at is not None
        assert NOON <= started_at <= ended_at


def test_P23_a_success_is_a_success_though_memory_ran_out_beside_it() -> None:
    """Exit code 0 of the deciding container, while another one, or a child process of it, was killed for its memory."""
    base = {"terminated": {"exitCode": 0, "reason": "OOMKilled", "finishedAt": "2030-01-01T12:00:00Z"}}
    side = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2030-01-01T12:00:00Z"}}
    pod = {
        "metadata": {"name": "p", "uid": "1"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "side", "state": side}, {"name": "base", "state": base}],
        },
    }
    seen = observation.observe(pod)
    assert (seen.verdict, seen.exit_code, seen.cause) == ("succeeded", 0, None)


def test_A3_a_file_that_is_too_large_is_refused_unread_and_the_others_load(tmp_path: Path) -> None:
    """By its size, before a process is started for it."""
    (tmp_path / "large.py").write_text("raise SystemExit\n#" + "x" * loading.MAX_FILE_BYTES)
    (tmp_path / "good.py").write_text("from routing import *\nwith DAG('good'):\n    EmptyOperator(task_id='t')\n")
    loaded = loading.load_folder(tmp_path, timeout_s=20)
    assert [dag.dag_id for dag in loaded.dags] == ["good"]
    [error] = loaded.errors
    assert (error.file, error.message.split(";")[0]) == (
        "large.py",
        "the file has 4,194,322 bytes, more than the limit of 4,194,304",
    )


def test_A3_a_file_of_too_many_tasks_is_refused_with_its_line(tmp_path: Path) -> None:
    """With the DAG that has most of them, and a way out."""
    (tmp_path / "many.py").write_text(
        "from routing import *\n"
        "with DAG('many'):\n"
        f"    for number in range({child.MAX_TASKS} + 1):\n"
        "        EmptyOperator(task_id=f't{number}')\n"
    )
    error = child.describe(tmp_path, "many.py")["error"]
    assert error["line"] == 2
    assert error["message"].startswith("the file has 20,001 tasks, more than the limit of 20,000; ")


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why", "reason"),
    [
        (nested(bounds.MAX_DEPTH + 1), "the result is nested deeper than 200 levels", "ResultUnusable"),
        (nested(100_000), "the result has no JSON form: maximum recursion depth exceeded", "ResultUnusable"),
        ({str(number): number for number in range(1_000_000)}, "the result has 17777780 bytes", "ResultTooLarge"),
    ],
)
def test_A8_a_deep_or_huge_result_fails_its_task_before_it_travels(value: Any, why: str, reason: str) -> None:
    """With the reason, and in the pod: what cannot be stored would be tried again for ever."""
    given = outcome.Outcome(id="1", retries=0, state="SUCCESS", value=value)
    kept = bounds.bounded(given, max_bytes=1_000_000)
    assert kept.failure is not None
    assert kept.failure.args[0].startswith(why)
    assert kept.failure.args[1] == {"reason": reason, "cause": "application"}


def test_A8_a_result_within_the_limits_travels() -> None:
    """As deep as it may be."""
    given = outcome.Outcome(id="1", retries=0, state="SUCCESS", value={"a": nested(bounds.MAX_DEPTH - 1)})
    assert bounds.bounded(given, max_bytes=10_000).state == "SUCCESS"
