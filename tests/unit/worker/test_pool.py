"""The pool: what Celery asks of it becomes a value for the other side, at once, and a stop ends in bounded time."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.worker import state as worker_state
from kombu import Queue
from kombu.exceptions import ContentDisallowed
from kombu.serialization import dumps

from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.celery_side import Broken, Ended, Housekept
from dispatcher.options import Options, QueueProfile
from dispatcher.pool import KubernetesPool
from dispatcher.protocol import outcome
from dispatcher.worker import bridge as bridge_module
from dispatcher.worker.requests import Callbacks
from tests import builders


class Hub:
    """Celery's event loop, as far as a pool hooks into it; nothing is called by itself."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.repeated: list[Any] = []

    def add_reader(self, fileno: int, call: Callable[[], None]) -> None:
        self.readers[fileno] = call

    def call_repeatedly(self, every_s: float, call: Callable[[], None]) -> Any:
        timer = type("Timer", (), {"call": staticmethod(call), "is_cancelled": False})()
        timer.cancel = lambda: setattr(timer, "is_cancelled", True)
        self.repeated.append(timer)
        return timer

    def call_later(self, after_s: float, call: Callable[..., Any], *args: Any) -> Any:
        return self.call_repeatedly(after_s, call)

    @property
    def live(self) -> list[Any]:
        """The timers that count."""
        return [timer for timer in self.repeated if not timer.is_cancelled]


class Request:
    """Celery's Request, as far as the pool looks at it."""

    ignore_result = False
    expires = None
    eventer = None

    def __init__(self, app: Celery, name: str = "double") -> None:
        self.task = app.tasks[name]
        self.heard: list[tuple[str, Any]] = []

    def on_accepted(self, pid: Any, at: float) -> None:
        self.heard.append(("accepted", pid))

    def on_success(self, answer: Any) -> None:
        self.heard.append(("done", answer[:2]))

    def on_failure(self, info: Any) -> None:
        self.heard.append(("failed", info))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        self.heard.append(("time-out", timeout))

    def revoked(self) -> bool:
        self.heard.append(("revoked", True))
        return True


class World:
    """A pool whose API server is not there, so that the other side does nothing but wait."""

    def __init__(self, folder: Path) -> None:
        self.app = Celery("pooled", broker="memory://", backend="cache+memory://", set_as_current=False)
        options = Options(
            profile_for=lambda queue: QueueProfile(),
            app_path="a:app",
            image="i",
            kubeconfig=folder / "no-such-kubeconfig",
        )
        self.app.conf.podyard = options

        @self.app.task(name="double", shared=False)
        def double(number: int) -> None:
            raise AssertionError("a body runs in a pod")

        self.app.finalize()
        self.pool = KubernetesPool(5, app=self.app, initargs=(self.app, "dispatcher@here"), timeout=600)
        self.hub = Hub()

    def start(self) -> None:
        """As a worker does it."""
        self.pool.on_start()
        self.pool.register_with_event_loop(self.hub)

    def apply(self, request: Request, *, name: str = "double", body: Any = None, **options: Any) -> Any:
        """As Celery's Request calls its pool."""
        sent = builders.message(name=name, queue="pods")
        content_type, encoding, data = dumps([[21], {}, {}] if body is None else body, serializer="json")
        info = {**sent.headers, "delivery_info": dict(sent.delivery_info)}
        return self.pool.apply_async(
            lambda *args: (0, "by the tracer", 0.0),
            args=(name, sent.id, info, data, options.pop("content_type", content_type), encoding),
            accept_callback=request.on_accepted,
            callback=request.on_success,
            error_callback=request.on_failure,
            timeout_callback=request.on_timeout,
            **options,
        )

    @property
    def attempts(self) -> list[Attempt]:
        """Those that the other side has in flight."""
        return list(self.pool._controller._attempts)

    def until(self, is_so: Callable[[], Any]) -> None:
        """The hub turns until the other side has done so much."""
        reader, end_s = self.hub.readers[self.pool._bridge.fileno()], time.monotonic() + 10
        while not is_so():
            assert time.monotonic() < end_s
            reader()
            threading.Event().wait(0.001)

    def post(self, event: Any) -> None:
        """The other side says so, and the hub wakes up."""
        self.pool._bridge.post(event)
        self.hub.readers[self.pool._bridge.fileno()]()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One that is started."""
    made = World(tmp_path)
    made.start()
    yield made
    made.pool.on_stop()
    worker_state.reset_state()


def test_a_request_becomes_an_attempt_for_the_other_side(world: World) -> None:
    """Celery holds the other half; nothing is accepted yet."""
    request = Request(world.app)
    held = world.apply(request, timeout=60)
    world.until(lambda: world.attempts)
    (attempt,) = world.attempts
    assert (attempt.delivery, attempt.queue, attempt.timeout_s) == (held.delivery, "pods", 60)
    assert (list(attempt.message.args), request.heard) == ([21], [])
    assert attempt.blocked is not None
    assert attempt.blocked.reason == "ApiServerUnavailable"


def test_the_limits_of_the_command_line_hold_for_tasks_that_say_nothing(world: World) -> None:
    """As with Celery's own pools."""
    world.apply(Request(world.app))
    world.until(lambda: world.attempts)
    assert world.attempts[0].timeout_s == 600


def test_Celerys_own_tasks_run_here(world: World) -> None:
    """They need the result backend, and no author's code."""
    request = Request(world.app, "celery.chord_unlock")
    assert world.apply(request, name="celery.chord_unlock") is None
    world.until(lambda: len(request.heard) == 2)
    assert [kind for kind, _ in request.heard] == ["accepted", "done"]
    assert world.attempts == []


def test_pickle_is_refused_and_nothing_is_held_of_it(world: World) -> None:
    """Celery's Request hears of it as an error of the pool."""
    with pytest.raises(ContentDisallowed):
        world.apply(Request(world.app), content_type="application/x-python-serialize")
    assert len(world.pool._deliveries._held) == 0


def test_an_outcome_of_the_other_side_reaches_Celerys_request(world: World) -> None:
    """By the hub's thread."""
    request = Request(world.app)
    held = world.apply(request)
    task_id = held.message.id
    result = outcome.Outcome(id=task_id, retries=0, state="SUCCESS", value=42)
    ended = Ended(
        delivery=held.delivery, pod="p", result=result, started_at=None, ended_at=None, owned_mono_s=time.monotonic()
    )
    world.post(ended)
    assert request.heard == [("accepted", "p"), ("done", (0, "42"))]
    assert world.app.AsyncResult(task_id).get(timeout=1) == 42


def test_a_task_is_ended_by_the_name_that_Celery_has_for_its_pod(world: World) -> None:
    """`revoke(terminate=True)` names the process of a task: here one that has no pod after all."""
    request, other = Request(world.app), Request(world.app)
    held, _ = world.apply(request), world.apply(other)
    held.pod = "pod-1"
    world.pool.terminate_job("pod-1", 15)
    world.until(lambda: request.heard)
    assert (request.heard, other.heard) == ([("revoked", True)], [])
    assert len(world.attempts) == 1


def test_the_limit_of_pods_follows_Celerys_words(world: World) -> None:
    """`pool_grow`, `pool_shrink` and autoscale; never below one."""
    for change, limit in ((lambda: world.pool.grow(3), 8), (lambda: world.pool.shrink(2), 6)):
        change()
        world.until(lambda limit=limit: world.pool._controller._limit == limit)  # type: ignore[misc]
    world.pool.shrink(100)
    world.until(lambda: world.pool._controller._limit == 1)
    assert world.pool.limit == 1


def test_stats_answer_at_once_and_say_what_is_in_the_way(world: World) -> None:
    """`inspect stats` is asked on the hub's thread."""
    world.apply(Request(world.app))
    world.until(lambda: world.attempts and world.pool.info["trouble"])
    info = world.pool.info
    assert (info["deployment"], info["waiting"], info["pods-in-flight"], info["max-concurrency"]) == (
        "default",
        1,
        0,
        5,
    )
    assert "no-such-kubeconfig" in info["trouble"]


def test_a_reconnect_hooks_in_again_and_leaves_no_timer_twice(world: World) -> None:
    """Celery calls it each time."""
    before = len(world.hub.live)
    for _ in range(3):
        world.pool.register_with_event_loop(world.hub)
    assert len(world.hub.live) == before
    assert list(world.hub.readers) == [world.pool._bridge.fileno()]
    for timer in world.hub.live:
        timer.call()


def test_a_reconnect_that_drops_all_timers_loses_none(world: World) -> None:
    """As Celery's before 5.7: the health of the process would stand still."""
    before = len(world.hub.live)
    world.hub.repeated.clear()
    world.pool.register_with_event_loop(world.hub)
    assert len(world.hub.live) == before


def test_a_side_that_has_given_up_ends_the_process(world: World) -> None:
    """Whoever started it starts it anew."""
    world.post(Broken(why="KeyError: 'x'"))
    assert worker_state.should_stop == 1
    worker_state.should_stop = None


def test_an_end_of_housekeeping_that_nobody_waits_for_is_nothing(world: World) -> None:
    """It came twice."""
    world.post(Housekept(name="nobody", answer=(0, None, 0.0)))


def test_a_stop_lets_the_pods_run_and_takes_no_time(tmp_path: Path) -> None:
    """The next dispatcher takes them back; also where the API server was never there, and twice."""
    world = World(tmp_path)
    world.start()
    held = world.apply(Request(world.app))
    began_s = time.monotonic()
    world.pool.on_stop()
    world.pool.on_terminate()
    assert time.monotonic() - began_s < bridge_module.STOP_BOUND_S
    assert not world.pool._bridge._thread.is_alive()
    held.terminate()


def test_the_queues_that_are_consumed_are_known_by_their_names(world: World) -> None:
    """Also one that is added later, whatever its routing key."""
    with world.app.connection_for_read() as connection:
        task_consumer = connection.Consumer([Queue("shop-pods", routing_key="shop")])
        world.pool.consumer_ready(type("Consumer", (), {"task_consumer": task_consumer})())
        task_consumer.add_queue(Queue("late", routing_key="l.#"))
        images = world.pool.info["images"]
    assert images == {"shop-pods": "i", "late": "i"}


def test_callbacks_are_the_requests_methods(world: World) -> None:
    """By them the request itself is found."""
    request = Request(world.app)
    held = world.apply(request)
    assert isinstance(held.callbacks, Callbacks)
    assert held.request is request
