"""The bridge: values go both ways in their order, one wake-up carries all, and a stop ends in bounded time."""

import asyncio
import logging
import select
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from dispatcher.attempts.celery_side import Close, Dropped, SetLimit
from dispatcher.worker import bridge as module
from dispatcher.worker.bridge import Bridge


class Loop:
    """The cluster's side: notes commands, until it is cancelled."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.batches: list[list[Any]] = []
        self.is_up, self.has_news = threading.Event(), threading.Event()
        self.was_cancelled = False

    async def main(self) -> None:
        self.is_up.set()
        try:
            while True:
                self.batches.append(await self.bridge.commands())
                self.has_news.set()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    @property
    def commands(self) -> list[Any]:
        """All so far."""
        return [command for batch in self.batches for command in batch]


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    """One, which is stopped in the end."""
    made = Bridge(name="test-bridge")
    yield made
    made.stop()


@pytest.fixture
def loop(bridge: Bridge) -> Loop:
    """A side that listens."""
    made = Loop(bridge)
    bridge.start(made.main())
    assert made.is_up.wait(5)
    return made


def until(is_so: Any) -> None:
    """Waits for the other thread."""
    end_s = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < end_s
        threading.Event().wait(0.001)


def is_readable(bridge: Bridge) -> bool:
    """Whether Celery's hub would wake up."""
    return bool(select.select([bridge], [], [], 0)[0])


def event(number: int) -> Dropped:
    """Some event."""
    return Dropped(delivery=str(number), pod="")


# --- down


def test_commands_arrive_in_their_order(bridge: Bridge, loop: Loop) -> None:
    """None is lost, however they come."""
    sent = [SetLimit(limit=number) for number in range(500)]
    for command in sent:
        bridge.send(command)
    until(lambda: len(loop.commands) == 500)
    assert loop.commands == sent


def test_commands_that_were_sent_before_the_start_are_the_first_to_arrive(bridge: Bridge) -> None:
    """Celery may deliver before the thread runs."""
    bridge.send(SetLimit(limit=1))
    loop = Loop(bridge)
    bridge.start(loop.main())
    assert loop.has_news.wait(5)
    bridge.send(SetLimit(limit=2))
    until(lambda: len(loop.commands) == 2)
    assert loop.commands == [SetLimit(limit=1), SetLimit(limit=2)]


def test_one_wake_up_carries_all_commands_that_wait(bridge: Bridge) -> None:
    """While the other side is busy they gather."""
    go, batches = threading.Event(), []

    async def main() -> None:
        await asyncio.to_thread(go.wait, 5)
        batches.append(await bridge.commands())

    bridge.start(main())
    sent: list[Any] = [Close(delivery=str(number), is_success=True) for number in range(10)]
    for command in sent:
        bridge.send(command)
    go.set()
    until(lambda: batches)
    assert batches == [sent]


# --- up


def test_events_make_the_hub_readable_and_arrive_in_their_order(bridge: Bridge) -> None:
    """Once they are taken it is quiet again."""
    assert not is_readable(bridge)
    for number in range(3):
        bridge.post(event(number))
    assert is_readable(bridge)
    assert bridge.events() == [event(number) for number in range(3)]
    assert not is_readable(bridge)
    assert bridge.events() == []


def test_an_event_that_comes_while_others_are_taken_wakes_the_hub_again(bridge: Bridge) -> None:
    """None is left behind."""
    taken, count, is_over = [], 3000, threading.Event()

    def post() -> None:
        for number in range(count):
            bridge.post(event(number))
        is_over.set()

    thread = threading.Thread(target=post)
    thread.start()
    end_s = time.monotonic() + 10
    while len(taken) < count and time.monotonic() < end_s:
        if select.select([bridge], [], [], 1)[0]:
            taken += bridge.events()
    thread.join()
    assert taken == [event(number) for number in range(count)]


def test_a_hub_that_does_not_read_blocks_nobody(bridge: Bridge) -> None:
    """Events wait, whatever their number."""
    bridge._is_hub_woken = False
    for number in range(200_000 // 100):
        bridge.post(event(number))
        bridge._is_hub_woken = False  # as if each had to ring: the pipe fills up
    assert len(bridge.events()) == 2000


# --- questions


async def answer() -> int:
    return 42


async def trouble() -> int:
    raise LookupError("no")


def test_a_question_is_answered_by_the_other_side(bridge: Bridge, loop: Loop) -> None:
    """Its errors are those of whoever asks."""
    assert bridge.ask(answer(), timeout_s=5) == 42
    with pytest.raises(LookupError):
        bridge.ask(trouble(), timeout_s=5)
    assert bridge.start_asking(answer()).result(5) == 42


def test_a_question_that_takes_too_long_is_given_up_on_both_sides(bridge: Bridge, loop: Loop) -> None:
    """Nothing goes on behind it."""
    ended = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        bridge.ask(slow(), timeout_s=0.01)
    assert ended.wait(5)


# --- the stop


def test_a_stop_cancels_the_main_work_and_then_everything_else(bridge: Bridge, loop: Loop) -> None:
    """In this order: the end of the main work may still need the others."""
    order: list[str] = []

    async def beside() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("beside, after main" if loop.was_cancelled else "beside, before main")

    waiting = bridge.start_asking(beside())
    bridge.ask(answer(), timeout_s=5)
    bridge.stop()
    assert (loop.was_cancelled, order) == (True, ["beside, after main"])
    assert not bridge._thread.is_alive()
    with pytest.raises(CancelledError):
        waiting.result(1)


def test_after_the_stop_commands_go_nowhere_and_a_second_stop_is_nothing(bridge: Bridge, loop: Loop) -> None:
    """Celery's last calls come late."""
    bridge.stop()
    bridge.send(SetLimit(limit=1))
    bridge.post(event(1))
    bridge.stop()
    assert loop.commands == []


def test_a_bridge_that_was_never_started_stops_at_once(bridge: Bridge) -> None:
    """The worker may fail before."""
    bridge.stop()


def test_a_stop_does_not_wait_for_ever(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What does not end ends with the process."""
    monkeypatch.setattr(module, "STOP_BOUND_S", 0.02)
    is_up, go = threading.Event(), threading.Event()

    async def stuck() -> None:
        is_up.set()
        try:
            await asyncio.Event().wait()
        finally:
            go.wait(5)  # it blocks its own loop

    bridge.start(stuck())
    assert is_up.wait(5)
    with caplog.at_level(logging.WARNING):
        bridge.stop()
    assert "did not end" in caplog.text
    go.set()
    bridge._thread.join(5)
    assert not bridge._thread.is_alive()


def test_a_main_work_that_ends_by_itself_ends_the_thread(bridge: Bridge) -> None:
    """A stop after that is nothing."""

    async def short() -> None:
        return

    bridge.start(short())
    bridge._thread.join(5)
    assert not bridge._thread.is_alive()
    bridge.stop()
    bridge.send(SetLimit(limit=1))
