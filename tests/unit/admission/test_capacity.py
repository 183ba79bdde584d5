"""How much a dispatcher may use: its slots as the cluster shows them, its share, and who is woken by room."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.admission import capacity
from dispatcher.admission.capacity import Capacity
from dispatcher.admission.fair_share import Need
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.limits import ALL
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.options import QueueProfile
from tests import builders, fast_time
from tests.cluster_side import ClusterSide

PROFILES = {"kubernetes": QueueProfile(max_pods=5), "gpu": QueueProfile(max_pods=2)}


def profile_for(queue: str) -> QueueProfile:
    """That of a queue of ours; LookupError for a queue that is no more in the settings."""
    return PROFILES[queue]


class World:
    """The capacity of a dispatcher at a fake API server."""

    def __init__(self, **options: Any) -> None:
        self.side = ClusterSide(**{"profile_for": profile_for, **options})
        self.api, self.attempts = self.side.api, self.side.attempts
        self.capacity: Capacity = self.side.parts.capacity
        self.seen_pods = self.side.parts.seen_pods

    def waiting(self, queue: str = "kubernetes", **fields: Any) -> Attempt:
        """One that waits for its turn."""
        made = builders.queued(self.attempts, queue=queue, profile=PROFILES[queue], **fields)
        self.capacity.admission.add(made)
        return made

    def see(self, status: dict[str, Any] | None = None, kind: str = "ADDED", **fields: Any) -> Attempt:
        """A pod of ours that nobody has launched here."""
        made = builders.attempt(**fields)
        self.capacity.see(builders.pod_of(made, status, namespace="default", name=f"pod-{made.id}"), kind)
        return made

    async def has_room(self) -> bool:
        """Whether somebody was woken since the last time."""
        return await self.capacity.room.wait(0.0)


def using(test: Callable[[World], Awaitable[Any]], **options: Any) -> None:
    """Runs a test in a world of its own."""

    async def run() -> None:
        world = World(**options)
        try:
            await test(world)
        finally:
            await world.side.close()

    fast_time.run(run())


def test_what_is_in_the_cluster_counts_whoever_launched_it() -> None:
    """By queue, by namespace and in all; until it has finished."""

    async def test(world: World) -> None:
        one = world.see(queue="gpu")
        world.see()
        assert world.capacity.admission.slots.used() == {
            "queue/gpu": 1,
            "queue/kubernetes": 1,
            "namespace/default": 2,
            ALL: 2,
        }
        pod = builders.pod_of(one, builders.ended(0), namespace="default", name=f"pod-{one.id}")
        world.capacity.see(pod, "MODIFIED")
        assert world.capacity.admission.slots.used() == {"queue/kubernetes": 1, "namespace/default": 1, ALL: 1}

    using(test)


@pytest.mark.parametrize("how", ["MODIFIED", "DELETED", "list"])
def test_whoever_waits_is_woken_when_a_slot_is_free(how: str) -> None:
    """By an end, by a deletion, or by the list that lacks it; not by what takes a slot."""

    async def test(world: World) -> None:
        one = world.see()
        assert not await world.has_room()
        if how == "list":
            world.capacity.sync("default", [], asked_mono_s=float("inf"))
        else:
            status = builders.ended(0) if how == "MODIFIED" else builders.running()
            world.capacity.see(builders.pod_of(one, status, namespace="default", name=f"pod-{one.id}"), how)
        assert await world.has_room()
        assert world.capacity.admission.slots.used() == {}

    using(test)


def test_the_deletion_of_an_older_pod_of_the_name_frees_nothing() -> None:
    """A late event about the one before."""

    async def test(world: World) -> None:
        one = world.see()
        older = builders.pod_of(one, builders.ended(0), namespace="default", name=f"pod-{one.id}", uid="older")
        world.capacity.see(older, "DELETED")
        assert (world.capacity.admission.slots.used()[ALL], await world.has_room()) == (1, False)

    using(test)


def test_limits_are_shared_once_every_namespace_was_listed() -> None:
    """Before that nobody knows what it has: it would promise others what its own pods use."""

    async def test(world: World) -> None:
        world.seen_pods.watched.update({"default": None, "closed": None})
        running = asyncio.create_task(world.capacity.run())
        await asyncio.sleep(30)
        assert world.api.calls["read_config_map"] == 0
        world.seen_pods.listed("default", [], asked_mono_s=1.0)
        world.seen_pods.watched["closed"] = "403 Forbidden"
        await asyncio.sleep(2)
        assert world.capacity.shared.trouble is None
        assert await world.has_room(), "whoever waits for a share is woken"
        running.cancel()
        await asyncio.wait([running])

    using(test)


def test_it_shares_for_ever_whatever_the_api_server_answers() -> None:
    """Once a second; sooner where somebody asks for it, but not without end."""

    async def test(world: World) -> None:
        running = asyncio.create_task(world.capacity.run())
        world.api.fail("read_config_map", errors.ApiUnavailable("x"), RuntimeError("a fault"), times=5)
        await asyncio.sleep(20)
        assert world.capacity.shared.trouble is None
        assert world.api.calls["read_config_map"] <= 22
        calls = world.api.calls["read_config_map"]
        for _ in range(1000):
            world.capacity.shared.wake.set()
            await asyncio.sleep(0.001)
        assert world.api.calls["read_config_map"] - calls <= 1 / capacity.LEAST_S + 1
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    using(test)


def test_the_need_is_what_is_there_and_what_waits_by_limited_key() -> None:
    """A namespace without a limit is no key."""

    async def test(world: World) -> None:
        world.see(queue="gpu")
        for number in range(3):
            world.waiting(number=number)
        found = world.capacity._demand()
        assert {key: limit for key, (limit, _) in found.items()} == {"queue/gpu": 2, "queue/kubernetes": 5, ALL: 7}
        assert found["queue/gpu"][1] == Need(used=1)
        assert (found["queue/kubernetes"][1].waits, found[ALL][1].used, found[ALL][1].waits) == (3, 1, 3)

    using(test, max_pods=7)


def test_a_namespace_has_its_own_limit() -> None:
    """Where the settings give it one."""

    async def test(world: World) -> None:
        world.waiting(namespace="team-a")
        world.waiting(namespace="team-b")
        found = {key: limit for key, (limit, _) in world.capacity._demand().items()}
        assert found == {"queue/kubernetes": 5, "namespace/team-a": 3}

    using(test, max_pods_by_namespace={"team-a": 3})


def test_a_queue_that_is_no_more_in_the_settings_has_the_usual_limit() -> None:
    """Its pods still run, and count."""

    async def test(world: World) -> None:
        world.see(queue="renamed")
        assert world.capacity._demand() == {"queue/renamed": (QueueProfile().max_pods, Need(used=1))}

    using(test)


def test_what_was_needed_is_shared_for_a_while_longer() -> None:
    """The next task need not ask for a slot first; after some minutes the others have it."""

    async def test(world: World) -> None:
        one = world.waiting()
        assert set(world.capacity._demand()) == {"queue/kubernetes"}
        world.capacity.admission.withdraw(one)
        await asyncio.sleep(capacity.KEPT_S - 1)
        assert world.capacity._demand() == {"queue/kubernetes": (5, Need())}
        await asyncio.sleep(2)
        assert world.capacity._demand() == {}

    using(test)


def test_it_leaves_with_what_its_pods_use() -> None:
    """They run on: the others must not count them as free."""

    async def test(world: World) -> None:
        world.see()
        await world.capacity.shared.turn(world.capacity._demand)
        await world.capacity.leave()
        ((_, found),) = world.api.config_maps.items()
        (entry,) = found["data"].values()
        assert '"used":{"queue/kubernetes":1,"namespace/default":1,"all":1}' in entry

    using(test)


def test_an_attempt_is_taken_once_its_share_is_known() -> None:
    """Until then it waits, and says for what."""

    async def test(world: World) -> None:
        one = world.waiting()
        held = world.capacity.admission.blocked_reason(one, 0.0)
        assert held is not None
        assert held.reason == "LimitsUnknown"
        assert world.capacity.admission.take(0.0) is None
        await world.capacity.shared.turn(world.capacity._demand)
        assert world.capacity.admission.take(0.0) is one

    using(test)


def test_two_dispatchers_at_one_api_server_keep_the_limit_together() -> None:
    """Each with its own slots."""

    async def test(world: World) -> None:
        other = Capacity(
            world.api,  # type: ignore[arg-type]
            options=world.side.options,
            owner="other@host",
            own_limit=100,
            attempts=Attempts(is_strict=True),
            seen_pods=SeenPods(),
        )
        taken = 0
        for number in range(10):
            world.waiting(number=number)
            made = builders.queued(other.admission._attempts, number, profile=PROFILES["kubernetes"])
            other.admission.add(made)
        for _ in range(5):
            for one in (world.capacity, other):
                await one.shared.turn(one._demand)
                while one.admission.take(0.0) is not None:
                    taken += 1
        assert taken == PROFILES["kubernetes"].max_pods

    using(test)
