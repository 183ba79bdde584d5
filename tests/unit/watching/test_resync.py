"""What a watch did not tell is found: attempts that were quiet are asked for, cheaply, and read only where in doubt."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts import sightings
from dispatcher.attempts.attempt import Attempt, Closed, Pod
from dispatcher.attempts.states import State
from dispatcher.manifests import labels, names
from dispatcher.watching import resync
from dispatcher.watching.resync import Pace, Resync
from tests import builders, fake_api, fast_time
from tests.cluster_side import OWNER, ClusterSide

MINE = {labels.DEPLOYMENT_LABEL: "default", labels.OWNER_LABEL: names.label_value(OWNER)}
SHORT_S = resync.TRUST_FIRST_S + 1.25 * resync.EVERY_S + 0.1
"""Within this time an attempt that has never been asked for is."""


class World:
    """A dispatcher of which only the resync runs: its watch says nothing at all."""

    def __init__(self, api: fake_api.FakeApi | None) -> None:
        self.side = ClusterSide()
        self.api = api or self.side.api
        self.attempts = self.side.attempts
        self.watcher = self.side.parts.watcher
        self.resync = Resync(
            self.api,  # type: ignore[arg-type]
            owner=OWNER,
            selector=labels.selector(deployment="default", owner=OWNER),
            attempts=self.attempts,
            watcher=self.watcher,
        )

    def launched(self, *, namespace: str = "default", **fields: Any) -> Attempt:
        """Its pod runs, and was seen to run just now."""
        made = builders.queued(self.attempts, namespace=namespace, **fields)
        self.attempts.admit(made)
        pod = self.api.add_pod(builders.pod_of(made, labels=MINE), namespace)
        uid = pod["metadata"]["uid"]
        found = Pod(namespace=namespace, name=made.pod.name, uid=uid, created_mono_s=time.monotonic())
        self.attempts.launched(made, found)
        self.api.run(made.pod.name, namespace)
        self.see(made)
        self.attempts.started(made)
        return made

    def see(self, made: Attempt) -> None:
        """The watch tells how its pod is."""
        pod = self.api.pods[made.namespace, made.pod.name]
        found = sightings.sighting(made, pod, "MODIFIED", now_mono_s=time.monotonic())
        self.attempts.saw(made, found, uid=pod["metadata"]["uid"])


def using(test: Callable[[World], Awaitable[Any]], *, api: Callable[[], fake_api.FakeApi] | None = None) -> None:
    """Runs a test while a dispatcher asks for what is quiet."""

    async def run() -> None:
        world = World(api() if api else None)
        running = asyncio.create_task(world.resync.run())
        try:
            await test(world)
            assert not running.done(), "it asks for ever"
        finally:
            running.cancel()
            await asyncio.wait([running])
            await world.side.close()

    fast_time.run(run())


@pytest.mark.parametrize("exit_code", [0, 1])
def test_an_end_that_the_watch_did_not_tell_is_found(exit_code: int) -> None:
    """As if an event had told it."""

    async def test(world: World) -> None:
        one = world.launched()
        world.api.end(one.pod.name, exit_code=exit_code)
        await asyncio.sleep(SHORT_S)
        assert one.seen.verdict == ("failed" if exit_code else "succeeded")
        assert world.resync.missed_ends == 1

    using(test)


def test_a_start_that_the_watch_did_not_tell_is_found_too() -> None:
    """It is no end: the watch is not blamed."""

    async def test(world: World) -> None:
        one = builders.launched(world.attempts, created_mono_s=time.monotonic())
        pod = world.api.add_pod(builders.pod_of(one, labels=MINE))
        world.attempts.name_pod(one, Pod(namespace="default", name=one.pod.name, uid=pod["metadata"]["uid"]))
        world.api.run(one.pod.name)
        await asyncio.sleep(SHORT_S)
        assert (one.seen.verdict, world.resync.missed_ends) == ("running", 0)

    using(test)


@pytest.mark.parametrize("ran_s", [0.0, 40.0, 200.0, 4000.0])
def test_an_end_is_found_within_the_bound_however_long_it_ran(ran_s: float) -> None:
    """Who was as expected is trusted longer, but never for longer than a minute."""

    async def test(world: World) -> None:
        one = world.launched()
        await asyncio.sleep(ran_s)
        world.api.end(one.pod.name)
        await asyncio.sleep(Pace().bound_s(ran_s=ran_s))
        assert one.seen.verdict == "succeeded"

    using(test)


def test_what_runs_as_expected_costs_no_read() -> None:
    """One cheap list now and then, however many attempts there are; less often the longer they have run."""

    async def test(world: World) -> None:
        for _ in range(30):
            world.launched()
        await asyncio.sleep(600)
        assert world.api.calls["read_pod"] == 0
        assert 8 <= world.api.calls["list_words"] <= 16

    using(test)


def test_what_the_watch_tells_of_is_not_asked_for() -> None:
    """It is not quiet."""

    async def test(world: World) -> None:
        one = world.launched()
        for _ in range(60):
            await asyncio.sleep(5)
            world.see(one)
        assert world.api.calls["list_words"] == 0

    using(test)


def test_nothing_is_asked_while_nothing_is_in_flight() -> None:
    """Nor for what has no pod, or has ended."""

    async def test(world: World) -> None:
        builders.queued(world.attempts)
        builders.in_state(world.attempts, State.ENDED)
        await asyncio.sleep(600)
        assert world.api.calls == {}

    using(test)


def test_a_deletion_that_the_watch_did_not_tell_is_found() -> None:
    """The attempt is missed; whether the pod is gone is asked by the finder."""

    async def test(world: World) -> None:
        one = world.launched()
        world.api.remove(one.pod.name)
        await asyncio.sleep(SHORT_S)
        assert (one.is_missing, world.resync.missed_ends) == (True, 1)

    using(test)


@pytest.mark.parametrize("owner", ["another@host", OWNER])
def test_a_pod_that_is_another_ones_by_now_is_missed(owner: str) -> None:
    """Another dispatcher's, or another pod of its name."""

    async def test(world: World) -> None:
        one = world.launched()
        world.api.remove(one.pod.name)
        other = {**MINE, labels.OWNER_LABEL: names.label_value(owner)}
        world.api.add_pod(builders.pod_of(one, labels=other))
        before = one.sighting
        await asyncio.sleep(SHORT_S)
        assert one.is_missing
        assert one.sighting is before, "what the other pod does is not the attempt's"

    using(test)


def test_a_pod_that_another_dispatcher_took_over_is_missed() -> None:
    """It has left our selector, and is the same pod."""

    async def test(world: World) -> None:
        one = world.launched()
        await world.api.patch_pod("default", one.pod.name, {"metadata": {"labels": {labels.OWNER_LABEL: "you"}}})
        before = one.sighting
        await asyncio.sleep(SHORT_S)
        assert one.is_missing
        assert one.sighting is before

    using(test)


def test_a_list_that_is_older_than_the_pod_ends_nothing() -> None:
    """It may come from a cache: what it lacks is read."""

    class Stale(fake_api.FakeApi):
        async def list_words(self, namespace: str, *, selector: str) -> dict[str, str]:
            await self._called("list_words")
            return {}

    async def test(world: World) -> None:
        one = world.launched()
        await asyncio.sleep(10 * SHORT_S)
        assert (one.is_missing, one.seen.verdict, world.resync.missed_ends) == (False, "running", 0)

    using(test, api=Stale)


def test_the_watch_is_opened_anew_where_it_missed_an_end() -> None:
    """Of that namespace alone, and not for each pod of a crowd."""

    async def test(world: World) -> None:
        world.watcher.watch("default")
        world.watcher.watch("other")
        await asyncio.sleep(1)
        lists = world.api.calls["list_pods"]
        for _ in range(10):
            world.api.remove(world.launched().pod.name)
        world.attempts.changed.take_now()
        await asyncio.sleep(SHORT_S)
        assert world.resync.missed_ends >= 10
        assert world.api.calls["list_pods"] == lists + 1
        for task in world.watcher._tasks.values():
            task.cancel()

    using(test)


def test_of_a_crowd_a_few_are_read_in_each_round() -> None:
    """And all in the end."""

    async def test(world: World) -> None:
        crowd = [world.launched() for _ in range(resync.AT_ONCE + 20)]
        for one in crowd:
            world.api.end(one.pod.name)
        while not world.api.calls["read_pod"]:  # when the first round comes is left to chance
            await asyncio.sleep(0.1)
        assert world.api.calls["read_pod"] == resync.AT_ONCE
        await asyncio.sleep(1.25 * resync.EVERY_S)
        assert [one.seen.verdict for one in crowd] == ["succeeded"] * len(crowd)
        assert world.resync.missed_ends == len(crowd)

    using(test)


@pytest.mark.parametrize(
    "fault",
    [
        errors.ApiUnavailable("no answer"),
        errors.ApiError(429, "TooManyRequests", "slow down"),
        errors.ApiError(403, "Forbidden", "no"),
        RuntimeError("a fault that nobody foresaw"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["list_words", "read_pod"])
def test_without_an_answer_nothing_follows_and_it_asks_again(call: str, fault: Exception) -> None:
    """At the next round."""

    async def test(world: World) -> None:
        one = world.launched()
        world.api.end(one.pod.name)
        world.api.fail(call, fault, times=3)
        await asyncio.sleep(SHORT_S)
        assert (one.seen.verdict, one.is_missing) == ("running", False)
        await asyncio.sleep(5 * resync.EVERY_S)
        assert one.seen.verdict == "succeeded"

    using(test)


def test_a_namespace_that_fails_leaves_the_others_alone() -> None:
    """Each is one list."""

    class Closed403(fake_api.FakeApi):
        async def list_words(self, namespace: str, *, selector: str) -> dict[str, str]:
            if namespace == "closed":
                raise errors.ApiError(403, "Forbidden", "no")
            return await super().list_words(namespace, selector=selector)

    async def test(world: World) -> None:
        there, here = world.launched(namespace="closed"), world.launched(namespace="default")
        for one in (there, here):
            world.api.end(one.pod.name, one.namespace)
        await asyncio.sleep(SHORT_S)
        assert (there.seen.verdict, here.seen.verdict) == ("running", "succeeded")

    using(test, api=Closed403)


def test_one_pod_that_cannot_be_read_leaves_the_others_alone() -> None:
    """An answer that cannot be used is about that pod."""

    class OneBad(fake_api.FakeApi):
        async def read_pod(self, namespace: str, name: str) -> dict[str, Any]:
            if name.endswith("bad"):
                raise errors.ApiError(500, "InternalError", "conversion of this object failed")
            return await super().read_pod(namespace, name)

    async def test(world: World) -> None:
        bad, good = world.launched(task_id="bad"), world.launched(task_id="good")
        for one in (bad, good):
            world.api.end(one.pod.name)
        await asyncio.sleep(SHORT_S + 2 * resync.EVERY_S)
        assert (bad.seen.verdict, good.seen.verdict) == ("running", "succeeded")

    using(test, api=OneBad)


def test_what_is_remembered_of_attempts_goes_with_them() -> None:
    """The memory is as large as what is in flight."""

    async def test(world: World) -> None:
        crowd = [world.launched() for _ in range(5)]
        await asyncio.sleep(SHORT_S)
        assert len(world.resync._trusted) == 5
        for one in crowd[1:]:
            world.attempts.close(one, Closed.STORED)
        await asyncio.sleep(2 * resync.EVERY_S)
        assert set(world.resync._trusted) == {crowd[0].key}

    using(test)


def test_who_has_said_something_is_trusted_anew_for_a_short_time() -> None:
    """What was long quiet and then moved may end soon."""

    async def test(world: World) -> None:
        one = world.launched()
        await asyncio.sleep(1000)
        world.see(one)
        world.api.end(one.pod.name)
        await asyncio.sleep(SHORT_S)
        assert one.seen.verdict == "succeeded"

    using(test)
