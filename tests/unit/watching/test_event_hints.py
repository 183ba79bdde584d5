"""Events of pods that do not start: read seldom, and only what says more than the pod's own status."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts import current_wait
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.watching import event_hints
from dispatcher.watching.event_hints import EventHints
from tests import builders, fast_time
from tests.cluster_side import ClusterSide

SCHEDULED: dict[str, Any] = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "True"}],
    "containerStatuses": [{"name": "base", "state": {"waiting": {"reason": "ContainerCreating"}}}],
}


class World:
    """Event hints, and a clock that a test gives."""

    def __init__(self) -> None:
        self.side = ClusterSide()
        self.api, self.attempts = self.side.api, self.side.attempts
        self.hints = EventHints(self.api, attempts=self.attempts, background=self.side.background)  # type: ignore[arg-type]

    async def starting(self, **fields: Any) -> Attempt:
        """Its pod has had a node since time 0, and does not start."""
        made = await self.side.launched(**fields)
        self.attempts.saw(made, builders.seen(made, SCHEDULED, now_mono_s=0.0), uid=made.pod.uid or "")
        self.attempts.waits(made, current_wait.look(made, now_mono_s=0.0))
        assert made.wait is not None
        assert made.wait.kind == "start"
        return made

    def add_event(self, made: Attempt, reason: str, *, at: str = "2026-01-01T00:00:00Z", **more: Any) -> None:
        """The cluster says something about its pod."""
        self.api.add_event(self.api.pods[made.namespace, made.pod.name], reason=reason, message=f"of {reason}", **more)
        self.api.events[-1] |= {"firstTimestamp": at, "lastTimestamp": at}

    async def look(self, made: Attempt, now_mono_s: float) -> str | None:
        """What is known after a look at that time."""
        self.hints.look(made, now_mono_s=now_mono_s)
        await self.side.settle()
        return None if made.event is None else made.event.reason


def using(test: Callable[[World], Awaitable[Any]]) -> None:
    """Runs a test in a world of its own."""

    async def run() -> None:
        world = World()
        try:
            await test(world)
        finally:
            await world.side.close()

    fast_time.run(run())


def test_a_pod_that_starts_as_pods_do_costs_no_call() -> None:
    """It is asked for after it has waited for a while."""

    async def test(world: World) -> None:
        one = await world.starting()
        world.add_event(one, "FailedMount")
        assert await world.look(one, event_hints.FIRST_S - 0.1) is None
        assert world.api.calls["list_events"] == 0
        assert await world.look(one, event_hints.FIRST_S) == "FailedMount"
        assert world.attempts.changed.take_now() == [one]

    using(test)


def test_it_is_asked_for_less_often_the_longer_it_waits() -> None:
    """But never less often than every few minutes."""

    async def test(world: World) -> None:
        one = await world.starting()
        asked: list[int] = []
        for second in range(1000):
            before = world.api.calls["list_events"]
            await world.look(one, float(second))
            asked += [second] if world.api.calls["list_events"] > before else []
        assert asked[:5] == [10, 20, 40, 80, 160]
        assert {later - sooner for sooner, later in itertools.pairwise(asked[4:])} == {int(event_hints.LAST_S)}

    using(test)


@pytest.mark.parametrize(("waits", "first"), [("fail after 4s", 2.0), ("fail after 1h", 10.0), ("wait", 10.0)])
def test_a_rule_that_ends_the_wait_sooner_has_it_asked_for_sooner(waits: str, first: float) -> None:
    """So that the reason is known before the deadline."""

    async def test(world: World) -> None:
        profile = builders.QueueProfile(waits={"volume": waits})
        one = await world.starting(profile=profile)
        await world.look(one, first - 0.1)
        assert world.api.calls["list_events"] == 0
        await world.look(one, first)
        assert world.api.calls["list_events"] == 1

    using(test)


def test_of_several_events_the_newest_counts() -> None:
    """A mount that failed once and a pull that began afterwards: it is being pulled."""

    async def test(world: World) -> None:
        one = await world.starting()
        world.add_event(one, "FailedMount", at="2026-01-01T00:00:01Z")
        world.add_event(one, "Pulling", at="2026-01-01T00:00:05Z", type="Normal")
        world.add_event(one, "FailedScheduling", at="2026-01-01T00:00:00Z")
        assert await world.look(one, 10.0) == "Pulling"

    using(test)


@pytest.mark.parametrize("order", [("Pulled", "FailedMount"), ("FailedMount", "Pulled")], ids=str)
def test_of_one_second_a_warning_tells_more(order: tuple[str, str]) -> None:
    """Times are whole seconds, in whatever order the server lists them."""

    async def test(world: World) -> None:
        one = await world.starting()
        for reason in order:
            world.add_event(one, reason, type="Warning" if reason == "FailedMount" else "Normal")
        assert await world.look(one, 10.0) == "FailedMount"

    using(test)


def test_what_says_nothing_of_the_start_is_no_hint() -> None:
    """Nor is what is about another pod of its name."""

    async def test(world: World) -> None:
        one = await world.starting()
        world.add_event(one, "Scheduled", type="Normal")
        world.add_event(one, "FailedMount")
        world.api.events[-1]["involvedObject"]["uid"] = "of the one before"
        assert await world.look(one, 10.0) is None
        assert world.api.calls["list_events"] == 1

    using(test)


def test_a_hint_that_has_passed_goes() -> None:
    """Events are kept for an hour only."""

    async def test(world: World) -> None:
        one = await world.starting()
        world.add_event(one, "FailedMount")
        assert await world.look(one, 10.0) == "FailedMount"
        world.api.events.clear()
        assert await world.look(one, 20.0) is None

    using(test)


@pytest.mark.parametrize(
    "odd", [{}, {"lastTimestamp": None, "firstTimestamp": None}, {"lastTimestamp": "soon"}], ids=str
)
def test_an_odd_event_hides_no_other(odd: dict[str, Any]) -> None:
    """Its time may be missing, or nonsense."""

    async def test(world: World) -> None:
        one = await world.starting()
        world.add_event(one, "FailedMount")
        world.add_event(one, "Strange", type="Normal")
        world.api.events[-1] |= odd
        assert await world.look(one, 10.0) == "FailedMount"

    using(test)


@pytest.mark.parametrize(
    "fault",
    [errors.ApiUnavailable("no answer"), errors.ApiError(403, "Forbidden", "no"), errors.ApiError(429, "F", "no")],
    ids=str,
)
def test_without_an_answer_what_is_known_stays(fault: Exception) -> None:
    """It is asked again when it is time; events may be forbidden for good."""

    async def test(world: World) -> None:
        one = await world.starting()
        world.add_event(one, "FailedMount")
        await world.look(one, 10.0)
        world.api.fail("list_events", fault)
        assert await world.look(one, 20.0) == "FailedMount"
        assert await world.look(one, 40.0) == "FailedMount"
        assert world.api.calls["list_events"] == 3

    using(test)


def test_a_few_are_asked_for_at_a_time() -> None:
    """A cluster whose nodes are slow has many pods that do not start."""

    async def test(world: World) -> None:
        crowd = [await world.starting() for _ in range(3 * event_hints.AT_ONCE)]
        gate = world.api.hold("list_events")
        for one in crowd:
            world.hints.look(one, now_mono_s=10.0)
        await asyncio.sleep(1)
        assert world.api.calls["list_events"] == event_hints.AT_ONCE
        gate.set()
        await world.side.settle()
        assert world.api.calls["list_events"] == len(crowd)

    using(test)


def test_what_has_started_or_ended_meanwhile_takes_no_hint() -> None:
    """The answer came too late."""

    async def test(world: World) -> None:
        started, closed = await world.starting(), await world.starting()
        gate = world.api.hold("list_events")
        for one in (started, closed):
            world.add_event(one, "FailedMount")
            world.hints.look(one, now_mono_s=10.0)
        world.side.saw(started, builders.running())
        world.attempts.started(started)
        world.attempts.close(closed, Closed.TERMINATED)
        gate.set()
        await world.side.settle()
        assert (started.event, closed.event) == (None, None)

    using(test)


def test_what_has_no_pod_or_waits_for_nothing_is_not_asked_for() -> None:
    """There is nothing that an event could tell."""

    async def test(world: World) -> None:
        queued, quiet = builders.queued(world.attempts), await world.starting()
        world.attempts.waits(queued, quiet.wait)
        world.attempts.waits(quiet, None)
        for one in (queued, quiet):
            await world.look(one, 1e6)
        assert world.api.calls["list_events"] == 0

    using(test)


def test_the_memory_of_what_waits_no_longer_goes() -> None:
    """An attempt that starts, ends or is dropped is forgotten; one that waits on keeps its pace."""

    async def test(world: World) -> None:
        started, closed, waiting = [await world.starting() for _ in range(3)]
        for one in (started, closed, waiting):
            await world.look(one, 10.0)
        world.side.saw(started, builders.running())
        world.attempts.started(started)
        world.attempts.close(closed, Closed.DROPPED)
        world.hints.forget_started()
        assert list(world.hints._due) == [waiting]
        before = world.api.calls["list_events"]
        await world.look(waiting, 19.0)
        assert world.api.calls["list_events"] == before

    using(test)


def test_a_clock_that_jumps_ahead_costs_one_call() -> None:
    """A machine that was suspended has missed looks: they are not made up for."""

    async def test(world: World) -> None:
        one = await world.starting()
        for now_mono_s in (1e5, 1e5 + 1, 1e5 + 2):
            await world.look(one, now_mono_s)
        assert world.api.calls["list_events"] == 1

    using(test)
