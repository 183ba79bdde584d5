"""Housekeeping: Celery's own tasks run beside the hub, and Celery is told of their end on its own thread."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.app.trace import build_tracer, trace_task

from dispatcher.attempts.celery_side import Housekept
from dispatcher.worker import housekeeping
from dispatcher.worker.bridge import Bridge
from dispatcher.worker.housekeeping import Housekeeping
from dispatcher.worker.requests import Callbacks


class Heard:
    """What Celery's Request is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    def callbacks(self) -> Callbacks:
        """As a pool gets them."""
        return Callbacks(
            accept=lambda *args: self._note("accepted", *args[:1]),
            done=lambda answer: self._note("done", answer),
            error=lambda *args: self._note("error", *args),
            timeout=lambda *args: self._note("timeout", *args),
        )

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())


class World:
    """Housekeeping, and what comes over the bridge."""

    def __init__(self) -> None:
        self.bridge = Bridge(name="unused")
        self.work = Housekeeping(self.bridge)
        self.heard = Heard()

    def run(self, target: Any, *args: Any) -> None:
        """Begins one."""
        self.work.run(target, args, self.heard.callbacks())

    def ends(self, count: int = 1) -> list[Housekept]:
        """The next events that say that one has ended."""
        found: list[Any] = []
        while len(found) < count:
            found += self.bridge.events()
            threading.Event().wait(0.001)
        return found


@pytest.fixture
def world() -> Iterator[World]:
    """One, whose threads end."""
    made = World()
    yield made
    made.work.stop()


def test_it_runs_in_a_helper_thread_and_is_accepted_at_once(world: World) -> None:
    """The message is acknowledged, as with a process of Celery's own pool."""
    threads: list[int] = []
    go = threading.Event()

    def target(number: int) -> Any:
        threads.append(threading.get_ident())
        go.wait(5)
        return (0, number * 2, 0.1)

    world.run(target, 21)
    assert world.heard.calls == [("accepted", os.getpid())]
    go.set()
    (event,) = world.ends()
    assert threads != [threading.get_ident()]
    assert event.answer == (0, 42, 0.1)


def test_its_end_is_told_on_Celerys_thread_once(world: World) -> None:
    """A second event of the same end is nothing."""
    world.run(lambda: (0, "done", 0.0))
    (event,) = world.ends()
    assert len(world.heard.calls) == 1
    world.work.done(event)
    world.work.done(event)
    assert world.heard.calls[1:] == [("done", (0, "done", 0.0))]
    assert world.heard.threads == {threading.get_ident()}


@pytest.mark.parametrize("error", [ConnectionError("the broker is away"), SystemExit(3), KeyError("x")])
def test_whatever_it_raises_is_a_failure_of_its_own(world: World, error: BaseException) -> None:
    """Celery's request hears of it, and the thread goes on."""

    def target() -> Any:
        raise error

    world.run(target)
    (event,) = world.ends()
    failed, info, _ = event.answer
    assert (failed, info.exception.exc) == (1, error)
    world.run(lambda: (0, 1, 0.0))
    assert world.ends()[0].answer == (0, 1, 0.0)


def test_a_few_run_at_once_and_the_others_wait(world: World) -> None:
    """They look for parts of chords again and again: the hub must not wait for them."""
    go, begun = threading.Event(), []

    def target(number: int) -> Any:
        begun.append(number)
        go.wait(5)
        return (0, number, 0.0)

    for number in range(housekeeping.AT_ONCE + 2):
        world.run(target, number)
    while len(begun) < housekeeping.AT_ONCE:
        threading.Event().wait(0.001)
    assert sorted(begun) == list(range(housekeeping.AT_ONCE))
    go.set()
    assert len(world.ends(housekeeping.AT_ONCE + 2)) == housekeeping.AT_ONCE + 2


def test_after_the_stop_none_begins(world: World) -> None:
    """What waits is delivered again: it was one of Celery's, which may run twice."""
    go, begun = threading.Event(), []

    def target() -> Any:
        begun.append(1)
        go.wait(5)
        return (0, None, 0.0)

    for _ in range(housekeeping.AT_ONCE + 3):
        world.run(target)
    while len(begun) < housekeeping.AT_ONCE:
        threading.Event().wait(0.001)
    world.work.stop()
    go.set()
    assert len(world.ends(housekeeping.AT_ONCE)) == housekeeping.AT_ONCE
    assert len(begun) == housekeeping.AT_ONCE


def test_the_tasks_are_Celerys_own() -> None:
    """By the names under which every application has them."""
    app = Celery("own", broker="memory://", set_as_current=False)
    app.finalize()
    assert set(app.tasks) >= housekeeping.TASKS


def test_Celerys_tracer_is_what_runs(world: World) -> None:
    """With the arguments that Celery's pools get, it answers as they do."""
    app = Celery("traced", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(name="add", shared=False)
    def add(one: int, two: int) -> int:
        return one + two

    app.finalize()
    tracer = build_tracer("add", app.tasks["add"], app=app)
    add.__trace__ = tracer
    world.run(lambda: trace_task(app.tasks["add"], "id-1", [1, 2], {}, {}, app=app))
    (event,) = world.ends()
    assert event.answer.info is None
    assert app.AsyncResult("id-1").get(timeout=1) == 3
