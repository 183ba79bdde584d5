"""Messages of which Celery makes no request: each still ends as a failure, and harms nobody else."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.backends.cache import CacheBackend
from kombu import Connection, Queue
from kombu.exceptions import ContentDisallowed

from dispatcher import errors
from dispatcher.worker import undecodable

_ids = itertools.count()


class Away(CacheBackend):
    """A result backend that is away."""

    def set(self, key: Any, value: Any) -> Any:
        raise ConnectionError("away")


class Consumer:
    """Of Celery's consumer what handles messages; its reactions are Celery's: log, and acknowledge or reject."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.reactions: list[str] = []
        self.taken: list[Any] = []
        self.fault: Exception | None = None

    def on_decode_error(self, message: Any, error: Exception) -> None:
        self.reactions.append("decode")
        message.ack()

    def on_invalid_task(self, body: Any, message: Any, error: Exception) -> None:
        self.reactions.append("invalid")
        message.reject()

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self.reactions.append("unknown")
        message.reject()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        def handle(message: Any) -> None:
            if self.fault is not None:
                raise self.fault
            self.taken.append(message)

        return handle


class World:
    """A consumer that listens, and a broker in memory."""

    def __init__(self, backend: str = "cache+memory://") -> None:
        self.app = Celery("undecodable", broker="memory://", backend=backend, set_as_current=False)
        self.consumer = Consumer(self.app)
        undecodable.listen(self.consumer)
        self.task_id = f"undecodable-{next(_ids)}"
        self.connection: Connection = self.app.connection_for_write()

    def message(self, **options: Any) -> Any:
        """One that the broker has delivered."""
        queue = self.connection.SimpleQueue("undecodable")
        given = {"headers": {"id": self.task_id}, "serializer": "json", **options}
        body = given.pop("body", [[], {}, {}])
        queue.put(body, **given)
        return Queue("undecodable").bind(self.connection.default_channel).get(accept=["json", "pickle"])

    def failure(self) -> Any:
        """What the sender reads."""
        result = self.app.AsyncResult(self.task_id)
        return result.result if result.state == "FAILURE" else None


@pytest.fixture
def world() -> Iterator[World]:
    """One of its own."""
    made = World()
    yield made
    made.connection.release()


def test_each_kind_of_unreadable_message_ends_as_a_failure_that_says_why(world: World) -> None:
    """After Celery's own reaction."""
    for name, words in (
        ("on_decode_error", "content cannot be read"),
        ("on_invalid_task", "no valid task"),
        ("on_unknown_message", "no version of Celery's protocol"),
    ):
        world.task_id = f"undecodable-{next(_ids)}"
        message = world.message()
        args = {"on_decode_error": (message, ValueError("x")), "on_invalid_task": (None, message, ValueError("x"))}
        getattr(world.consumer, name)(*args.get(name, (None, message)))
        failure = world.failure()
        assert isinstance(failure, errors.PodFailed)
        assert words in str(failure)
        assert failure.details["reason"] == "UnreadableMessage"
        assert failure.details["what_to_do"]
        assert message.acknowledged
    assert world.consumer.reactions == ["decode", "invalid", "unknown"]


@pytest.mark.parametrize(
    "error", [ValueError("x"), TypeError("x"), AttributeError("x"), KeyError("x"), IndexError("x")]
)
def test_a_body_of_an_odd_shape_harms_no_other_message(world: World, error: Exception) -> None:
    """Celery's handler would take the whole consumer down with it."""
    handle = world.consumer.create_task_handler()
    world.consumer.fault = error
    handle(world.message())
    assert world.failure() is not None
    world.consumer.fault = None
    handle(world.message())
    assert len(world.consumer.taken) == 1


@pytest.mark.parametrize("error", [ConnectionError("the broker is away"), MemoryError(), KeyboardInterrupt()])
def test_what_is_not_the_messages_fault_is_Celerys(world: World, error: BaseException) -> None:
    """A connection that is lost is Celery's to mend."""
    handle = world.consumer.create_task_handler()
    world.consumer.fault = error  # type: ignore[assignment]
    with pytest.raises(type(error)):
        handle(world.message())
    assert world.failure() is None


def test_a_pickled_message_is_refused_before_anything_of_it_is_decoded(world: World) -> None:
    """Whatever the application accepts: to decode it is to run what its sender wants."""
    world.app.conf.accept_content = ["json", "pickle"]
    world.consumer.create_task_handler()(world.message(serializer="pickle"))
    assert (world.consumer.taken, world.consumer.reactions) == ([], ["decode"])
    assert "never pickle" in str(world.failure())


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "pickle"])
def test_pickle_has_two_names(content_type: str) -> None:
    """kombu takes both."""
    with pytest.raises(ContentDisallowed):
        undecodable.check_content(content_type)


@pytest.mark.parametrize("content_type", ["application/json", None, "application/x-msgpack"])
def test_other_content_is_the_applications_to_accept(content_type: str | None) -> None:
    """None is content that was decoded already."""
    undecodable.check_content(content_type)


def test_a_message_that_names_no_task_is_dropped_as_Celery_drops_it(world: World) -> None:
    """Nobody waits for it by a name."""
    before = world.failure()
    for headers in ({}, {"id": ""}, {"id": 7}):
        world.consumer.on_unknown_message(None, world.message(headers=headers))
    assert (before, world.failure(), len(world.consumer.reactions)) == (None, None, 3)


def test_the_correlation_id_names_the_task_where_the_headers_do_not(world: World) -> None:
    """As every sender of Celery writes it."""
    world.consumer.on_unknown_message(None, world.message(headers={}, correlation_id=world.task_id))
    assert world.failure() is not None


def test_whoever_waits_for_a_message_is_told_by_a_message() -> None:
    """With `rpc://`, whose results go to the queue that the message names."""
    world = World("rpc://")
    answers = world.connection.SimpleQueue("undecodable-oid")
    world.consumer.on_unknown_message(None, world.message(reply_to="undecodable-oid", correlation_id=world.task_id))
    told = answers.get(timeout=1).payload
    assert (told["task_id"], told["status"]) == (world.task_id, "FAILURE")
    world.connection.release()


def test_a_result_backend_that_is_away_keeps_nobody_from_going_on(caplog: pytest.LogCaptureFixture) -> None:
    """Celery would have stored nothing either; it is logged."""
    world = World(f"{__name__}:Away+memory://")
    world.consumer.on_unknown_message(None, world.message())
    assert "stored attempt_id=" in caplog.text
    world.connection.release()
