"""Pods of dispatchers that are gone are taken over, each by one; what belongs to one that lives is left alone."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.manifests import labels, names
from dispatcher.watching import takeover
from dispatcher.watching.takeover import Takeover
from tests import builders, fake_api, fast_time
from tests.cluster_side import OWNER, ClusterSide

LONG_S = 4 * takeover.EVERY_S
"""Some rounds."""
MINE = names.label_value(OWNER)


class World:
    """Takeover of one dispatcher, which runs."""

    def __init__(self, api: fake_api.FakeApi | None = None) -> None:
        self.side = ClusterSide()
        self.api = api or self.side.api
        self.answers = self.side.answers
        self.shared = self.side.parts.capacity.shared
        self.seen_pods = self.side.parts.seen_pods
        self.seen_pods.watched["default"] = None
        self.takeover = self.of(OWNER)

    def of(self, owner: str) -> Takeover:
        """The takeover of a dispatcher, at the same API server."""
        return Takeover(
            self.api,  # type: ignore[arg-type]
            deployment="default",
            owner=owner,
            seen_pods=self.seen_pods,
            shared=self.shared,
            questions=self.answers,
        )

    def add(self, name: str, owner: str | None, namespace: str = "default", **more: str) -> None:
        """A pod of a dispatcher, None: of nobody."""
        ours = {labels.DEPLOYMENT_LABEL: "default", **more}
        if owner is not None:
            ours[labels.OWNER_LABEL] = names.label_value(owner)
        pod = builders.pod_of(builders.attempt(), builders.running(), labels=ours)
        pod["metadata"]["name"] = name
        self.api.add_pod(pod, namespace)

    def owners(self) -> dict[str, str]:
        """Pod -> its owner's label."""
        return {name: labels.owner_of(pod) for (_, name), pod in self.api.pods.items()}


def using(
    test: Callable[[World], Awaitable[Any]],
    *,
    api: Callable[[], fake_api.FakeApi] | None = None,
    others: Sequence[str] = (),
) -> None:
    """Runs a test while that dispatcher looks for orphans, and others beside it."""

    async def run() -> None:
        world = World(api() if api else None)
        looks = [world.takeover, *map(world.of, others)]
        running = [asyncio.create_task(one.run()) for one in looks]
        try:
            await test(world)
            assert not any(one.done() for one in running), "it looks for ever"
        finally:
            for one in running:
                one.cancel()
            await asyncio.wait(running)
            await world.side.close()

    fast_time.run(run())


def test_a_pod_of_a_dispatcher_that_is_gone_is_taken() -> None:
    """And one that nobody has."""

    async def test(world: World) -> None:
        world.add("orphan", "gone@host")
        world.add("nobodys", None)
        await asyncio.sleep(LONG_S)
        assert world.owners() == {"orphan": MINE, "nobodys": MINE}

    using(test)


def test_pods_of_dispatchers_that_live_are_left_alone() -> None:
    """By the labels of their names, which are shortened."""

    async def test(world: World) -> None:
        long = "dispatcher@" + "h" * 200
        world.answers.workers = {OWNER, "live@host", long}
        for number, owner in enumerate(("live@host", long, OWNER)):
            world.add(f"p{number}", owner)
        before = world.owners()
        await asyncio.sleep(LONG_S)
        assert world.owners() == before
        assert world.api.calls["patch_pod"] == 0

    using(test)


def test_one_silence_is_not_enough() -> None:
    """A dispatcher may have been slow once; the second look comes soon."""

    async def test(world: World) -> None:
        world.add("p", "slow@host")
        await asyncio.sleep(takeover.FIRST_AFTER_S + 0.5)
        world.answers.workers = {OWNER, "slow@host"}
        await asyncio.sleep(takeover.FIRST_AFTER_S + 0.5)
        world.answers.workers = {OWNER}
        await asyncio.sleep(takeover.EVERY_S)
        assert world.owners() == {"p": names.label_value("slow@host")}
        await asyncio.sleep(takeover.FIRST_AFTER_S + 0.5)
        assert world.owners() == {"p": MINE}

    using(test)


def test_who_does_not_hear_itself_takes_nothing() -> None:
    """Then the broker is away, and nobody can be told from one that is gone."""

    async def test(world: World) -> None:
        world.add("p", "gone@host")
        world.answers.workers = None
        await asyncio.sleep(LONG_S)
        assert world.owners() == {"p": names.label_value("gone@host")}

    using(test)


def test_pods_of_another_deployment_are_never_taken() -> None:
    """Nor those that are kept for people."""

    async def test(world: World) -> None:
        world.add("other", "gone@host", **{labels.DEPLOYMENT_LABEL: "other"})
        world.add("done", "gone@host", **{labels.DONE_LABEL: "true"})
        await asyncio.sleep(LONG_S)
        assert set(world.owners().values()) == {names.label_value("gone@host")}

    using(test)


def test_of_several_takers_one_wins_each_pod() -> None:
    """The label is changed only while the pod is the one that was seen."""

    async def test(world: World) -> None:
        takers = {OWNER, "second@host", "third@host"}
        world.answers.workers = takers
        for number in range(5):
            world.add(f"p{number}", "gone@host")
        await asyncio.sleep(LONG_S)
        assert set(world.owners().values()) <= set(map(names.label_value, takers))
        assert world.api._version == 100 + 5 + 5, "each pod was made once and changed once"

    using(test, others=["second@host", "third@host"])


def test_a_pod_that_was_replaced_or_is_gone_meanwhile_is_not_taken() -> None:
    """What stands under its name now is another one's."""

    async def test(world: World) -> None:
        world.add("replaced", "gone@host")
        world.add("deleted", "gone@host")
        gate = world.api.hold("patch_pod")
        await asyncio.sleep(3 * takeover.FIRST_AFTER_S)
        world.api.remove("replaced")
        world.api.remove("deleted")
        world.add("replaced", "live@host")
        world.answers.workers = {OWNER, "live@host"}
        gate.set()
        await asyncio.sleep(LONG_S)
        assert world.owners() == {"replaced": names.label_value("live@host")}

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
@pytest.mark.parametrize("call", ["list_pods", "patch_pod"])
def test_whatever_the_api_server_answers_it_looks_again(call: str, fault: Exception) -> None:
    """At the next round."""

    async def test(world: World) -> None:
        world.add("p", "gone@host")
        world.api.fail(call, fault, times=3)
        await asyncio.sleep(5 * LONG_S)
        assert world.owners() == {"p": MINE}

    using(test)


class OneClosed(fake_api.FakeApi):
    """An API server that does not let the pods of one namespace be listed, or changed."""

    call = "list_pods"
    status = 403

    async def list_pods(self, namespace: str | None, *, selector: str) -> Any:
        if namespace == "closed" and self.call == "list_pods":
            raise errors.ApiError(self.status, "Refused", "no")
        return await super().list_pods(namespace, selector=selector)

    async def patch_pod(self, namespace: str, name: str, patch: Any) -> Any:
        if namespace == "closed" and self.call == "patch_pod":
            raise errors.ApiError(self.status, "Refused", "no")
        return await super().patch_pod(namespace, name, patch)


@pytest.mark.parametrize("call", ["list_pods", "patch_pod"])
@pytest.mark.parametrize("status", [403, 422, 500])
def test_a_namespace_that_is_refused_leaves_the_others_alone(call: str, status: int) -> None:
    """Its own pods stay where they are."""

    async def test(world: World) -> None:
        world.seen_pods.watched = {"closed": None, "default": None}
        world.add("there", "gone@host", "closed")
        world.add("here", "gone@host", "default")
        await asyncio.sleep(LONG_S)
        assert world.owners() == {"there": names.label_value("gone@host"), "here": MINE}

    using(test, api=type("Closed", (OneClosed,), {"call": call, "status": status}))


def test_pods_of_others_count_for_the_shared_limits() -> None:
    """As they were listed last; a namespace that cannot be listed now is not taken for empty."""

    async def test(world: World) -> None:
        world.seen_pods.watched = {"closed": None, "default": None}
        world.answers.workers = {OWNER, "live@host"}
        OneClosed.call = ""
        world.add("there", "live@host", "closed")
        world.add("here", "live@host", "default")
        await asyncio.sleep(LONG_S)
        assert world.shared._peers.pods("all") == 2
        OneClosed.call = "list_pods"
        world.api.remove("here")
        await asyncio.sleep(LONG_S)
        assert world.shared._peers.pods("all") == 2
        world.seen_pods.forbidden["closed"] = "403"
        await asyncio.sleep(LONG_S)
        assert world.shared._peers.pods("all") == 0, "nobody can count there any more, nor create"

    try:
        using(test, api=OneClosed)
    finally:
        OneClosed.call = "list_pods"


def test_an_owner_that_is_gone_in_one_namespace_is_gone_in_all() -> None:
    """Its silence is one of the dispatcher."""

    async def test(world: World) -> None:
        world.seen_pods.watched = {"default": None, "other": None}
        world.add("here", "gone@host", "default")
        world.add("there", "gone@host", "other")
        world.add("unwatched", "gone@host", "third")
        await asyncio.sleep(LONG_S)
        assert world.owners() == {"here": MINE, "there": MINE, "unwatched": names.label_value("gone@host")}

    using(test)
