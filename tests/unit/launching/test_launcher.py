"""The launcher: takes attempts in, launches those that admission lets through, and ends in good order."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.states import State
from dispatcher.launching import launcher
from dispatcher.options import QueueProfile
from tests import builders, fast_time
from tests.cluster_side import ClusterSide
from tests.memory_claim_store import MemoryClaimStore


def using(test: Callable[[ClusterSide], Awaitable[Any]], **options: Any) -> Any:
    """Runs a test on the parts of a dispatcher at a fake API server; its loop runs where the test starts it."""

    async def run() -> Any:
        side = ClusterSide(**options)
        side.parts.capacity.shared._is_denied = True  # no other dispatcher shares the limits
        try:
            return await test(side)
        finally:
            await side.close()

    return fast_time.run(run())


def running(test: Callable[[ClusterSide], Awaitable[Any]], **options: Any) -> Any:
    """The same while the launcher runs."""

    async def run(side: ClusterSide) -> Any:
        loop = asyncio.create_task(side.parts.launcher.run())
        try:
            return await test(side)
        finally:
            assert not loop.done(), loop
            loop.cancel()

    return using(run, **options)


def submit(side: ClusterSide, number: int = 0, **fields: Any) -> Attempt:
    """One that was received."""
    one = builders.attempt(number, **fields)
    side.attempts.add(one)
    side.parts.launcher.submit(one)
    return one


# --- taking in


def test_what_is_taken_in_has_a_name_and_waits_for_its_turn() -> None:
    """Its pod is found by that name before anybody has answered."""

    async def test(side: ClusterSide) -> None:
        one = submit(side)
        assert (one.state, side.attempts.of_pod("default", one.pod.name)) == (State.QUEUED, one)
        assert one.launch.manifest
        assert side.parts.capacity.admission.take(0.0) is one

    using(test)


def test_what_cannot_be_built_ends_alone_and_at_once() -> None:
    """It never waits; the others do."""

    async def test(side: ClusterSide) -> None:
        bad = submit(side, profile=QueueProfile(template="/no/such/template.yaml"))
        good = submit(side)
        assert (bad.state, good.state) == (State.ENDED, State.QUEUED)
        assert bad.ending is not None
        assert bad.ending.reason == "InvalidTemplate"
        assert isinstance(bad.ending.result, errors.PodFailed)
        assert side.parts.capacity.admission.take(0.0) is good

    using(test)


def test_one_that_is_taken_up_again_keeps_what_came_of_its_creates() -> None:
    """It may have a pod, and its doubt began with the first of them."""

    async def test(side: ClusterSide) -> None:
        one = builders.queued(side.attempts)
        past = {"failures": 3, "is_in_doubt": True, "doubted_mono_s": 7.0}
        side.attempts.prepare(one, builders.Launch(**past))
        side.attempts.block(one, BlockedReason("ApiServerUnavailable", "away"))
        side.parts.launcher.submit(one)
        assert {name: getattr(one.launch, name) for name in past} == past
        assert (one.blocked, bool(one.launch.manifest)) == (None, True)

    using(test)


# --- launching


def test_all_that_may_be_launched_are() -> None:
    """Without any other event."""

    async def test(side: ClusterSide) -> None:
        ones = [submit(side, number) for number in range(5)]
        await side.until(lambda: all(one.state is State.PENDING for one in ones))
        assert len(side.api.pods) == 5

    running(test)


def test_what_waits_for_a_slot_says_so_and_is_launched_when_there_is_one() -> None:
    """In the order of receipt."""

    async def test(side: ClusterSide) -> None:
        one, two = (submit(side, number, profile=QueueProfile(max_pods=1)) for number in range(2))
        await side.until(lambda: one.state is State.PENDING and two.blocked)
        assert two.blocked is not None
        assert two.blocked.reason == "QueueLimit"
        pod = side.api.pods["default", one.pod.name]
        side.api.remove(one.pod.name)
        side.parts.capacity.see(pod, "DELETED")
        await side.until(lambda: two.state is State.PENDING)

    running(test)


def test_no_more_creates_are_at_the_server_at_once_than_it_may_get() -> None:
    """Others are claimed meanwhile."""

    async def test(side: ClusterSide) -> None:
        gate = side.api.hold("create_pod")
        ones = [submit(side, number) for number in range(6)]
        await side.until(lambda: side.api.calls["create_pod"] == 2 and all(map(side.claims.holds, ones)))  # type: ignore[union-attr]
        await asyncio.sleep(1)
        assert side.api.calls["create_pod"] == 2
        gate.set()
        await side.until(lambda: all(one.state is State.PENDING for one in ones))

    running(test, create_concurrency=2, claim_store=MemoryClaimStore())


def test_a_create_that_is_refused_for_now_is_tried_again_by_itself() -> None:
    """Time alone is enough, and the others go on."""

    async def test(side: ClusterSide) -> None:
        side.api.fail("create_pod", errors.ApiError(409, "Conflict", "try again"))
        ones = [submit(side, number) for number in range(3)]
        await side.until(lambda: all(one.state is State.PENDING for one in ones), within_s=60)
        assert sum(one.launch.failures for one in ones) == 1

    running(test)


def test_while_the_server_is_overloaded_nothing_is_created_and_it_says_why() -> None:
    """Until the time that it asked for has passed."""

    async def test(side: ClusterSide) -> None:
        loop = asyncio.get_running_loop()
        side.api.fail("create_pod", errors.ApiError(429, "TooManyRequests", "slow down", retry_after_s=20.0))
        one, began_s = submit(side), loop.time()
        await side.until(lambda: one.blocked)
        two = submit(side, 1)
        await side.until(lambda: two.blocked)
        assert two.blocked is not None
        assert two.blocked.reason == "TooManyRequests"
        await asyncio.sleep(60)
        assert (one.state, two.state) == (State.PENDING, State.PENDING)
        assert min(one.pod.created_mono_s, two.pod.created_mono_s) - began_s >= 20

    running(test)


def test_what_was_revoked_or_has_expired_while_it_waited_gets_no_pod() -> None:
    """Its slot goes to the next."""

    async def test(side: ClusterSide) -> None:
        side.answers.revoked.add("revoked")
        one = submit(side, 0, task_id="revoked", profile=QueueProfile(max_pods=1))
        late = submit(side, 1, expires_at=builders.START, profile=QueueProfile(max_pods=1))
        two = submit(side, 2, profile=QueueProfile(max_pods=1))
        await side.until(lambda: two.state is State.PENDING)
        assert (one.closed, late.closed) == (Closed.WITHDRAWN, Closed.WITHDRAWN)
        assert one.ending is not None
        assert one.ending.reason == "Revoked"
        assert len(side.api.pods) == 1

    running(test)


def test_a_fault_in_a_look_at_the_wait_queues_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and looked at again."""

    async def test(side: ClusterSide) -> None:
        bucket = side.parts.capacity.admission._bucket
        side.parts.capacity.admission._bucket = None  # type: ignore[assignment] - a fault that nobody foresaw
        one = submit(side)
        await asyncio.sleep(3)
        assert one.state is State.QUEUED
        side.parts.capacity.admission._bucket = bucket
        await side.until(lambda: one.state is State.PENDING)

    running(test)
    assert "could not be looked at" in caplog.text


# --- the end


def test_the_end_waits_for_creates_that_are_answered_in_time() -> None:
    """And begins none."""

    async def test(side: ClusterSide) -> None:
        gate = side.api.hold("create_pod")
        one = submit(side)
        await side.until(lambda: side.api.calls["create_pod"])
        closing = asyncio.create_task(side.parts.launcher.close())
        two = submit(side, 1)
        await asyncio.sleep(launcher.CLOSE_S / 2)
        assert not closing.done()
        gate.set()
        await closing
        assert (one.state, two.state) == (State.PENDING, State.QUEUED)
        assert side.api.calls["create_pod"] == 1

    running(test)


def test_the_end_does_not_wait_for_ever_and_what_it_cuts_off_is_in_doubt() -> None:
    """Nothing of it goes on afterwards."""

    async def test(side: ClusterSide) -> None:
        side.api.hold("create_pod")
        one = submit(side)
        await side.until(lambda: side.api.calls["create_pod"])
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await side.parts.launcher.close()
        assert loop.time() - began_s <= launcher.CLOSE_S + 0.5
        assert (one.state, one.launch.is_in_doubt) == (State.LAUNCHING, True)
        assert one.launch.doubted_mono_s is not None
        assert side.parts.launcher._launches == set()

    running(test)


def test_what_was_being_claimed_at_the_end_is_not_created_and_not_claimed_for_ever() -> None:
    """The next dispatcher need not wonder."""
    claim_store = MemoryClaimStore()

    async def test(side: ClusterSide) -> None:
        assert side.claims is not None
        gate = claim_store.hold()
        one = submit(side)
        await side.until(lambda: claim_store.trips)
        closing = asyncio.create_task(side.parts.launcher.close())
        await asyncio.sleep(0)
        fast_time.skip(launcher.CLOSE_S + 1)
        await closing
        releasing = asyncio.create_task(side.claims.close())
        await asyncio.sleep(0)
        gate.set()
        await releasing
        assert (side.api.pods, claim_store.claims) == ({}, {})
        assert not one.launch.is_in_doubt

    running(test, claim_store=claim_store)


def test_an_end_without_launches_is_over_at_once() -> None:
    """Also a second time."""

    async def test(side: ClusterSide) -> None:
        await side.parts.launcher.close()
        await side.parts.launcher.close()

    using(test)


def test_the_manifest_that_was_built_is_the_one_that_is_sent() -> None:
    """With the owner's label, by which the next dispatcher finds it."""

    async def test(side: ClusterSide) -> None:
        one = submit(side)
        manifest = json.loads(one.launch.manifest)
        await side.until(lambda: one.state is State.PENDING)
        pod = side.api.pods["default", one.pod.name]
        assert manifest["metadata"]["labels"].items() <= pod["metadata"]["labels"].items()
        assert pod["spec"] == manifest["spec"]
        assert one.launch.manifest == b""

    running(test)
