"""What only an application of Celery can answer, asked of a real one: with a result backend, without."""

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery, states
from celery.worker import state as worker_state

from dispatcher import errors
from dispatcher.attempts.status_store import PodRow
from dispatcher.worker.backend_questions import BackendQuestions

ME = "dispatcher@host"
AWAY = "redis://127.0.0.1:1/0"
"""Nobody listens there."""


_ids = itertools.count()


@pytest.fixture
def task_id() -> str:
    """One of its own for each test: Celery's backend in memory is one for all."""
    return f"asked-{next(_ids)}"


def app(backend: str | None = "cache+memory://") -> Celery:
    """An application of Celery's."""
    made = Celery("asked", broker="memory://", backend=backend, set_as_current=False)
    made.conf.result_backend_always_retry = False
    made.conf.redis_backend_health_check_interval = None
    made.conf.redis_socket_connect_timeout = 0.2
    made.conf.redis_retry_on_timeout = False
    made.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0, "interval_start": 0}}
    return made


def questions(made: Celery | None = None) -> BackendQuestions:
    """They are asked of this one."""
    return BackendQuestions(made or app(), nodename=ME)


def row(attempt_id: str = "a") -> PodRow:
    """A row whose pod is gone."""
    return PodRow(
        **dict.fromkeys(("deployment", "namespace", "queue", "task"), "x"),
        attempt_id=attempt_id,
        retries=0,
        name="pod-a",
        owner=ME,
        phase="Running",
        updated_at=datetime.now(UTC),
    )


@pytest.mark.parametrize("state", sorted(states.ALL_STATES))
def test_an_outcome_is_a_final_state(state: str, task_id: str) -> None:
    """A task that has started, or is to be tried again, has none."""
    made = app()
    made.backend.store_result(task_id, ValueError("x") if state in states.EXCEPTION_STATES else 1, state)
    assert questions(made).has_outcome(task_id) is (state in states.READY_STATES)


def test_of_what_nobody_knows_there_is_no_outcome() -> None:
    """Celery says `PENDING` to it."""
    assert not questions().has_outcome("nobody")


def test_an_application_without_a_result_backend_stores_nothing() -> None:
    """Nothing is stored already, and nothing is asked."""
    asked = questions(app(None))
    assert (asked.stores_results, asked.has_outcome("a"), asked.store_lost(row())) == (False, False, "LOST")


def test_one_with_a_result_backend_stores_results() -> None:
    """Whichever."""
    assert questions().stores_results
    assert questions(app(AWAY)).stores_results


def test_a_result_backend_that_is_away_is_an_error_and_no_answer() -> None:
    """Whoever asks waits for it: a guess would run a task twice, or never."""
    asked = questions(app(AWAY))
    for question in (lambda: asked.has_outcome("a"), lambda: asked.store_lost(row())):
        with pytest.raises(Exception, match=r"(?i)refused|connect"):
            question()


@pytest.mark.parametrize("before", [None, states.PENDING, states.STARTED])
def test_a_lost_attempt_is_stored_as_a_failure_of_the_infrastructure(before: str | None, task_id: str) -> None:
    """Whoever waits for its result learns why."""
    made = app()
    if before is not None:
        made.backend.store_result(task_id, None, before)
    assert questions(made).store_lost(row(task_id)) == "LOST"
    result = made.AsyncResult(task_id)
    assert result.state == "FAILURE"
    assert isinstance(result.result, errors.PodFailed)
    details = result.result.details
    assert (details["reason"], details["cause"], details["pod"]) == ("PodDeleted", "infrastructure", "pod-a")
    assert details["explanation"]
    assert details["what_to_do"]


@pytest.mark.parametrize("state", [*sorted(states.READY_STATES), states.RETRY])
def test_the_first_verdict_stands(state: str, task_id: str) -> None:
    """A retry is a launch of its own: what it says is not ours to change."""
    made = app()
    stored: Any = ValueError("x") if state in states.EXCEPTION_STATES else 1
    made.backend.store_result(task_id, stored, state)
    assert questions(made).store_lost(row(task_id)) == state
    assert made.AsyncResult(task_id).state == state


def test_a_revoked_task_is_known_by_Celerys_own_set() -> None:
    """It is the one that `revoke` fills."""
    worker_state.revoked.add("revoked-here")
    try:
        assert questions().is_revoked("revoked-here")
        assert not questions().is_revoked("another")
    finally:
        worker_state.revoked.discard("revoked-here")


class Pinging:
    """Stands for the other workers: Celery's `inspect` without a broker."""

    def __init__(self, answers: Any) -> None:
        self.answers = answers

    def inspect(self, timeout: float) -> "Pinging":
        assert timeout > 0
        return self

    def ping(self) -> Any:
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


@pytest.mark.parametrize(
    ("answers", "alive"),
    [
        ({ME: {"ok": "pong"}, "other@host": {"ok": "pong"}}, {ME, "other@host"}),
        ({ME: {"ok": "pong"}}, {ME}),
        ({"other@host": {"ok": "pong"}}, None),
        ({}, None),
        (None, None),
        (ConnectionError("the broker is away"), None),
    ],
)
def test_who_does_not_even_hear_itself_takes_nobody_for_gone(answers: Any, alive: set[str] | None) -> None:
    """The broker may be away, or slow: then nothing of others is taken over."""
    made = app()
    made.control = Pinging(answers)  # type: ignore[assignment]
    assert questions(made).alive() == alive
