"""Completion: an attempt whose pod has ended gets its outcome, whatever keeps it from being read."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.background import Background
from dispatcher.finishing.completion import Completion
from dispatcher.manifests import builder, result_sidecar
from dispatcher.protocol import outcome
from tests import builders, fake_api, fast_time


@dataclass
class World:
    """Completion at a fake API server."""

    api: fake_api.FakeApi = field(default_factory=fake_api.FakeApi)
    attempts: Attempts = field(default_factory=lambda: Attempts(is_strict=True))
    background: Background = field(default_factory=Background)

    def __post_init__(self) -> None:
        self.completion = Completion(
            self.api,  # type: ignore[arg-type]
            attempts=self.attempts,
            background=self.background,
            result_max_bytes=1000,
        )

    def ended(self, exit_code: int = 0, *, message: str = "", made: Attempt | None = None) -> Attempt:
        """An attempt whose container has ended, in the cluster and as it was seen."""
        one = made or builders.launched(self.attempts)
        status = builders.ended(exit_code, message=message)
        self.api.add_pod(builders.pod_of(one))
        self.api.pods["default", one.pod.name]["metadata"]["uid"] = one.pod.uid
        self.api.set_status(one.pod.name, **status)
        self.attempts.saw(one, builders.seen(one, status), uid=one.pod.uid or "")
        return one

    def any_image(self, **kwargs: Any) -> Attempt:
        """One whose pod is of any image."""
        message = builders.message(name=builder.ANY_IMAGE_TASK, kwargs=kwargs)
        return self.ended(made=builders.launched(self.attempts, message=message))

    async def settle(self) -> None:
        """What was begun is done."""
        while self.background._tasks:
            await asyncio.wait(list(self.background._tasks))


def using(test: Callable[[World], Awaitable[Any]]) -> Any:
    """Runs a test in a world of its own, whose clock jumps."""

    async def run() -> Any:
        return await test(World())

    return fast_time.run(run())


def success(one: Attempt, value: object = 7) -> str:
    """The termination message of a body that returned."""
    made = outcome.Outcome(id=one.id, retries=one.key.retries, state="SUCCESS", value=value)
    return outcome.encode(made).message.decode()


def test_the_attempt_has_ended_at_once_and_its_outcome_follows() -> None:
    """Nothing else happens to it meanwhile."""

    async def test(world: World) -> None:
        one = builders.launched(world.attempts)
        world.ended(message=success(one), made=one)
        world.completion.finish(one, None)
        assert (one.state, one.ending is not None and one.ending.result) == (State.ENDED, None)
        world.attempts.changed.take_now()
        await world.settle()
        assert one.ending is not None
        assert isinstance(one.ending.result, outcome.Outcome)
        assert one.ending.result.value == 7
        assert world.attempts.changed.take_now() == [one]

    using(test)


def test_nothing_ends_twice() -> None:
    """A second event of the same end reads nothing."""

    async def test(world: World) -> None:
        world.attempts._is_strict = False
        one = world.ended(1)
        world.completion.finish(one, None)
        await world.settle()
        assert one.ending is not None
        before, world.api.calls["list_events"] = one.ending, 0
        world.completion.finish(one, None)
        await world.settle()
        assert one.ending is before
        assert world.api.calls["list_events"] == 0

    using(test)


def test_a_failure_has_lines_for_its_log() -> None:
    """How it failed, and what the cluster said."""

    async def test(world: World) -> None:
        one = world.ended(137)
        world.api.add_event(world.api.pods["default", one.pod.name], reason="Evicted", message="low on memory")
        world.completion.finish(one, None)
        await world.settle()
        assert one.ending is not None
        assert isinstance(one.ending.result, errors.PodFailed)
        assert "exit code 137" in one.ending.epilogue[0]
        assert "Evicted: low on memory" in one.ending.epilogue[-1]

    using(test)


def test_what_the_sidecar_said_is_the_result_and_how_much_it_may_be_is_known() -> None:
    """`told` is what was seen of it."""

    async def test(world: World) -> None:
        here = world.any_image(do_xcom_push=True)
        large = world.any_image(do_xcom_push=True)
        world.completion.finish(here, result_sidecar.SidecarReport(kind="here", data=b"[1]"))
        world.completion.finish(large, result_sidecar.SidecarReport(kind="large", size=5000))
        await world.settle()
        assert here.ending is not None
        assert isinstance(here.ending.result, outcome.Outcome)
        assert here.ending.result.value == [1]
        assert large.ending is not None
        assert "allowed are 1000 (results.max_bytes)" in str(large.ending.result)

    using(test)


def test_a_fault_in_the_reading_is_an_outcome_too(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing would ever end the attempt otherwise."""

    async def test(world: World) -> None:
        one = world.ended(1)
        world.api.fail("list_events", KeyError("items"))
        world.completion.finish(one, None)
        await world.settle()
        assert one.ending is not None
        result = one.ending.result
        assert isinstance(result, errors.PodFailed)
        assert (result.details["reason"], result.details["cause"]) == ("OutcomeUnreadable", "unknown")
        assert "KeyError('items')" in str(result)

    with caplog.at_level(logging.ERROR):
        using(test)
    assert "could not be read attempt_id=" in caplog.text


def test_a_reading_that_was_cut_off_is_taken_up_again() -> None:
    """The loops begin anew: it has ended, and its outcome is still in the pod."""

    async def test(world: World) -> None:
        one = builders.launched(world.attempts)
        made = outcome.Outcome(id=one.id, retries=0, state="SUCCESS", value="x" * 9000)
        encoded = outcome.encode(made)
        world.api.logs["default", one.pod.name, "base"] = "\n".join(encoded.lines).encode()
        world.ended(message=encoded.message.decode(), made=one)
        world.api.hold("read_log")
        world.completion.finish(one, None)
        await fast_time.until(lambda: world.api.calls["read_log"])
        await world.background.cancel()
        assert one.ending is not None
        assert (one.state, one.ending.result) == (State.ENDED, None)
        world.api.hold("read_log").set()
        world.completion.read_again(one)
        await world.settle()
        assert one.ending.result == made

    using(test)


def test_a_reading_again_knows_what_the_sidecar_said() -> None:
    """As far as it was seen."""

    async def test(world: World) -> None:
        message = builders.message(name=builder.ANY_IMAGE_TASK, kwargs={"do_xcom_push": True})
        one = builders.launched(world.attempts, message=message)
        said = {"name": result_sidecar.NAME, "state": {"terminated": {"message": "podyard-result here WzJd"}}}
        status = {**builders.ended(), "initContainerStatuses": [said]}
        world.attempts.saw(one, builders.seen(one, status), uid=one.pod.uid or "")
        world.attempts.end(one, builders.Ending())
        world.completion.read_again(one)
        await world.settle()
        assert one.ending is not None
        assert isinstance(one.ending.result, outcome.Outcome)
        assert one.ending.result.value == [2]

    using(test)


def test_what_was_closed_while_its_outcome_was_read_stays_as_it_is() -> None:
    """Another dispatcher has reported it: its row is not ours any more."""

    async def test(world: World) -> None:
        one = world.ended(1)
        gate = world.api.hold("list_events")
        world.completion.finish(one, None)
        await fast_time.until(lambda: world.api.calls["list_events"])
        world.attempts.close(one, Closed.DROPPED)
        world.attempts.changed.take_now()
        gate.set()
        await world.settle()
        assert one.ending is not None
        assert (one.ending.result, world.attempts.changed.take_now()) == (None, [])

    using(test)
