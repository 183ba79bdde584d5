"""The scheduler with a real prefork worker, Valkey, SQLite and PostgreSQL: flows, faults and outages."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from routing.results import backend
from routing.scheduling import service
from routing.store import rows, store_errors, tables
from routing.store.store import Store
from tests import parts
from tests.integration.halves import Half


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def half(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: parts.Valkey,
    postgres_server: parts.Postgres,
) -> Iterator[Half]:
    """A scheduler and a worker that several tests share."""
    folder = tmp_path_factory.mktemp(request.param)
    database = postgres_server.url(postgres_server.create_database()) if request.param == "postgres" else None
    made = Half.make(
        folder / "half",
        broker=valkey_server.fresh().url,
        database=database,
        more="[scheduler]\ninfra_retry_delay_s = 0.05\n",
    )
    made.copy_dag("flows")
    with made.worker(), made.scheduler():
        yield made
    made.close()


def states(half: Half, run: rows.RunRow) -> dict[str, str]:
    return {task.task_id: task.state for task in half.store.tasks(run.run_id, dag_id=run.dag_id)}


def test_a_dag_runs_to_its_end(half: Half) -> None:
    run = half.wait(half.trigger("mixed"))
    assert (run.state, run.task_states, run.reason) == ("success", {"success": 5}, None)
    second = half.task(run, "two")
    assert (second.result, second.side, second.queue, second.try_number) == (2, "celery", "default", 1)
    assert second.host is not None
    assert second.started_at is not None
    assert second.ended_at is not None
    assert half.task(run, "begin").side is None
    [attempt] = half.store.attempts(run.run_id, "two", dag_id="mixed")
    assert (attempt.state, attempt.sends, attempt.rule, attempt.evidence) == ("succeeded", 1, "(no rule)", ())
    assert {xcom.task_id: xcom.value for xcom in half.store.xcoms(run.run_id, dag_id="mixed")}["one"] == {"n": 1}


def test_each_fault_of_an_author_has_its_reason_and_the_rest_goes_on(half: Half) -> None:
    run = half.wait(half.trigger("faults"))
    found = {
        one.task_id: (one.state, one.reason, one.cause, one.exit_code)
        for one in half.store.attempts(run.run_id, dag_id="faults")
    }
    assert found == {
        "raises": ("failed", "ValueError", "application", None),
        "exits": ("failed", "ProcessExited", "application", 3),
        "killed": ("failed", "ProcessKilled", "unknown", 137),
        "not_json": ("failed", "ResultUnusable", "application", None),
        "too_large": ("failed", "ResultTooLarge", "application", None),
        "größe.漢字": ("succeeded", None, None, None),
        "exit_code": ("failed", "Error", "application", 4),
        "last": ("succeeded", None, None, None),
    }
    assert run.state == "success", "the last task forgives"
    story = "\n".join(half.store.explain(run.run_id, "killed", dag_id="faults", at=datetime.now(UTC)).lines)
    assert "killed by signal 9" in story
    raised = next(one for one in half.store.attempts(run.run_id, "raises", dag_id="faults"))
    assert raised.error is not None
    assert raised.error.startswith("no such thing\nTraceback")
    assert not [part for part in ("/celery/", "/routing/", "/dispatcher/", "/billiard/") if part in raised.error]


def test_retries_are_new_attempts(half: Half) -> None:
    run = half.wait(half.trigger("retries"))
    task = half.task(run, "third_time")
    assert (run.state, task.state, task.try_number, task.result) == ("success", "success", 3, "done")
    attempts = half.store.attempts(run.run_id, dag_id="retries")
    assert [(one.number, one.state, one.reason) for one in attempts] == [
        (1, "failed", "RuntimeError"),
        (2, "failed", "RuntimeError"),
        (3, "succeeded", None),
    ]
    assert len({one.id for one in attempts}) == 3


def test_faults_of_the_infrastructure_have_their_own_budget(half: Half) -> None:
    """The author allowed no retry, and none was charged."""
    run = half.wait(half.trigger("infrastructure"))
    assert run.state == "success"
    causes = [one.cause for one in half.store.attempts(run.run_id, dag_id="infrastructure")]
    assert causes == ["infrastructure", "infrastructure", None]


def test_trigger_rules_decide_what_runs(half: Half) -> None:
    run = half.wait(half.trigger("rules"))
    assert states(half, run) == {
        "bad": "failed",
        "good": "success",
        "repair": "success",
        "never": "upstream_failed",
        "neither": "upstream_failed",
        "report": "success",
    }
    assert run.state == "success"


def test_a_failure_that_says_skipped_skips_its_task(half: Half) -> None:
    """As a pod does whose exit code is in `skip_on_exit_code`: no retry, and trigger rules see a skip."""
    run = half.wait(half.trigger("skips"))
    assert states(half, run) == {"nothing_to_do": "skipped", "follows": "skipped", "tidies": "success"}
    assert run.state == "success"
    assert half.task(run, "nothing_to_do").reason == "Skipped: nothing to do"


def test_a_hop_takes_milliseconds(half: Half) -> None:
    """Not a benchmark: only that no polling interval stands between two tasks. The machine may be busy."""
    run = half.wait(half.trigger("chain"))
    assert run.started_at is not None
    assert run.ended_at is not None
    assert (run.ended_at - run.started_at).total_seconds() < 10 * 0.2


def test_a_queue_that_nobody_consumes_is_named(half: Half) -> None:
    run = half.trigger("lonely")
    task = half.wait_task(run, "waits", lambda task: "no worker consumes" in (task.waiting_reason or ""))
    assert task.waiting_reason == "no worker consumes the queue 'nobody'"
    parts.eventually(lambda: [one.queue for one in half.store.consumers()] == ["default"], 20)
    assert [process.kind for process in half.store.processes()] == ["scheduler", "worker"]
    with half.worker(concurrency=1, name="late@test", queues="nobody"):
        assert half.wait(run).state == "success"


def test_cancelling_stops_what_runs_and_starts_nothing_more(half: Half) -> None:
    run = half.trigger("slow")
    half.wait_task(run, "sleeps", lambda task: task.state == "running")
    assert half.store.cancel_run(run.run_id, dag_id="slow", at=datetime.now(UTC))
    backend.wake(half.app)

    def is_stopped() -> bool:
        [attempt] = half.store.attempts(run.run_id, dag_id="slow")
        return attempt.state == "revoked"

    parts.eventually(is_stopped, 20)
    assert states(half, run) == {"sleeps": "cancelled", "after": "cancelled"}
    assert not {"slept", "after"} & set(half.notes())


def test_a_second_delivery_does_no_second_run(half: Half) -> None:
    """The same message once more, as after a failed batch or a visibility time-out."""
    run = half.wait(half.trigger("retries"))
    *_, attempt = half.store.attempts(run.run_id, dag_id="retries")
    before = half.notes()
    message = tables.ATTEMPT.c.message  # of an attempt that has ended no statement gives it: nobody sends it again
    with half.store.db.read() as connection:
        recorded = connection.scalar(sa.select(message).where(tables.ATTEMPT.c.id == attempt.id))
    with half.app.producer_or_acquire() as producer:
        for _ in range(3):
            half.app.send_task(
                "routing.run", task_id=attempt.id, kwargs=recorded["kwargs"], queue="default", producer=producer
            )
    assert half.wait(half.trigger("chain")).state == "success"
    assert half.notes() == before
    assert half.store.attempt(attempt.id) == attempt


def test_a_paused_dag_starts_no_run(half: Half) -> None:
    parts.eventually(lambda: half.store.pause("mixed", True), 10)
    run = half.trigger("mixed")
    assert half.wait(half.trigger("chain")).state == "success"
    found = half.store.run(run.run_id, dag_id="mixed")
    assert found is not None
    assert found.state == "queued"
    half.store.pause("mixed", False)
    assert half.wait(run).state == "success"


def test_broken_dag_files_are_told(half: Half) -> None:
    half.write_dag("with DAG('x'):\n    this is no python\n", "broken.py")
    [found] = parts.eventually(half.store.dag_errors, 20)
    assert (found.file, found.line) == ("broken.py", 3)
    (half.folder / "dags" / "broken.py").unlink()
    parts.eventually(lambda: not half.store.dag_errors(), 20)


# --- kills and outages

PAIRS = 100

SCHEDULER = """
import logging, sys, threading
from pathlib import Path
from routing.config import settings
from routing.scheduling import service
logging.basicConfig(level=logging.INFO)
service.run(settings.load(Path(sys.argv[1]), environ={}), stop=threading.Event())
"""


def assert_each_ran_once(half: Half, run: rows.RunRow) -> None:
    assert run.state == "success"
    assert sorted(map(int, half.notes())) == [*range(PAIRS), *range(1000, 1000 + PAIRS)]
    attempts = half.store.attempts(run.run_id)
    assert len(attempts) == 2 * PAIRS
    assert all(one.evidence == () for one in attempts)


def wait_for_notes(half: Half, count: int) -> None:
    parts.eventually(lambda: len(half.notes()) > count, 30, what=f"more than {count} notes")


@contextlib.contextmanager
def scheduler_process(half: Half) -> Iterator[subprocess.Popen[bytes]]:
    process = parts.start([sys.executable, "-c", SCHEDULER, half.config], log=half.folder / "scheduler.log")
    try:
        yield process
    finally:
        parts.stop(process)


def test_a_killed_scheduler_loses_and_doubles_nothing(tmp_path: Path, valkey: parts.ValkeyDatabase) -> None:
    """SIGKILL in the middle of a run, three times; the next one goes on at once, and each body ran once."""
    half = Half.make(tmp_path / "half", broker=valkey.url, dag="counted")
    run = None
    with half.worker():
        for noted in (10, 60, 130):
            with scheduler_process(half) as process:
                run = run or half.trigger("counted")
                wait_for_notes(half, noted)
                process.kill()
                process.wait(10)
        with scheduler_process(half):
            assert run is not None
            assert_each_ran_once(half, half.wait(run, timeout_s=60))
    half.close()


def test_broker_and_results_may_be_away(
    tmp_path: Path, own_valkey: parts.Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed in the middle of a run and started again: one line when it goes, one when it is back, nothing hangs."""
    half = Half.make(tmp_path / "half", broker=own_valkey.fresh().url, dag="counted")
    with half.worker(), half.scheduler():
        run = half.trigger("counted")
        wait_for_notes(half, 30)
        own_valkey.kill()
        parts.eventually(lambda: "the result backend is away" in caplog.text, 10)
        own_valkey.restart()
        assert half.wait(run, timeout_s=60).state == "success"
    assert caplog.text.count("the result backend is away") == 1
    assert caplog.text.count("the result backend is back") == 1
    assert "Traceback" not in caplog.text
    half.close()


def test_a_broker_that_is_not_there_at_the_start_is_waited_for(
    tmp_path: Path, own_valkey: parts.Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Runs are taken, recorded and explained meanwhile, and their messages sent when the broker is there."""
    half = Half.make(tmp_path / "half", broker=own_valkey.fresh().url, dag="flows")
    own_valkey.kill()
    with half.scheduler():
        parts.eventually(lambda: half.store.dag("chain"), 20)
        run = half.store.create_run("chain", at=datetime.now(UTC))
        half.wait_task(run, "c0", lambda task: task.state == "queued")
        lines = half.store.explain(run.run_id, "c0", at=datetime.now(UTC)).lines
        assert "the broker or the scheduler is away" in lines[1]
        bound = "then it goes on waiting (waits.sending of the queue default)"
        parts.eventually(lambda: bound in "".join(half.store.explain(run.run_id, "c0", at=datetime.now(UTC)).lines), 20)
        own_valkey.restart()
        with half.worker():
            assert half.wait(run).state == "success"
    assert [caplog.text.count(f"{what} is away") for what in ("broker", "result backend", "database")] == [1, 1, 0]
    assert "Traceback" not in caplog.text
    half.close()


def test_a_database_may_be_away(tmp_path: Path, valkey: parts.ValkeyDatabase, caplog: pytest.LogCaptureFixture) -> None:
    """PostgreSQL stops in the middle of a run and comes back: the outcomes that came meanwhile are not lost."""
    postgres = parts.Postgres.start()
    try:
        database = postgres.url(postgres.create_database())
        half = Half.make(tmp_path / "half", broker=valkey.url, database=database, dag="counted")
        with half.worker(), half.scheduler():
            run = half.trigger("counted")
            wait_for_notes(half, 30)
            assert postgres.process is not None
            parts.stop(postgres.process, how=signal.SIGINT)
            parts.eventually(lambda: "the database is away" in caplog.text, 20)
            postgres._run()
            parts.eventually(lambda: _answers(half.store), 20)
            assert_each_ran_once(half, half.wait(run, timeout_s=60))
        assert caplog.text.count("the database is away") == 1
        assert "Traceback" not in caplog.text
        half.close()
    finally:
        postgres.stop()


def _answers(store: Store) -> bool:
    with contextlib.suppress(Exception):
        return store.check().ok
    return False


def test_a_second_scheduler_stands_by_and_takes_over(
    tmp_path: Path, valkey: parts.ValkeyDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    half = Half.make(tmp_path / "half", broker=valkey.url, dag="flows")
    with half.worker(), half.scheduler() as first:
        parts.eventually(lambda: half.store.dag("chain"), 20)
        with half.scheduler():
            parts.eventually(lambda: "standing by" in caplog.text, 10)
            first.set()
            assert half.wait(half.trigger("chain")).state == "success"
    half.close()


def test_a_killed_worker_is_noticed_and_its_attempt_is_tried_again(
    tmp_path: Path, valkey: parts.ValkeyDatabase
) -> None:
    """SIGKILL of the whole worker mid-task: its child dies with it, no result will come, the attempt is lost."""
    more = "[scheduler]\nsweep_s = 0.2\ninfra_retry_delay_s = 0.05\n"
    half = Half.make(tmp_path / "half", broker=valkey.url, dag="mortal", more=more)
    with half.scheduler():
        with half.worker() as worker:
            run = half.trigger("mortal")
            [child] = parts.eventually(half.notes, 30)
            half.wait_task(run, "works", lambda task: task.state == "running")
            worker.kill()
            parts.eventually(lambda: not _is_alive(int(child)), 10, what="the child dies with its worker")
        with valkey.client() as client:  # the pulse would run out by itself, within 20 s
            client.delete(*client.keys("podyard:default:worker:*"))
        with half.worker(name="second@test"):
            assert half.wait(run, timeout_s=60).state == "success"
    first, second = half.store.attempts(run.run_id)
    assert (first.state, first.cause, first.reason) == ("lost", "infrastructure", "Lost")
    assert (second.state, second.number) == ("succeeded", 2)
    half.close()


def test_b4_a_worker_says_again_which_bodies_it_runs(tmp_path: Path, valkey: parts.ValkeyDatabase) -> None:
    """A server that comes back without its last data has lost the claim; the body that runs is not taken for lost."""
    half = Half.make(tmp_path / "half", broker=valkey.url, dag="mortal")
    with half.scheduler(), half.worker(), valkey.client() as client:
        run = half.trigger("mortal")
        half.wait_task(run, "works", lambda task: task.state == "running")
        [attempt] = half.store.attempts(run.run_id)
        client.delete(f"podyard:default:claim:{attempt.id}")
        parts.eventually(lambda: client.exists(f"podyard:default:body:{attempt.id}"), 10, what="the heartbeat")
    half.close()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_database_of_another_revision_ends_the_scheduler_with_a_sentence(
    tmp_path: Path, valkey: parts.ValkeyDatabase
) -> None:
    half = Half.make(tmp_path / "half", broker=valkey.url)
    with half.store.db.write() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
    with pytest.raises(store_errors.SchemaError, match="podyard db upgrade"):
        service.run(half.settings, stop=threading.Event())
    half.close()
