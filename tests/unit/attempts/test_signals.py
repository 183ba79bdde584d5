"""How loops are woken: nothing that was said is lost, and nothing is said twice."""

import asyncio

from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.signals import Signal, WorkQueue
from tests import builders


def test_a_signal_that_was_set_before_wakes_the_next_who_waits() -> None:
    """Once."""

    async def test() -> list[bool]:
        signal = Signal()
        signal.set()
        signal.set()
        return [await signal.wait(None), await signal.wait(0.001)]

    assert asyncio.run(test()) == [True, False]


def test_a_signal_wakes_who_waits() -> None:
    """Without a bound, too."""

    async def test() -> bool:
        signal = Signal()
        waiting = asyncio.create_task(signal.wait(None))
        await asyncio.sleep(0)
        signal.set()
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(test())


def test_what_changes_while_others_are_looked_at_comes_next() -> None:
    """Each once, in the order of the first change."""

    async def test() -> None:
        attempts, queue = Attempts(), WorkQueue()
        one, two = builders.queued(attempts), builders.queued(attempts)
        taking = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        for attempt in (two, one, two):
            queue.add(attempt)
        assert await asyncio.wait_for(taking, 5) == [two, one]
        assert len(queue) == 0
        queue.add(one)
        assert await asyncio.wait_for(queue.take(), 5) == [one]
        assert queue.take_now() == []

    asyncio.run(test())
