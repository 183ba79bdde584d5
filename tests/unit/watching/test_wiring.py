"""The parts of a dispatcher as production wires them: each fact has one owner, selectors name deployment and owner."""

import asyncio
from typing import Any

import pytest

from dispatcher.attempts.states import State
from dispatcher.options import QueueProfile
from dispatcher.watching import wiring
from dispatcher.watching.wiring import Parts
from tests import builders, fake_api, fast_time
from tests.cluster_side import OWNER, ClusterSide


def wired(**options: Any) -> Parts:
    """The parts, which do not run."""

    async def make() -> Parts:
        return ClusterSide(**options).parts

    return asyncio.run(make())


def test_lost_pods_are_looked_for_where_there_is_a_record_of_them() -> None:
    """Without a database there is none."""
    assert wired().lost_pods is None
    assert wired(database_url="sqlite://").lost_pods is not None


def test_each_fact_has_one_owner() -> None:
    """One memory of pods, one admission, one client: whoever needs it holds the very one."""
    parts = wired(database_url="sqlite://")
    held = [
        *(parts.watcher._seen_pods, parts.takeover._seen_pods, parts.capacity._seen_pods),
        *(parts.capacity.admission._seen_pods, parts.watcher._handler._seen_pods),
    ]
    assert all(one is parts.seen_pods for one in held)
    assert parts.executors.admission is parts.capacity.admission
    assert parts.executors.deadlines._admission is parts.capacity.admission
    assert parts.takeover._shared is parts.capacity.shared
    assert parts.executors.deadlines._cleanup is parts.cleanup
    assert parts.resync._watcher is parts.watcher
    clients = [
        one._client
        for one in (
            parts.watcher,
            parts.resync,
            parts.takeover,
            parts.lost_pods,
            parts.ownership,
            parts.capacity.shared,
        )
        if one is not None
    ]
    assert all(one is parts.kube for one in clients)


def test_two_deployments_and_two_owners_in_one_namespace_see_no_pods_of_each_other() -> None:
    """What one has launched only it sees, and its peers of the same deployment see it as another's."""
    selectors: dict[str, str] = {}
    for deployment in ("one", "two"):
        parts = wired(deployment=deployment)
        assert parts.watcher._selector == parts.resync._selector
        selectors[deployment] = parts.watcher._selector
        assert f"podyard.dev/deployment={deployment}" in parts.takeover._selector
    assert "podyard.dev/owner=" in selectors["one"]
    assert selectors["one"] != selectors["two"]


def test_limits_are_shared_in_the_namespace_that_is_named_or_the_first() -> None:
    """All dispatchers of a deployment must look into the same object."""
    assert wired(namespaces=("a", "b")).capacity.shared._namespace == "a"
    assert wired(namespaces=("a", "b"), limits_namespace="c").capacity.shared._namespace == "c"


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_of_the_pool_bounds_its_pods(limit: int) -> None:
    """Over all queues, however many may be launched elsewhere."""

    async def run() -> None:
        side = ClusterSide(limit=limit)
        side.parts.capacity.shared._valid_until_mono_s = float("inf")
        await side.parts.capacity.shared.turn(side.parts.capacity._demand)
        for number in range(5):
            one = builders.queued(side.attempts, number, queue=f"q{number}")
            side.parts.capacity.admission.add(one)
        taken = 0
        while side.parts.capacity.admission.take(0.0) is not None:
            taken += 1
        assert taken == limit

    fast_time.run(run())


def test_attempts_outlive_a_connection() -> None:
    """A second wiring works on the same attempts; what it counts it finds in the cluster anew."""

    async def run() -> None:
        side = ClusterSide()
        one = await side.launched()
        again = wiring.wire(fake_api.FakeApi(), side.shared, limit=7)  # type: ignore[arg-type]
        assert again.executors.completion._attempts is side.attempts
        assert (one.state, again.capacity.admission.own_limit) == (State.PENDING, 7)
        assert again.capacity.admission.slots.used() == {}
        again.watcher._handler.saw(builders.pod_of(one, builders.running()), "ADDED")
        assert (one.seen.verdict, again.capacity.admission.slots.used()["all"]) == ("running", 1)

    fast_time.run(run())


def test_a_message_goes_through_all_parts_to_its_end() -> None:
    """Launched, watched, read, reported: no part is missing, and none is wired to another one's place."""

    async def run() -> None:
        side = ClusterSide(profile_for=lambda queue: QueueProfile())
        parts = side.parts
        loops = [parts.watcher.run(), parts.capacity.run(), parts.launcher.run(), side.reconciler.run()]
        running = [asyncio.create_task(loop) for loop in loops]
        parts.watcher.watch("default")
        one = builders.attempt()
        side.attempts.add(one)
        parts.launcher.submit(one)
        await side.until(lambda: one.state is State.PENDING)
        (pod,) = side.api.pods.values()
        assert pod["metadata"]["name"] == one.pod.name
        side.api.run(one.pod.name)
        await side.until(lambda: one.state is State.RUNNING)
        side.api.end(one.pod.name, exit_code=1)
        await side.until(lambda: len(side.posted) == 3)
        assert [type(event).__name__ for event in side.posted] == ["Launched", "Started", "Ended"]
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await side.close()

    fast_time.run(run())


def test_the_owner_of_the_parts_is_the_dispatcher() -> None:
    """Its claims, its pods and its part of the limits bear one name."""

    async def run() -> None:
        side = ClusterSide()
        assert side.shared.owner == OWNER
        label = side.parts.ownership._owner
        assert {side.parts.resync._owner, side.parts.takeover._owner, side.parts.capacity.shared._me} == {label}
        assert side.parts.executors.deadlines._owner == label

    fast_time.run(run())
