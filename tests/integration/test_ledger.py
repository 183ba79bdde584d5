"""The ledger on a real API server: dispatchers that share slots out, die, come back and take pods over from each other.

The ledgers are real, and so is the ConfigMap; their pods are numbers here, so that every moment can be looked at.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from dispatcher import errors
from dispatcher.admission import shared_limits
from dispatcher.admission.fair_share import Need
from dispatcher.attempts import limits
from dispatcher.kubeapi import client, server_access
from dispatcher.manifests import labels
from tests import parts

LIMIT = 7
KEY = limits.ALL
PACE = shared_limits.Pace(every_s=0.15, short_s=0.1, valid_s=0.6, gone_s=1.0)
WAIT_S = 15.0


@dataclass(eq=False)
class World:
    """The pods of all dispatchers, by owner."""

    deployment: str
    kube: client.KubeClient
    pods: dict[str, int] = field(default_factory=dict)
    most: int = 0

    def change(self, owner: str, by: int) -> None:
        """Some pods more or fewer."""
        self.pods[owner] = self.pods.get(owner, 0) + by
        self.most = max(self.most, sum(self.pods.values()))

    def foreign(self, owner: str) -> list[dict[str, object]]:
        """The pods of all others, as a list shows them."""
        return [
            {
                "metadata": {
                    "namespace": "default",
                    "labels": {labels.OWNER_LABEL: other},
                    "annotations": {labels.QUEUE_ANNOTATION: "q"},
                }
            }
            for other, count in self.pods.items()
            if other != owner
            for _ in range(count)
        ]


class Player:
    """A dispatcher that creates whenever it may, and whose pods end when they like."""

    def __init__(self, world: World, name: str, *, waits: int, deployment: str | None = None) -> None:
        self.world = world
        self.name = name
        self.waits = waits
        self.created = 0
        self.ledger = shared_limits.SharedLimits(
            world.kube, namespace="default", deployment=deployment or world.deployment, owner=name, pace=PACE
        )
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def pods(self) -> int:
        """What it has now."""
        return self.world.pods.get(self.name, 0)

    def start(self) -> "Player":
        """Begins."""
        self.tasks = [asyncio.create_task(work) for work in (self.share(), self._play(), self._look())]
        return self

    def kill(self) -> None:
        """Like SIGKILL: nothing is written any more, and its pods run on."""
        for task in self.tasks:
            task.cancel()

    def demand(self) -> dict[str, tuple[int, Need]]:
        """What it has and wants of the one limit."""
        return {KEY: (LIMIT, Need(used=self.pods, waits=self.waits))}

    async def share(self) -> None:
        """Takes turns, as `Capacity` does."""
        while True:
            again_s = await self.ledger.turn(self.demand)
            await asyncio.sleep(shared_limits.LEAST_S)
            await self.ledger.wake.wait(max(0.0, again_s - shared_limits.LEAST_S))

    async def _play(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.0, 0.02))
            allowed = self.ledger.allowed(KEY, LIMIT)
            if isinstance(allowed, int) and self.waits and self.pods < allowed:
                self.waits, self.created = self.waits - 1, self.created + 1
                self.world.change(self.name, 1)
            elif self.pods and random.random() < 0.3:
                self.world.change(self.name, -1)
                self.ledger.freed()

    async def _look(self) -> None:
        while True:
            asked_mono_s = time.monotonic()
            self.ledger.saw(self.world.foreign(self.name), asked_mono_s)
            await asyncio.sleep(0.2)


@asynccontextmanager
async def worlds(local_cluster: parts.LocalCluster, deployment: str) -> AsyncIterator[World]:
    """A world on that cluster; whatever plays there ends with it."""
    async with client.KubeClient(server_access.connect(kubeconfig=local_cluster.kubeconfig)) as api:
        yield World(deployment=deployment, kube=api)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Waits for a state, with a bound."""
    ends_at = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends_at, what
        await asyncio.sleep(0.01)


def test_many_dispatchers_never_exceed_a_limit_together(local_cluster: parts.LocalCluster, deployment: str) -> None:
    """Four of them, coming one after the other; all that waits is created in the end."""

    async def play() -> None:
        async with worlds(local_cluster, deployment) as world:
            players = [Player(world, f"d{number}", waits=60) for number in range(4)]
            for player in players:
                player.start()
                await until(lambda player=player: player.created > 0, f"{player.name} has its part")  # type: ignore[misc]
            await until(lambda: not any(player.waits for player in players), "all is created")
            assert world.most <= LIMIT

    asyncio.run(play())


def test_pods_of_a_killed_dispatcher_count_until_they_end(local_cluster: parts.LocalCluster, deployment: str) -> None:
    """Its free slots are free after a while, its pods hold theirs; taken over by another they count there."""

    async def play() -> None:
        async with worlds(local_cluster, deployment) as world:
            one, two = (Player(world, name, waits=1000).start() for name in ("one", "two"))
            await until(lambda: one.pods >= 2 and two.pods >= 2, "both have pods")
            one.kill()
            left = one.pods
            await until(lambda: two.created and two.pods == LIMIT - left, "the other has all that is left")
            assert world.most <= LIMIT
            world.pods[two.name] += world.pods.pop(one.name)  # orphans are taken over
            created = two.created
            await until(lambda: two.created > created + 20, "it goes on")
            three = Player(world, "three", waits=20).start()
            await until(lambda: not three.waits, "a third one has its part")
            assert world.most <= LIMIT

    asyncio.run(play())


def test_who_cannot_write_creates_nothing(local_cluster: parts.LocalCluster, deployment: str) -> None:
    """Others may have taken it for gone. Its reason says so, and when it can write it has its part again."""

    async def play() -> None:
        async with worlds(local_cluster, deployment) as world:
            one, two = (Player(world, name, waits=100_000).start() for name in ("one", "two"))
            await until(lambda: one.created > 0 and two.created > 0, "both go")
            one.tasks[0].cancel()
            await until(lambda: not isinstance(one.ledger.allowed(KEY, LIMIT), int), "its word is old")
            assert one.ledger.allowed(KEY, LIMIT).reason == "LimitsUnknown"  # type: ignore[union-attr]
            await until(lambda: two.pods == LIMIT, "the other has all")
            created = one.created
            one.tasks[0] = asyncio.create_task(one.share())
            await until(lambda: one.created > created, "it is back")
            assert world.most <= LIMIT

    asyncio.run(play())


def test_whoever_leaves_lets_go_at_once(local_cluster: parts.LocalCluster, deployment: str) -> None:
    """Long before anybody would take it for gone."""

    async def play() -> None:
        async with worlds(local_cluster, deployment) as world:
            one, two = (Player(world, name, waits=100_000).start() for name in ("one", "two"))
            await until(lambda: one.pods >= 2 and two.pods >= 2, "both have pods")
            one.kill()
            world.pods[one.name] = 0
            await one.ledger.leave({KEY: one.pods})
            left_at = time.monotonic()
            await until(lambda: two.pods == LIMIT, "the other has all")
            assert time.monotonic() - left_at < PACE.gone_s
            assert world.most <= LIMIT

    asyncio.run(play())


def test_pods_of_dispatchers_that_write_nothing_count(local_cluster: parts.LocalCluster, deployment: str) -> None:
    """Those of an older version, and those whose entry was removed by hand."""

    async def play() -> None:
        async with worlds(local_cluster, deployment) as world:
            world.pods["old"] = 3
            one = Player(world, "one", waits=100_000)
            one.ledger.saw(world.foreign("one"), time.monotonic())
            one.start()
            await until(lambda: one.pods == LIMIT - 3, "it has what is left")
            await until(lambda: one.created > 30, "it goes on")
            assert world.most <= LIMIT
            world.pods["old"] = 0
            await until(lambda: one.pods == LIMIT, "it has all")

    asyncio.run(play())


def test_two_deployments_have_ledgers_of_their_own(local_cluster: parts.LocalCluster, deployment: str) -> None:
    """In one namespace."""

    async def play() -> None:
        async with worlds(local_cluster, deployment) as world:
            one = Player(world, "one", waits=100_000).start()
            two = Player(world, "two", waits=100_000, deployment=f"{deployment}-2").start()
            one.tasks[2].cancel()
            two.tasks[2].cancel()
            await until(lambda: one.pods == LIMIT, "one has all of its own")
            await until(lambda: two.pods == LIMIT, "and so has two")

    asyncio.run(play())


def test_a_config_map_is_changed_only_as_it_was_read(local_cluster: parts.LocalCluster, deployment: str) -> None:
    """What all of this rests on: the server refuses a patch of an older version."""

    async def ask() -> None:
        async with client.KubeClient(server_access.connect(kubeconfig=local_cluster.kubeconfig)) as api:
            name = f"{deployment}-map".lower()
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}}
            made = await api.create_config_map("default", body)
            with pytest.raises(errors.ApiError, match="409"):
                await api.create_config_map("default", body)
            version = {"resourceVersion": made["metadata"]["resourceVersion"]}
            await api.patch_config_map("default", name, {"metadata": version, "data": {"b": "2", "a": None}})
            with pytest.raises(errors.ApiError, match="409"):
                await api.patch_config_map("default", name, {"metadata": version, "data": {"b": "3"}})
            assert (await api.read_config_map("default", name))["data"] == {"b": "2"}
            with pytest.raises(errors.ApiError, match="404"):
                await api.read_config_map("default", f"{name}-none")

    asyncio.run(ask())
