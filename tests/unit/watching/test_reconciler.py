"""The reconciler: what is decided is done, and Celery's side is told everything once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from dispatcher.attempts import endings
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.celery_side import Dropped, Ended, Launched, Started, Withdrawn
from dispatcher.attempts.states import State
from dispatcher.protocol import outcome
from tests import builders
from tests.cluster_side import ClusterSide


def using(test: Callable[[ClusterSide], Awaitable[Any]]) -> Any:
    """Runs a test on the parts of a dispatcher at a fake API server."""

    async def run() -> Any:
        side = ClusterSide()
        try:
            return await asyncio.wait_for(test(side), 10)
        finally:
            await side.close()

    return asyncio.run(run())


def look_often(side: ClusterSide, one: Attempt) -> None:
    """As the loop and its clock do."""
    for _ in range(3):
        side.reconciler.look(one)
        side.reconciler.look_at_all()


def test_launch_start_and_end_are_reported_once() -> None:
    """In this order, however often it is looked at, though all was seen in one event."""

    async def test(side: ClusterSide) -> None:
        one = await side.launched()
        look_often(side, one)
        assert side.posted == [Launched(delivery=one.delivery, pod=one.pod.name)]
        said = outcome.encode(builders.Outcome(id=one.id, retries=0, state="SUCCESS", value=7))
        side.saw(one, builders.ended(message=said.message.decode()))
        look_often(side, one)
        await side.settle()
        look_often(side, one)
        kinds = [type(event) for event in side.posted]
        assert kinds == [Launched, Started, Ended]
        ended = side.posted[-1]
        assert (ended.result.value, ended.ended_at) == (7, one.ended_at)
        assert one.state is State.ENDED

    using(test)


def test_a_start_is_reported_with_its_time() -> None:
    """From which the time limit counts."""

    async def test(side: ClusterSide) -> None:
        one = await side.launched()
        side.saw(one, builders.running())
        look_often(side, one)
        assert [type(event) for event in side.posted] == [Launched, Started]
        assert side.posted[1].started_at == one.started_at
        assert one.state is State.RUNNING

    using(test)


def test_farewells_are_said_once() -> None:
    """Whoever closes it."""

    async def test(side: ClusterSide) -> None:
        gone, revoked, stored = [await side.launched() for _ in range(2)] + [builders.queued(side.attempts)]
        side.attempts.close(gone, Closed.DROPPED)
        side.attempts.close(revoked, Closed.TERMINATED, endings.revoked(revoked))
        side.attempts.close(stored, Closed.WITHDRAWN, endings.revoked(stored))
        for one in (gone, revoked, stored):
            look_often(side, one)
        assert [(type(event), event.delivery) for event in side.posted] == [
            (Dropped, gone.delivery),
            (Withdrawn, stored.delivery),
        ]

    using(test)


def test_an_attempt_that_fails_keeps_nobody_else_from_being_looked_at() -> None:
    """It is logged, and looked at again."""

    async def test(side: ClusterSide) -> None:
        bad, good = await side.launched(), await side.launched()
        bad.first_waits = None  # type: ignore[assignment] - a fault that nobody foresaw
        side.attempts.missed(bad)
        side.attempts.missed(good)
        looking = asyncio.create_task(side.reconciler.run())
        await side.until(lambda: good.delivery in {event.delivery for event in side.posted})
        assert not looking.done()
        looking.cancel()

    using(test)


def test_a_wait_that_is_over_though_nobody_has_written_so_ends_nothing() -> None:
    """The clock may look between the start of a container and the row that says so."""

    async def test(side: ClusterSide) -> None:
        one = await side.launched(profile=builders.QueueProfile(startup_timeout_s=0.001, schedule_timeout_s=0.001))
        side.reconciler.look(one)
        side.status.write(one)
        await asyncio.sleep(0.01)
        assert one.wait is not None
        assert one.wait.is_expired(1e12)
        side.saw(one, builders.running())
        side.reconciler.look(one)  # as the clock does; the registry is strict: an illegal move would raise
        assert [type(event) for event in side.posted] == [Launched, Started]
        assert one.state is State.RUNNING

    using(test)


def test_without_an_api_server_a_wait_ends_and_a_pod_does_not() -> None:
    """Nobody could look whether it runs."""

    async def test(side: ClusterSide) -> None:
        side.reconciler.executors = None
        waits = builders.QueueProfile(waits={"slot": "fail after 1s", "api_server": "fail after 1s"})
        fresh = builders.queued(side.attempts, profile=waits)
        again = builders.queued(side.attempts, profile=waits, delivery_info={"redelivered": True})
        for one in (fresh, again):
            one.first_waits["slot"] = -1e6
            side.status.write(one)
            look_often(side, one)
        assert (fresh.state, again.state) == (State.ENDED, State.QUEUED)
        assert [type(event) for event in side.posted] == [Ended]

    using(test)


def test_what_may_have_a_pod_is_looked_for_before_it_ends_at_its_deadline() -> None:
    """A create of it had no answer once, and those since were refused: one whose pod is there goes on."""

    async def test(side: ClusterSide) -> None:
        waits = builders.QueueProfile(waits={"slot": "fail after 1s"})
        gone, there = builders.queued(side.attempts, profile=waits), builders.queued(side.attempts, profile=waits)
        side.api.add_pod(builders.pod_of(there))
        for one in (gone, there):
            side.attempts.prepare(one, replace(one.launch, doubted_mono_s=1.0))
            one.first_waits["slot"] = -1e6
            side.status.write(one)
            side.reconciler.look(one)
        assert (gone.state, there.state) == (State.EXPIRING_LAUNCH, State.EXPIRING_LAUNCH)
        await side.settle()
        assert (gone.state, there.state) == (State.ENDED, State.QUEUED)

    using(test)


def test_nothing_is_reported_before_its_row_says_so() -> None:
    """The clock's look comes between a change and its row: the message would be acknowledged on the row before it."""

    async def test(side: ClusterSide) -> None:
        one = await side.launched()
        side.attempts.changed.add(one)
        side.reconciler.look_at_all()
        assert side.posted == []
        side.attempts.changed.take_now()
        side.reconciler.look_at_all()
        assert side.posted == [Launched(delivery=one.delivery, pod=one.pod.name)]

    using(test)
