"""A queue without a consumer is named within seconds: by `queues list`, by the record and in the log, on both sides."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from routing.cli import queuefacts
from routing.config import settings
from routing.store import rows
from routing.worker import celery_app
from tests import parts
from tests.integration.halves import Half

NAMED_WITHIN_S = 10.0
"""The bar; docs/operations.md says what is usual. A loaded machine of a test needs room."""


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, valkey_server: parts.Valkey) -> Iterator[Half]:
    made = Half.make(
        tmp_path_factory.mktemp("queues") / "half",
        broker=valkey_server.fresh().url,
        more='[queues.solo]\nside = "celery"\n[queues."gpu-*"]\nside = "kubernetes"\n',
    )
    made.write_dag(
        'with DAG("late"):\n'
        '    BashOperator(task_id="later", bash_command="true", queue="solo")\n'
        '    BashOperator(task_id="never", bash_command="true", queue="gpu-1")\n'
    )
    with made.scheduler():
        yield made
    made.close()


def gathered(half: Half, known: settings.Settings) -> tuple[list[queuefacts.Fact], list[str]]:
    """As `podyard queues list` asks for them."""
    app = celery_app.build(known, "scheduler")
    return queuefacts.gather(app, known.router, path=None, open_store=lambda: half.store)


def facts(half: Half) -> dict[str, queuefacts.Fact]:
    found, unknown = gathered(half, half.settings)
    assert unknown == []
    return {fact.queue: fact for fact in found}


def test_a_queue_that_never_had_a_consumer_is_listed_with_what_waits_and_the_way_out(half: Half) -> None:
    """Of both sides, with messages, attempts and the command; a pattern has none of it."""
    run = half.trigger("late")
    parts.eventually(lambda: _consumer_wait(half, run, "later") and _consumer_wait(half, run, "never"), 20)
    found = facts(half)

    assert found["gpu-*"].is_pattern
    assert found["gpu-*"].consumers is None
    for queue, command in (("solo", "podyard worker --queues solo"), ("gpu-1", "podyard dispatcher --queues gpu-1")):
        fact = found[queue]
        assert (fact.consumers, fact.messages, fact.waiting, fact.in_flight) == ((), 1, 1, 0)
        assert fact.oldest_at is not None
        assert fact.start_command == command
    assert list(found)[:3] == ["kubernetes", "solo", "gpu-*"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_queue_whose_last_consumer_ended_is_named_within_seconds(half: Half, how: signal.Signals) -> None:
    """Asked to end or killed; by the command that asks workers, and by the record that the scheduler keeps."""
    with half.worker(concurrency=1, name="last@test", queues="solo") as worker:
        parts.eventually(lambda: "solo" in {one.queue for one in half.store.consumers()}, 20)
        assert facts(half)["solo"].consumers == ("last@test",)

        os.kill(worker.pid, how)
        ended_s = time.monotonic()
        parts.eventually(lambda: facts(half)["solo"].is_unconsumed, NAMED_WITHIN_S, is_promise=True)
        listed_s = time.monotonic() - ended_s
        parts.eventually(
            lambda: "solo" not in {one.queue for one in half.store.consumers()}, NAMED_WITHIN_S, is_promise=True
        )
        recorded_s = time.monotonic() - ended_s
        print(f"{how.name}: queues list {listed_s:.1f} s, record {recorded_s:.1f} s")


def test_it_is_logged_once_with_what_waits_and_the_way_out(half: Half, caplog: pytest.LogCaptureFixture) -> None:
    """Many attempts, many looks, one line."""
    with caplog.at_level(logging.WARNING):
        runs = [half.trigger("late") for _ in range(2)]
        parts.eventually(
            lambda: all(_consumer_wait(half, run, "later") for run in runs), NAMED_WITHIN_S, is_promise=True
        )
    told = [record.getMessage() for record in caplog.records if "'solo'" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("; start one: podyard worker --queues solo")


def _consumer_wait(half: Half, run: rows.RunRow, task_id: str) -> rows.WaitRow | None:
    wait = half.store.explain(run.run_id, task_id, dag_id="late", at=datetime.now(UTC)).wait
    return wait if wait is not None and wait.kind == "consumer" and wait.at_deadline else None


def test_queues_are_listed_while_broker_and_record_are_away(half: Half) -> None:
    """The rules are there; what is not known is said."""
    broker = replace(half.settings.broker, url="redis://127.0.0.1:1/0")
    away = type(half.settings)(**{**vars(half.settings), "broker": broker})

    found, unknown = gathered(half, away)

    assert [fact.queue for fact in found][:3] == ["kubernetes", "solo", "gpu-*"]
    assert {fact.consumers for fact in found} == {None}
    assert "the broker does not answer" in "".join(unknown)
