"""Adoption: from the message in a pod Celery's own Request is made again, as if it had just been delivered."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import kombu.exceptions
import pytest
from celery import Celery, bootsteps
from celery.worker import state as worker_state
from celery.worker.consumer.tasks import Tasks
from celery.worker.request import Request
from kombu.serialization import dumps

from dispatcher.protocol.message import Message
from dispatcher.worker import adoption
from tests import builders


class Consumer:
    """What a Request takes of Celery's consumer."""

    hostname = "dispatcher@here"
    event_dispatcher = None
    connection_errors = (ConnectionError,)


@pytest.fixture
def app() -> Iterator[Celery]:
    """An application whose queues are in memory."""
    made = Celery("adopts", broker="memory://", backend="cache+memory://", set_as_current=False)

    @made.task(name="double", shared=False, acks_late=True)
    def double(number: int) -> int:
        return number * 2

    made.finalize()
    yield made
    worker_state.reset_state()


def message(**fields: Any) -> Message:
    """As it was when its pod was made, and as it stands in the pod."""
    given = {"name": "double", "args": [21], **fields}
    return Message.decode(builders.message("adopted-1", queue="pods", **given).encode())


def request(app: Celery, **fields: Any) -> Request:
    """Celery's Request for it."""
    return adoption.request(app, Consumer(), message(**fields))


def test_the_request_is_what_Celery_would_have_made_of_the_message(app: Celery) -> None:
    """Its id, task, arguments, limits, and what follows it."""
    following = {"task": "double", "args": [], "kwargs": {}, "options": {}}
    headers = {"timelimit": [60, 30], "retries": 2, "root_id": "root", "parent_id": "parent"}
    made = request(app, headers=headers, embed={"chain": [following]}, kwargs={"a": 1})
    assert (made.id, made.task.name, list(made.args), made.kwargs) == ("adopted-1", "double", [21], {"a": 1})
    assert list(made.time_limits) == [60, 30]
    assert (made.root_id, made.parent_id, made.hostname) == ("root", "parent", "dispatcher@here")
    assert made._context.retries == 2
    assert made._context.chain == [following]


def test_an_expiry_and_a_name_for_people_survive(app: Celery) -> None:
    """As Celery reads them."""
    made = request(app, headers={"expires": "2026-01-01T00:00:00+00:00", "shadow": "my task"})
    assert (made.expires, made.name) == (datetime(2026, 1, 1, tzinfo=UTC), "my task")


def test_a_task_that_is_unknown_here_is_an_error(app: Celery) -> None:
    """Whoever adopts tries again later: the others go on."""
    with pytest.raises(KeyError, match=r"no\.such\.task"):
        request(app, name="no.such.task")


def test_its_message_is_acknowledged_already(app: Celery) -> None:
    """Whatever Celery does with it, no broker hears of it."""
    made = request(app)
    made.acknowledge()
    made.on_success((0, 42, 1.0))
    assert made.acknowledged


def queued(app: Celery) -> list[Any]:
    """The messages in its queue."""
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue("pods")
        found = []
        while queue.qsize():
            found.append(queue.get_nowait())
            found[-1].ack()
        return found


def test_a_message_that_is_put_back_is_sent_anew_under_its_id(app: Celery) -> None:
    """The broker has none that could be put back; it is the same launch."""
    made = request(app, headers={"retries": 3})
    made.reject(requeue=True)
    (again,) = queued(app)
    assert (again.headers["id"], again.headers["retries"], again.headers["task"]) == ("adopted-1", 3, "double")
    assert again.payload[0] == [21]


def test_one_that_is_rejected_for_good_is_not_sent_again(app: Celery) -> None:
    """As Celery says."""
    request(app).reject(requeue=False)
    assert queued(app) == []


class Held:
    """What is terminated."""

    def __init__(self) -> None:
        self.signals: list[Any] = []

    def terminate(self, signal: Any = None) -> None:
        self.signals.append(signal)


class Pool:
    """Celery asks it to end a process, too."""

    def terminate_job(self, pid: Any, signal: Any = None) -> None: ...


def test_Celery_counts_it_and_ends_it_when_it_is_revoked(app: Celery) -> None:
    """Also after others have let go of it: a weak reference would have lost it."""
    made, held = request(app), Held()
    adoption.reserve(made, held)
    assert made in worker_state.reserved_requests
    made.terminate(Pool(), signal="TERM")
    assert held.signals == [15]


# --- bodies of messages


@pytest.mark.parametrize("serializer", ["json", "yaml"])
def test_a_body_is_decoded_by_what_its_message_says(app: Celery, serializer: str) -> None:
    """And what the application accepts."""
    app.conf.accept_content = [serializer]
    body = [[1], {"a": 2}, {"chain": None}]
    content_type, encoding, data = dumps(body, serializer=serializer)
    assert [*adoption.decoded(app, data, content_type, encoding)] == body


def test_a_body_that_is_decoded_already_stays_as_it_is(app: Celery) -> None:
    """Celery passes it so where its strategy has looked into it."""
    body = ([1], {}, {})
    assert adoption.decoded(app, body, None, None) is body


@pytest.mark.parametrize("accepted", [["json"], ["json", "pickle"]])
def test_pickle_is_refused_before_anything_of_it_is_run(app: Celery, accepted: list[str]) -> None:
    """Whatever the application accepts."""
    app.conf.accept_content = accepted
    content_type, encoding, data = dumps([[1], {}, {}], serializer="pickle")
    with pytest.raises(kombu.exceptions.ContentDisallowed):
        adoption.decoded(app, data, content_type, encoding)


def test_what_the_application_does_not_accept_is_refused(app: Celery) -> None:
    """With kombu's own error."""
    with pytest.raises(kombu.exceptions.ContentDisallowed):
        adoption.decoded(app, b"x", "application/x-unheard-of", "utf-8")
    with pytest.raises(kombu.exceptions.DecodeError):
        adoption.decoded(app, b"{", "application/json", "utf-8")


# --- when the worker consumes


class KnowsConsumers:
    """A pool that is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def consumer_made(self, consumer: Any) -> None:
        self.told.append(("made", consumer))

    def consumer_ready(self, consumer: Any) -> None:
        self.told.append(("ready", consumer))


def test_the_pool_is_told_of_a_consumer_and_when_it_consumes(caplog: pytest.LogCaptureFixture) -> None:
    """At first, and after each reconnect; only once Celery's own step for tasks is done."""
    caplog.set_level(logging.WARNING)
    pool = KnowsConsumers()
    step = adoption.step_for(pool)
    assert issubclass(step, bootsteps.StartStopStep)
    assert step.requires == ("celery.worker.consumer.tasks:Tasks",)
    assert f"{Tasks.__module__}:{Tasks.__name__}" in step.requires
    consumer = type("Parent", (), {"steps": []})()
    made = step(consumer)
    made.start(consumer)
    made.start(consumer)
    assert pool.told == [("made", consumer), ("ready", consumer), ("ready", consumer)]
