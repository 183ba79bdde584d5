"""Replaying an outcome leaves what Celery's own worker would have left: state, result, traceback, signals, links."""

import itertools
import threading
import time
from dataclasses import replace
from typing import ClassVar

import kombu.exceptions
import pytest
from celery import Celery, chord, signals
from celery.backends.cache import CacheBackend
from kombu.transport import memory

from dispatcher import errors
from dispatcher.attempts import endings
from dispatcher.protocol import outcome
from dispatcher.protocol.message import Message
from dispatcher.worker.celery_patches import call_timeouts
from dispatcher.worker.replay import Replay
from tests import builders

RAN: list[str] = []
_ids = itertools.count()


class FlakyChannel(memory.Channel):
    """kombu's broker in memory, which can be away: at once, or after some more messages."""

    takes: ClassVar[int | None] = None
    """How many messages it still takes; None: all."""

    def _put(self, queue, message, **options):
        if FlakyChannel.takes == 0:
            raise ConnectionError("the broker is away")
        if FlakyChannel.takes is not None:
            FlakyChannel.takes -= 1
        return super()._put(queue, message, **options)


class FlakyTransport(memory.Transport):
    """Of such channels."""

    Channel = FlakyChannel
    connection_errors = (ConnectionError,)
    recoverable_connection_errors = (ConnectionError,)


class FlakyBackend(CacheBackend):
    """Celery's backend in memory, which can be away."""

    is_away = False
    heard: ClassVar[list[str]] = []
    connection_errors = (ConnectionError,)

    def _set_with_state(self, key, value, state):
        self.heard.append(state)
        return super()._set_with_state(key, value, state)

    def set(self, key, value):
        if self.is_away:
            raise ConnectionError("the backend is away")
        return super().set(key, value)


@pytest.fixture
def app() -> Celery:
    """An app with a result backend in memory, and tasks whose bodies must never run here."""
    RAN.clear()
    FlakyBackend.is_away = False
    FlakyChannel.takes = None
    app = Celery(
        "replayed",
        broker="memory://",
        backend="tests.unit.worker.test_replay:FlakyBackend+memory://",
        set_as_current=False,
    )

    class Hooked(app.Task):
        abstract = True

        def __call__(self, *args, **kwargs):
            RAN.append("body")

        def before_start(self, *args):
            RAN.append("before_start")

        def on_success(self, retval, task_id, args, kwargs):
            RAN.append(f"on_success {retval}")

        def on_failure(self, exc, task_id, args, kwargs, einfo):
            RAN.append(f"on_failure {exc!r}")

    @app.task(name="double", shared=False)
    def double(number):
        RAN.append("body")

    @app.task(name="hooked", base=Hooked, shared=False)
    def hooked():
        RAN.append("body")

    @app.task(name="total", shared=False)
    def total(numbers):
        RAN.append("body")

    app.finalize()
    app.conf.broker_transport = "tests.unit.worker.test_replay:FlakyTransport"
    call_timeouts.shorten(app)
    with app.connection_for_write() as connection:
        for name in ("celery", "next"):
            connection.SimpleQueue(name).clear()
    return app


def sent(app: Celery, queue: str = "celery") -> list[Message]:
    """The messages that stand in a queue, by what they hold, in order; it is empty afterwards."""
    found = []
    with app.connection_for_write() as connection:
        messages = connection.SimpleQueue(queue)
        while messages.qsize():
            one = messages.get_nowait()
            args, kwargs, embed = one.decode()
            headers = one.headers
            found.append(
                Message(name=headers["task"], id=headers["id"], args=args, kwargs=kwargs, embed=embed, headers=headers)
            )
            one.ack()
    return found


def ended(state: str, value: object = None, **fields: object) -> outcome.Outcome:
    """An outcome."""
    return outcome.Outcome(id="-", retries=0, state=state, value=value, runtime_s=12.5, **fields)


def message(name: str = "double") -> Message:
    """The message of a task of its own."""
    return builders.message(f"replayed-{next(_ids)}", name=name, args=[2])


def test_a_success_is_stored_with_the_pods_value_and_told_with_the_pods_runtime(app: Celery) -> None:
    """The replay takes a millisecond; what counts is the pod's time."""
    sent = message()
    replayed = Replay(app, hostname="dispatcher@here").replay(sent, ended("SUCCESS", {"four": 4}))

    result = app.AsyncResult(sent.id)
    assert (result.state, result.result) == ("SUCCESS", {"four": 4})
    assert (replayed.failed, replayed.runtime_s) == (False, 12.5)
    assert RAN == []


def test_a_failure_is_stored_with_its_own_class_and_the_pods_traceback(app: Celery) -> None:
    """Neither class nor traceback are the replay's."""
    sent = message()
    failure = outcome.Failure(type="KeyError", module="builtins", args=["ä"], traceback="Traceback: in the pod\n")

    replayed = Replay(app, hostname="d").replay(sent, ended("FAILURE", failure=failure))

    result = app.AsyncResult(sent.id)
    assert (result.state, type(result.result), result.result.args) == ("FAILURE", KeyError, ("ä",))
    assert result.traceback == replayed.value.traceback == "Traceback: in the pod\n"


def test_an_exception_class_that_is_not_known_here_keeps_its_name(app: Celery) -> None:
    """The pod's image may have packages that the dispatcher has not."""
    sent = message()
    failure = outcome.Failure(type="Overflow", module="nobody.has.this", args=["too much"], traceback="")

    Replay(app, hostname="d").replay(sent, ended("FAILURE", failure=failure))

    error = app.AsyncResult(sent.id).result
    assert (type(error).__name__, str(error)) == ("Overflow", "too much")


def test_a_lost_pod_is_a_failure_with_its_details(app: Celery) -> None:
    """AsyncResult.get() raises PodFailed, which says what it knows."""
    sent = message()
    lost = errors.PodFailed("the pod x failed: OOMKilled", {"reason": "OOMKilled", "exit_code": 137})

    Replay(app, hostname="d").replay(sent, lost)

    error = app.AsyncResult(sent.id).result
    assert isinstance(error, errors.PodFailed)
    assert (str(error), error.details) == ("the pod x failed: OOMKilled", {"reason": "OOMKilled", "exit_code": 137})


def test_hooks_of_the_tasks_class_run_and_its_body_does_not(app: Celery) -> None:
    """on_success and on_failure are told here; __call__ and before_start were the pod's."""
    replay = Replay(app, hostname="d")

    replay.replay(message("hooked"), ended("SUCCESS", 1))
    replay.replay(message("hooked"), errors.PodFailed("gone"))

    assert RAN == ["on_success 1", "on_failure PodFailed('gone', {})"]


def test_an_ignored_task_stores_nothing(app: Celery) -> None:
    """`raise Ignore` in the pod means the same here."""
    sent = message()
    replayed = Replay(app, hostname="d").replay(sent, ended("IGNORED"))

    assert replayed.failed
    assert app.AsyncResult(sent.id).state == "PENDING"


def test_signals_of_the_worker_are_sent(app: Celery) -> None:
    """task_success has the pod's value."""
    heard: list[object] = []

    def hear(sender: object, result: object, **_: object) -> None:
        heard.append(result)

    signals.task_success.connect(hear)
    try:
        Replay(app, hostname="d").replay(message(), ended("SUCCESS", "said in the pod"))
    finally:
        signals.task_success.disconnect(hear)

    assert heard == ["said in the pod"]


def test_an_outcome_that_cannot_be_stored_is_given_back(app: Celery) -> None:
    """The caller keeps it and tries again; the second time it is stored, and nothing was announced twice."""
    replay = Replay(app, hostname="d")
    hooked = message("hooked")
    FlakyBackend.is_away = True
    with pytest.raises(ConnectionError, match="away"):
        replay.replay(hooked, ended("SUCCESS", 7))
    FlakyBackend.is_away = False

    replay.replay(hooked, ended("SUCCESS", 7))

    assert app.AsyncResult(hooked.id).result == 7
    assert RAN.count("on_success 7") == 1


@pytest.mark.parametrize("state", ["SUCCESS", "RETRY"])
def test_what_cannot_be_sent_on_is_no_failure_of_the_task(app: Celery, state: str) -> None:
    """The next of a chain, or a retry, while the broker is away: nothing is stored, and the caller tries again."""
    app.conf.broker_transport, app.conf.broker_url = None, "redis://127.0.0.1:1/0"
    call_timeouts.shorten(app)
    sent = message()
    following = app.signature("double", args=(2,), app=app, immutable=True)
    sent = replace(sent, embed={"chain": [following]})

    began = time.monotonic()
    with pytest.raises(kombu.exceptions.OperationalError):
        Replay(app, hostname="d").replay(sent, ended(state, 4, retry={"countdown": 0} if state == "RETRY" else None))

    assert time.monotonic() - began < 5, "the hub's thread waited for the broker"
    assert app.AsyncResult(sent.id).state == "PENDING"


@pytest.mark.parametrize("state", ["SUCCESS", "RETRY"])
def test_what_was_sent_on_before_the_outcome_could_be_stored_is_not_sent_again(app: Celery, state: str) -> None:
    """The next of a chain, or the retry, goes out once; the outcome is stored in the end, with its child."""
    replay, sent = Replay(app, hostname="d"), message()
    following = app.signature("double", args=(2,), app=app, immutable=True, queue="next")
    sent = replace(sent, embed={"chain": [following]}, delivery_info={"routing_key": "next", "exchange": ""})
    told = ended(state, 4, retry={"countdown": 0} if state == "RETRY" else None)
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue("next")
        queue.clear()
        FlakyBackend.is_away = True
        for _ in range(3):
            with pytest.raises(ConnectionError, match="away"):
                replay.replay(sent, told)
        FlakyBackend.is_away = False
        replay.replay(sent, told)
        assert queue.qsize() == 1
    result = app.AsyncResult(sent.id)
    assert result.state == state
    if state == "SUCCESS":
        assert len(result.children) == 1


def test_what_another_thread_sends_meanwhile_is_no_part_of_a_replay(app: Celery) -> None:
    """`celery.chord_unlock` runs in a helper thread: it hears of a broker that is away as in any worker."""
    sending = Replay(app, hostname="here").sending
    FlakyChannel.takes = 1
    raised: list[BaseException] = []

    def send() -> None:
        try:
            app.send_task("double", [1], retry=False)
        except BaseException as error:
            raised.append(error)

    with sending.replay(builders.message().key):
        app.send_task("double", [2], retry=False)
        other = threading.Thread(target=send)
        other.start()
        other.join()
        assert sending.is_replaying
        assert not sending.has_failed

    assert [type(error) for error in raised] == [kombu.exceptions.OperationalError]
    FlakyChannel.takes = None
    assert [message.args for message in sent(app)] == [[2]]


def test_the_replay_is_no_second_start(app: Celery) -> None:
    """STARTED was stored when the pod's container started; the replay stores the end alone."""
    app.tasks["double"].track_started = True
    sent = message()
    stored: list[str] = []
    FlakyBackend.heard = stored

    Replay(app, hostname="d").replay(sent, ended("SUCCESS", 1))

    assert stored == ["SUCCESS"]


class FormatsError(Exception):
    """Makes its text from what it is given."""

    def __init__(self, code: object) -> None:
        super().__init__(f"code {code}")


def test_an_exception_that_formats_its_text_is_stored_as_it_was_raised(app: Celery) -> None:
    """To make it again from its arguments formats them once more; a reader does that once, as with prefork."""
    raised = FormatsError(7)
    failure = outcome.Failure(type="FormatsError", module=__name__, args=raised.args)
    message = Message(name="double", id="formats", args=[1], headers={"id": "formats", "retries": 0})

    replayed = Replay(app, hostname="d@h").replay(
        message, outcome.Outcome(id="formats", retries=0, state="FAILURE", failure=failure)
    )

    assert replayed.failed
    assert app.backend._get_task_meta_for("formats")["result"].args == FormatsError("code 7").args


def test_a_failure_that_the_pod_found_explains_itself(app: Celery) -> None:
    """As those that the cluster tells do."""
    args = ["this task wanted to send", {"reason": "NoCredentials", "cause": "application"}]
    failure = outcome.Failure(type="PodFailed", module="dispatcher.errors", args=args)
    message = Message(name="double", id="explains", args=[1], headers={"id": "explains", "retries": 0})

    Replay(app, hostname="d@h").replay(
        message, outcome.Outcome(id="explains", retries=0, state="FAILURE", failure=failure)
    )

    stored = app.backend._get_task_meta_for("explains")["result"]
    assert isinstance(stored, errors.PodFailed)
    assert {**args[1], **dict.fromkeys(("explanation", "what_to_do"))}.keys() == stored.details.keys()


@pytest.mark.parametrize(
    ("keeps_logs", "where"), [(True, "`podyard tasks logs`"), (False, "`kubectl logs`, as long as")]
)
@pytest.mark.parametrize("is_of_pod", [True, False])
def test_a_failure_points_at_a_saved_log_only_where_logs_are_saved(
    app: Celery, keeps_logs: bool, where: str, is_of_pod: bool
) -> None:
    """Else its pod alone has one. Both for what the cluster tells and for what the pod itself found."""
    details = {"reason": "Error", "exit_code": 3, "cause": "application"}
    message = Message(name="double", id="points", args=[1], headers={"id": "points", "retries": 0})
    failure = outcome.Failure(
        type="PodFailed", module="dispatcher.errors", args=["the body called sys.exit(3)", details]
    )
    ended = outcome.Outcome(id="points", retries=0, state="FAILURE", failure=failure)
    diagnosed = endings.diagnosed(errors.PodFailed("the pod failed", details))

    Replay(app, hostname="d", keeps_logs=keeps_logs).replay(message, diagnosed if is_of_pod else ended)

    stored = app.backend._get_task_meta_for("points")["result"]
    assert stored.details["what_to_do"].startswith(f"its log says why: {where}")


@pytest.mark.parametrize("taken", [0, 1, 2])
@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE"])
def test_links_and_errbacks_go_out_once_though_the_broker_goes_away_among_them(
    app: Celery, state: str, taken: int
) -> None:
    """However many were sent before: the replay comes again until all are sent, each once, and hooks run once."""
    replay = Replay(app, hostname="d")
    links = [app.signature("double", args=(number,), app=app, immutable=True) for number in (1, 2, 3)]
    key = "callbacks" if state == "SUCCESS" else "errbacks"
    linked = replace(message("hooked"), embed={key: links})
    failure = outcome.Failure(type="ValueError", module="builtins", args=("no",), traceback="")
    told = ended(state, 4, failure=failure if state == "FAILURE" else None)
    for takes in (taken, 0):
        FlakyChannel.takes = takes
        with pytest.raises(kombu.exceptions.OperationalError):
            replay.replay(linked, told)
    assert RAN == []

    FlakyChannel.takes = None
    replay.replay(linked, told)

    assert sorted(one.args[0] for one in sent(app)) == [1, 2, 3]
    assert len(RAN) == 1
    assert app.AsyncResult(linked.id).state == state


def test_the_callback_of_a_chord_waits_for_the_broker(app: Celery) -> None:
    """A backend that counts parts by itself: no part is counted twice, the callback is sent once and has not failed."""
    replay = Replay(app, hostname="d")
    callback = app.signature("total", app=app)
    result = chord([app.signature("double", args=(number,), app=app) for number in (1, 2)], app=app)(callback)
    parts = sent(app)
    replay.replay(parts[0], ended("SUCCESS", 2))
    FlakyChannel.takes = 0
    for _ in range(2):
        with pytest.raises(kombu.exceptions.OperationalError):
            replay.replay(parts[1], ended("SUCCESS", 4))
    FlakyChannel.takes = None

    replay.replay(parts[1], ended("SUCCESS", 4))

    assert [(one.id, one.args) for one in sent(app)] == [(result.id, [[2, 4]])]
    assert result.state == "PENDING"
