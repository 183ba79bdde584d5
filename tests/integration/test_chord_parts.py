"""The callback of a chord on Redis, where broker or dispatcher go away at the moment in which it is sent."""

import time

import kombu.exceptions
import pytest
from celery import Celery, chord
from celery.backends.redis import RedisBackend

from dispatcher.protocol.message import Message
from dispatcher.worker.celery_patches import call_timeouts
from dispatcher.worker.replay import Replay
from tests import parts
from tests.unit.worker.test_replay import FlakyChannel, ended, sent

needs_claims = pytest.mark.skipif(
    not hasattr(RedisBackend, "_chord_cleanup_script"), reason="Celery notes who sends a callback since 5.7"
)


@pytest.fixture
def app(valkey: parts.ValkeyDatabase) -> Celery:
    """An application with a broker in memory, which can be away, and Celery's own result backend on a real server."""
    FlakyChannel.takes = None
    app = Celery("chords", broker="memory://", backend=valkey.url, set_as_current=False)
    app.conf.broker_transport = "tests.unit.worker.test_replay:FlakyTransport"

    @app.task(name="part", shared=False)
    def part(number):
        raise AssertionError("its body runs in a pod")

    @app.task(name="total", shared=False)
    def total(numbers):
        raise AssertionError("its body runs in a worker")

    app.finalize()
    call_timeouts.shorten(app)
    with app.connection_for_write() as connection:
        connection.SimpleQueue("celery").clear()
    return app


def started(app: Celery) -> tuple[str, list[Message]]:
    """The id of a chord's callback, and the messages of its two parts."""
    header = [app.signature("part", args=(number,), app=app) for number in (1, 2)]
    result = chord(header, app=app)(app.signature("total", app=app))
    return result.id, sent(app)


def test_the_callback_is_sent_once_the_broker_is_back(app: Celery) -> None:
    """It has not failed meanwhile, and the results of its parts are there."""
    replay = Replay(app, hostname="d")
    callback, (first, last) = started(app)
    replay.replay(first, ended("SUCCESS", 2))
    FlakyChannel.takes = 0
    for _ in range(2):
        with pytest.raises(kombu.exceptions.OperationalError):
            replay.replay(last, ended("SUCCESS", 4))
    FlakyChannel.takes = None

    replay.replay(last, ended("SUCCESS", 4))

    assert [(one.id, one.args) for one in sent(app)] == [(callback, [[2, 4]])]
    assert app.AsyncResult(callback).state == "PENDING"
    assert app.AsyncResult(last.id).result == 4


@needs_claims
def test_a_dispatcher_that_was_killed_while_the_broker_was_away_leaves_the_chord_to_its_successor(app: Celery) -> None:
    """What the first one knew in its memory is not needed; nor does it matter who used the backend before."""
    assert app.backend._chord_cleanup_script
    callback, (first, last) = started(app)
    before = Replay(app, hostname="before")
    before.replay(first, ended("SUCCESS", 2))
    FlakyChannel.takes = 0
    with pytest.raises(kombu.exceptions.OperationalError):
        before.replay(last, ended("SUCCESS", 4))
    FlakyChannel.takes = None

    Replay(app, hostname="after").replay(last, ended("SUCCESS", 4))

    assert [(one.id, one.args) for one in sent(app)] == [(callback, [[2, 4]])]


@needs_claims
def test_the_claim_of_a_process_that_was_killed_is_waited_for(app: Celery, valkey: parts.ValkeyDatabase) -> None:
    """The last part comes again until the claim has expired; then its callback is sent."""
    replay = Replay(app, hostname="d")
    callback, (first, last) = started(app)
    replay.replay(first, ended("SUCCESS", 2))
    with valkey.client() as client:
        client.set(app.backend.get_key_for_group(first.headers["group"], ".c"), "a process that is gone", px=400)
    with pytest.raises(RuntimeError, match="by somebody else"):
        replay.replay(last, ended("SUCCESS", 4))
    assert sent(app) == []
    time.sleep(0.5)

    replay.replay(last, ended("SUCCESS", 4))

    assert [(one.id, one.args) for one in sent(app)] == [(callback, [[2, 4]])]
