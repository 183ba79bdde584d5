"""Parts that are away, are killed, or are there twice: every task runs, and once for each try that Airflow knows of."""

import json
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests import parts
from tests.airflow.installation import DONE, Installation, Run

OUTAGE_S = 30
LIVES_S = 4.0
"""How long a dispatcher consumes before it is killed."""
TASKS = 200
TOKEN_S = 20
"""How long a workload's token lives where a test waits for its end."""
RESCHEDULED = "stuck in queued reschedule"


def bodies(run: Run) -> dict[int, list[int]]:
    """Map index -> the tries of it whose body began, in their order."""
    found = defaultdict(list)
    for line in run.airflow.light_record.read_text().splitlines():
        run_id, map_index, try_number = json.loads(line)
        if run_id == run.id:
            found[map_index].append(try_number)
    return found


def tries_on_record(run: Run) -> dict[int, int]:
    """Map index -> how many tries Airflow knows of."""
    return {one["map_index"]: one["try_number"] for one in run.tasks().values() if one["task_id"] == "one"}


def assert_each_ran_once_a_try(run: Run, *, tasks: int) -> None:
    """Nothing is lost; no try ran twice, and none that Airflow does not know."""
    began, known = bodies(run), tries_on_record(run)
    assert set(known) == set(range(tasks))
    for index, tries in began.items():
        assert len(tries) == len(set(tries)), f"a body of {index} began twice in one try: {tries}"
        assert max(tries) == known[index], f"{index}: tries {tries} began, Airflow knows of {known[index]}"
    assert set(began) == set(known), "these never ran and are a success"


def is_over(run: Run) -> bool:
    """Whether a run has ended. An API server that is too busy to say so is asked again."""
    try:
        return run.state() in DONE
    except AssertionError:
        return False


def have_passed(seconds: float) -> None:
    """Waits for a time to pass, where it is the subject of the test."""
    end = time.monotonic() + seconds
    parts.eventually(lambda: time.monotonic() > end, seconds + 5, every_s=0.1)


def test_a_dispatcher_that_is_killed_again_and_again_loses_no_task(airflow: Installation) -> None:
    """SIGKILL every few seconds while 200 tasks are launched, run and end.

    What it had taken from the broker and not launched comes again after a minute.
    """
    run = airflow.trigger("many", tasks=TASKS)
    parts.eventually(lambda: len(bodies(run)) > 0, 120, every_s=0.1, what="the first of many pods")
    kills = 0
    while not is_over(run):
        airflow.stop("dispatcher", how=signal.SIGKILL)
        kills += 1
        airflow.start_dispatcher("dispatcher", "--max-pods", "40")  # so many are taken at once, too
        airflow.wait_for_dispatcher()
        have_passed(LIVES_S)
        assert kills < 60, f"not done after so many dispatchers: {len(bodies(run))} of {TASKS} began"
    assert run.state() == "success"
    assert kills >= 3
    assert_each_ran_once_a_try(run, tasks=TASKS)


def test_two_schedulers_and_two_dispatchers_share_the_work(airflow: Installation) -> None:
    """And of each pair one is killed in the middle of it."""
    tasks = 60
    airflow.start_scheduler("second-scheduler")
    airflow.start_dispatcher("second-dispatcher")
    airflow.wait_for_dispatcher("second-dispatcher")
    log = airflow.log("second-scheduler")
    parts.eventually(lambda: "Starting the scheduler" in log.read_text(), 90, every_s=0.2, what="the second scheduler")
    try:
        run = airflow.trigger("many", tasks=tasks)
        parts.eventually(lambda: len(bodies(run)) > 5, 120, every_s=0.05, what="the first of many pods")
        airflow.stop("scheduler", "dispatcher", how=signal.SIGKILL)
        assert run.wait(timeout_s=240) == "success"
        assert_each_ran_once_a_try(run, tasks=tasks)
        airflow.start_dispatcher()
        airflow.wait_for_dispatcher()
        for index in (0, tasks // 2, tasks - 1):
            assert "has ended" in run.log("one", tries_on_record(run)[index], index)
    finally:
        airflow.start_scheduler()
        airflow.stop("second-scheduler", "second-dispatcher")


def test_a_broker_that_is_away_for_half_a_minute_costs_no_task(airflow: Installation) -> None:
    """What runs goes on; what becomes ready waits and is sent under its id. A log that cannot be had says why."""
    before = airflow.trigger("single", seconds=OUTAGE_S)
    before.wait_for_body()
    airflow.valkey.kill()
    try:
        during = airflow.trigger("single")
        log = before.log("sleep")
        have_passed(OUTAGE_S)
        assert during.task("sleep")["state"] in ("scheduled", "queued")
    finally:
        airflow.valkey.restart()
    assert "podyard: the log could not be read" in log
    for run in (before, during):
        assert run.wait(timeout_s=240) == "success"
        assert run.task("sleep")["try_number"] == 1
        assert run.log("sleep").count("begins to sleep") == 1


@pytest.fixture
def impatient(airflow: Installation, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """An Airflow that takes queued tasks back soon, whose tokens live no longer than that, and without a dispatcher.

    The parameter: every how many seconds Airflow looks for tasks that are stuck.
    """
    airflow.stop("scheduler", "dispatcher")
    airflow.start_scheduler(
        AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT=str(TOKEN_S),
        AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL=str(request.param),
        AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES="20",
        AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME=str(TOKEN_S),  # of 3.1, where the timeout says nothing of tokens
    )
    yield airflow
    airflow.stop("scheduler", "dispatcher")
    airflow.start_scheduler()
    airflow.start_dispatcher()
    airflow.wait_for_dispatcher()


@pytest.mark.parametrize("impatient", [5], indirect=True)
def test_a_task_that_no_dispatcher_takes_is_queued_anew_and_runs_once(impatient: Installation) -> None:
    """Airflow takes it back; the message that it gave up gets no pod when a dispatcher comes."""
    run = impatient.trigger("single")
    parts.eventually(lambda: run.events(RESCHEDULED), 120, every_s=0.5, what="Airflow finds it stuck")
    impatient.start_dispatcher()
    assert run.wait(timeout_s=300) == "success"
    assert run.task("sleep")["try_number"] == 1
    assert run.log("sleep").count("begins to sleep") == 1


@pytest.mark.parametrize("impatient", [75], indirect=True)
def test_a_token_that_expired_in_the_queue_fails_no_task(impatient: Installation) -> None:
    """The dispatcher launches nothing with it, the executor reports nothing, and Airflow queues the task anew."""
    run = impatient.trigger("single")
    queued = run.wait_for_task("sleep", "queued")
    expired_at = datetime.fromisoformat(queued["queued_when"]) + timedelta(seconds=TOKEN_S + 1)
    parts.eventually(lambda: datetime.now(UTC) > expired_at, 60, every_s=0.2, what="the token has expired")
    assert not run.events(RESCHEDULED)
    impatient.start_dispatcher()
    impatient.wait_for_dispatcher()
    parts.eventually(
        lambda: "Discarding revoked task" in impatient.last_log("dispatcher"), 30, every_s=0.2, what="it is given up"
    )
    assert not run.pods()
    assert not run.events(RESCHEDULED)
    assert run.task("sleep")["state"] == "queued"
    assert run.wait(timeout_s=300) == "success"
    assert len(run.events(RESCHEDULED)) >= 1
    assert run.task("sleep")["try_number"] == 1
    assert run.log("sleep").count("begins to sleep") == 1
