"""Outcomes that are gone before the scheduler has read them: no second body runs under the same id.

A real Valkey server, a scheduler that is killed, and what people do to a result backend meanwhile. Bodies are counted
from a file of their own, in which each notes the id of the attempt that it runs for.
"""

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from routing.store import rows, tables
from tests import parts
from tests.integration.halves import Half
from tests.terminal import PODYARD

MORE = """
[scheduler]
sweep_s = 0.2
infra_retry_delay_s = 0.05
"""
SHORT = "[results]\nexpires_s = 1\n"
SCHEDULER = """
import logging, sys, threading
from pathlib import Path
from routing.config import settings
from routing.scheduling import service
logging.basicConfig(level=logging.INFO)
service.run(settings.load(Path(sys.argv[1]), environ={}), stop=threading.Event())
"""
DAG = """
import os
from pathlib import Path
NOTES = Path(__file__).parent.parent / "notes"

def note():
    with NOTES.open("a") as file:
        file.write(get_current_context()["attempt_id"] + "\\n")

@task(queue="{queue}")
def well():
    note()
    return 7

@task(queue="{queue}")
def badly():
    note()
    os._exit(3)

with DAG("away"):
    {task}()
"""


@contextlib.contextmanager
def scheduler(half: Half) -> Iterator[subprocess.Popen[bytes]]:
    process = parts.start([sys.executable, "-c", SCHEDULER, half.config], log=half.folder / "scheduler.log")
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def make(tmp_path: Path, broker: str, *, task: str = "well", queue: str = "default", more: str = "") -> Half:
    half = Half.make(tmp_path / "half", broker=broker, more=MORE + more)
    config = half.config.read_text().replace("[results]\n", SHORT)
    half.config.write_text(config)
    half.write_dag(DAG.format(task=task, queue=queue))
    return half


def sent_and_killed(half: Half) -> rows.RunRow:
    """A run whose only attempt was sent, and no scheduler."""
    with scheduler(half):
        run = half.trigger("away")
        parts.eventually(lambda: [one for one in attempts(half, run) if one.state == "sent"], 60)
    return run


def attempts(half: Half, run: rows.RunRow) -> list[rows.AttemptRow]:
    return list(half.store.attempts(run.run_id, dag_id=run.dag_id))


def ran(half: Half, keys: "redis.Redis[bytes]") -> str:
    """The attempt whose body ran and whose result is stored; returns its id."""
    [attempt_id] = parts.eventually(half.notes, 120, what="the body runs")
    parts.eventually(lambda: keys.llen("podyard:default:reports") >= 2, 60, what="its end is reported")
    return attempt_id


def age(half: Half) -> None:
    """The scheduler was away for an hour."""
    hour = timedelta(hours=1)
    with half.store.db.write() as connection:
        connection.execute(sa.update(tables.ATTEMPT).values(sent_at=datetime.now(UTC) - hour))
        connection.execute(sa.update(tables.POD).values(updated_at=datetime.now(UTC) - hour))


def gone(keys: "redis.Redis[bytes]", attempt_id: str) -> None:
    """By itself, a second after it was stored."""
    parts.eventually(lambda: not keys.exists(f"celery-task-meta-{attempt_id}"), 10, what="the result has expired")


def flushed(keys: "redis.Redis[bytes]", _attempt_id: str) -> None:
    keys.flushdb()


def forgotten(keys: "redis.Redis[bytes]", attempt_id: str) -> None:
    """As `AsyncResult.forget` does it, and with it the claim and the reports, as a careless clean-up would."""
    keys.delete(f"celery-task-meta-{attempt_id}", f"podyard:default:claim:{attempt_id}", "podyard:default:reports")
    keys.delete("podyard:default:era")


def reports_lost(keys: "redis.Redis[bytes]", attempt_id: str) -> None:
    """A scheduler that was killed between taking the reports and merging them; the claim is left."""
    gone(keys, attempt_id)
    keys.delete("podyard:default:reports")


def evicted(keys: "redis.Redis[bytes]", attempt_id: str) -> None:
    """The server ran out of memory and threw away what it liked."""
    limits = keys.config_get("maxmemory")
    keys.config_set("maxmemory-policy", "allkeys-random")
    keys.config_set("maxmemory", int(keys.info("memory")["used_memory"]) + 200_000)
    number = 0
    while keys.exists(f"celery-task-meta-{attempt_id}", f"podyard:default:claim:{attempt_id}"):
        keys.set(f"noise:{number}", "x" * 10_000)
        number += 1
    keys.config_set("maxmemory", limits["maxmemory"])
    keys.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("lose", [gone, flushed, forgotten, reports_lost, evicted], ids=lambda lose: lose.__name__)
def test_a_body_whose_result_is_gone_runs_again_as_a_new_attempt_only(
    tmp_path: Path, own_valkey: parts.Valkey, lose: Callable[..., None]
) -> None:
    """It ran on a Celery worker while the scheduler was dead; the record says ResultExpired, then tries again."""
    database = own_valkey.fresh()
    half = make(tmp_path, database.url)
    run = sent_and_killed(half)
    with database.client() as keys:
        with half.worker():
            first_id = ran(half, keys)
        lose(keys, first_id)
        for key in keys.scan_iter("podyard:default:worker:*"):
            keys.delete(key)  # the first worker's sign of life would run out by itself, within 20 s
    age(half)
    with half.worker(name="second@test"), scheduler(half):
        assert half.wait(run, timeout_s=120).state == "success"

    first, second = attempts(half, run)
    assert (first.id, first.state, first.cause) == (first_id, "lost", "infrastructure")
    assert first.reason in ("ResultExpired", "Lost")
    assert (second.state, second.number) == ("succeeded", 2)
    assert Counter(half.notes()) == {first.id: 1, second.id: 1}
    half.close()


def test_another_result_backend_knows_of_nothing_and_nothing_runs_twice_under_one_id(
    tmp_path: Path, own_valkey: parts.Valkey
) -> None:
    """The scheduler and the workers come back with another database for results."""
    broker, other = own_valkey.fresh(), own_valkey.fresh()
    half = make(tmp_path, broker.url)
    run = sent_and_killed(half)
    with half.worker(), broker.client() as keys:
        ran(half, keys)
    text = half.config.read_text()
    half.config.write_text(text.replace(f'expires_s = 1\nurl = "{broker.url}"', f'expires_s = 1\nurl = "{other.url}"'))
    assert other.url in half.config.read_text()
    age(half)
    with half.worker(name="second@test"), scheduler(half):
        assert half.wait(run, timeout_s=120).state == "success"
    assert [(one.state, one.reason) for one in attempts(half, run)] == [("lost", "ResultExpired"), ("succeeded", None)]
    assert sorted(Counter(half.notes()).values()) == [1, 1]
    half.close()


def test_a_message_that_was_lost_before_anybody_began_is_sent_again_in_the_same_attempt(
    tmp_path: Path, own_valkey: parts.Valkey
) -> None:
    """The result backend is whole, so the missing claim says that nobody ran it: no attempt is spent."""
    database = own_valkey.fresh()
    half = make(tmp_path, database.url)
    run = sent_and_killed(half)
    with database.client() as keys:
        keys.delete("default")  # the queue
    with half.store.db.write() as connection:
        earlier = datetime.now(UTC) - timedelta(seconds=90)
        connection.execute(sa.update(tables.ATTEMPT).values(sent_at=earlier))
    with database.client() as keys:
        keys.set("podyard:default:era", '{"at": "2026-01-01T00:00:00+00:00", "run_id": "", "evicted": 0}')
    with half.worker(), scheduler(half):
        assert half.wait(run, timeout_s=120).state == "success"
    [only] = attempts(half, run)
    assert (only.state, half.notes()) == ("succeeded", [only.id])
    half.close()


# --- pods

PODS = """
[kubernetes]
kubeconfig = "{kubeconfig}"
[queues.pods]
side = "kubernetes"
delete = "{delete}"
env = {{ PODYARD_DAGS__FOLDER = "{folder}" }}
"""


@contextlib.contextmanager
def dispatcher(half: Half) -> Iterator[None]:
    command = [PODYARD, "--config", half.config, "dispatcher", "--queues", "pods"]
    process = parts.start(command, log=half.folder / "dispatcher.log", cwd=half.folder)
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def pods(
    tmp_path: Path, valkey: parts.ValkeyDatabase, own_local_cluster: parts.LocalCluster
) -> Iterator[Callable[..., Half]]:
    """Makes an installation whose tasks get pods."""
    made: list[Half] = []

    def build(*, task: str, delete: str) -> Half:
        more = PODS.format(kubeconfig=own_local_cluster.kubeconfig, delete=delete, folder=tmp_path / "half" / "dags")
        made.append(make(tmp_path, valkey.url, task=task, queue="pods", more=more))
        return made[-1]

    yield build
    for half in made:
        half.close()


def pod_ended(half: Half, keys: "redis.Redis[bytes]", run: rows.RunRow) -> str:
    """The attempt whose pod ran while no scheduler lived, and whose result has expired."""
    attempt_id = ran(half, keys)
    gone(keys, attempt_id)

    def phase() -> str | None:
        with half.store.db.read() as connection:
            return connection.scalar(sa.select(tables.POD.c.phase).where(tables.POD.c.attempt_id == attempt_id))

    parts.eventually(lambda: phase() in ("Succeeded", "Failed"), 60)
    [only] = attempts(half, run)
    assert only.state == "sent"
    return attempt_id


@pytest.mark.parametrize("has_reports", [True, False], ids=["reported", "unreported"])
@pytest.mark.parametrize("has_claim", [True, False], ids=["claimed", "unclaimed"])
def test_a_pod_that_is_gone_with_its_result_gets_no_second_one_in_its_attempt(
    pods: Callable[..., Half], valkey: parts.ValkeyDatabase, has_reports: bool, has_claim: bool
) -> None:
    """The table of pods says Succeeded: that is told, and the task is tried again as a new attempt."""
    half = pods(task="well", delete="always")
    run = sent_and_killed(half)
    with dispatcher(half), valkey.client() as keys:
        first_id = pod_ended(half, keys, run)
        if not has_claim:
            keys.delete(f"podyard:default:claim:{first_id}")
        if not has_reports:
            keys.delete("podyard:default:reports")
        age(half)
        with scheduler(half):
            assert half.wait(run, timeout_s=120).state == "success"
    first, second = attempts(half, run)
    assert (first.reason, first.cause) == ("ResultExpired", "infrastructure")
    assert "had ended (Succeeded)" in str(first.error)
    assert second.state == "succeeded"
    assert Counter(half.notes()) == {first_id: 1, second.id: 1}


def test_a_pod_that_is_kept_tells_its_result_once_more(pods: Callable[..., Half], valkey: parts.ValkeyDatabase) -> None:
    """Nothing runs again: its outcome still stands in its pod."""
    half = pods(task="well", delete="never")
    run = sent_and_killed(half)
    with dispatcher(half), valkey.client() as keys:
        first_id = pod_ended(half, keys, run)
        age(half)
        with scheduler(half):
            assert half.wait(run, timeout_s=120).state == "success"
    [only] = attempts(half, run)
    assert (only.state, half.notes()) == ("succeeded", [first_id])


def test_a_failure_that_the_table_of_pods_knows_is_told_though_its_result_is_gone(
    pods: Callable[..., Half], valkey: parts.ValkeyDatabase
) -> None:
    """Exit code 3 is the author's, whoever tells it: no retry of the infrastructure's."""
    half = pods(task="badly", delete="always")
    run = sent_and_killed(half)
    with dispatcher(half), valkey.client() as keys:
        first_id = ran(half, keys)
        pod_ended(half, keys, run)
        age(half)
        with scheduler(half):
            assert half.wait(run, timeout_s=120).state == "failed"
    [only] = attempts(half, run)
    assert (only.state, only.cause, only.exit_code) == ("failed", "application", 3)
    assert half.notes() == [first_id]
