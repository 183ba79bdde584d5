"""The watcher: a list is the truth, events only come sooner; whatever a watch does, what is missed is found."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.celery_side import Found
from dispatcher.manifests import labels, names
from dispatcher.watching import watcher
from dispatcher.watching.watcher import Watcher
from tests import builders, fake_api, fast_time
from tests.cluster_side import OWNER, ClusterSide

OURS = {"podyard.dev/deployment": "default", "podyard.dev/owner": names.label_value(OWNER)}
FORBIDDEN = errors.ApiError(403, "Forbidden", 'pods is forbidden: cannot list resource "pods"')
STATUS_500 = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcdserver: leader changed"}


class World:
    """The parts of a dispatcher, of which the watcher runs."""

    def __init__(self, api: fake_api.FakeApi | None = None) -> None:
        self.side = ClusterSide()
        self.api = self.side.api if api is None else api
        self.watcher: Watcher = self.side.parts.watcher
        self.watcher._client = self.api  # type: ignore[assignment]
        self.seen_pods = self.side.parts.seen_pods

    def add(self, name: str = "p", namespace: str = "default", **more: Any) -> dict[str, Any]:
        """A pod of ours that no attempt here knows."""
        made = builders.attempt(task_id=f"of-{name}")
        pod = builders.pod_of(made, labels=OURS)
        pod["metadata"] |= {"name": name, **more}
        return self.api.add_pod(pod, namespace)

    def found(self) -> list[str]:
        """The pods that were passed on to adoption, in order, each as often as it was seen."""
        return [event.pod["metadata"]["name"] for event in self.side.posted if isinstance(event, Found)]

    async def watched(self, *namespaces: str) -> None:
        """Watches them, and returns when each was listed."""
        for namespace in namespaces or ("default",):
            self.watcher.watch(namespace)
        await self.pass_s(1.0)

    async def pass_s(self, seconds: float) -> None:
        """So much time passes."""
        await asyncio.sleep(seconds)


class Streams(fake_api.FakeApi):
    """An API server whose watches give what a test says, one after the other; the last one again and again."""

    def __init__(self, *streams: list[dict[str, Any]]) -> None:
        super().__init__()
        self.streams = list(streams)

    async def watch_pods(
        self, namespace: str | None, *, selector: str, resource_version: str, silence_s: float
    ) -> AsyncIterator[dict[str, Any]]:
        await self._called("watch_pods")
        for event in self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]:
            yield event


def using(test: Callable[[World], Awaitable[Any]], api: Callable[[], fake_api.FakeApi] | None = None) -> Any:
    """Runs a test in a world of its own."""

    async def run() -> Any:
        world = World(None if api is None else api())
        running = asyncio.create_task(world.watcher.run())
        try:
            return await test(world)
        finally:
            running.cancel()
            await asyncio.wait([running])
            await world.side.close()
            assert all(task.done() for task in world.watcher._tasks.values()), "its end leaves no watch behind"

    return fast_time.run(run())


def test_what_is_there_is_listed_and_what_comes_is_followed() -> None:
    """Each once, though the watch goes on from the list."""

    async def test(world: World) -> None:
        world.add("first")
        await world.watched()
        world.add("second")
        await world.pass_s(1)
        assert world.found() == ["first", "second"]
        assert (world.api.calls["list_pods"], world.watcher.relists) == (1, 1)

    using(test)


def test_pods_of_others_are_never_seen() -> None:
    """Neither of another dispatcher, nor of another deployment, nor what is done with."""

    async def test(world: World) -> None:
        world.add("theirs", labels={**OURS, labels.OWNER_LABEL: "you"})
        world.add("of-another-deployment", labels={**OURS, labels.DEPLOYMENT_LABEL: "other"})
        world.add("done", labels={**OURS, labels.DONE_LABEL: "true"})
        await world.watched()
        world.add("theirs-later", labels={**OURS, labels.OWNER_LABEL: "you"})
        await world.pass_s(1)
        assert world.found() == []

    using(test)


async def _lost_deletion(world: World) -> Attempt:
    """An attempt whose pod was deleted; the watch breaks before it says so, and the server forgets."""
    one = builders.launched(world.side.attempts)
    pod = world.api.add_pod(builders.pod_of(one, labels=OURS))
    world.side.attempts.name_pod(one, builders.Pod(namespace="default", name=one.pod.name, uid=pod["metadata"]["uid"]))
    await world.watched()
    world.api.end_watches()
    world.api.remove(one.pod.name)
    world.api.forget_history()
    return one


def test_a_version_that_is_too_old_means_to_list_again() -> None:
    """A deletion that no event told of is found by the list."""

    async def test(world: World) -> None:
        one = await _lost_deletion(world)
        assert not one.is_missing
        await world.pass_s(2)
        assert one.is_missing
        assert (world.watcher.relists, world.watcher.trouble) == (2, {})

    using(test)


def test_a_version_that_is_too_old_may_come_as_an_event() -> None:
    """As it does where the server notices it only while it answers."""

    async def test(world: World) -> None:
        await world.watched()
        await world.pass_s(3)
        assert world.watcher.relists >= 2
        assert world.watcher.trouble == {}

    expired = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    using(test, lambda: Streams([expired]))


def test_after_a_stream_that_ended_it_goes_on_where_it_was() -> None:
    """No list is needed, and nothing that came meanwhile is missed."""

    async def test(world: World) -> None:
        await world.watched()
        world.api.end_watches()
        world.add("meanwhile")
        await world.pass_s(3)
        assert (world.found(), world.watcher.relists) == (["meanwhile"], 1)

    using(test)


def test_a_bookmark_moves_the_version_from_which_it_goes_on() -> None:
    """What was before it may be forgotten by the server."""

    async def test(world: World) -> None:
        await world.watched()
        world.api.forget_history()
        world.api.bookmark()
        await world.pass_s(1)
        world.api.end_watches()
        await world.pass_s(3)
        assert (world.watcher.relists, world.found()) == (1, [])

    using(test)


def test_a_stream_that_says_nothing_at_all_is_opened_anew() -> None:
    """Its connection may be dead, though it stands."""

    async def test(world: World) -> None:
        await world.watched()
        await world.pass_s(watcher.SILENCE_S + 5)
        assert world.api.calls["watch_pods"] == 2

    using(test)


def test_watches_that_break_after_they_have_worked_do_not_slow_each_other_down() -> None:
    """Silence is normal where there are no bookmarks: the tenth watch is opened as soon as the first."""

    async def test(world: World) -> None:
        await world.watched()
        await world.pass_s(10 * (watcher.SILENCE_S + 1))
        assert world.api.calls["watch_pods"] >= 10

    using(test)


def test_a_full_list_comes_every_few_minutes() -> None:
    """Though the watch lives, and says something now and then."""

    async def test(world: World) -> None:
        await world.watched()
        for _ in range(11):
            world.api.bookmark()
            await world.pass_s(watcher.RELIST_S / 10)
            world.api.end_watches()
        await world.pass_s(5)
        assert world.watcher.relists == 2

    using(test)


def test_a_namespace_that_may_not_be_listed_leaves_the_others_alone() -> None:
    """It is named, with the server's words, until it may be listed again."""

    class Partly(fake_api.FakeApi):
        forbidden = True

        async def list_pods(self, namespace: str | None, *, selector: str) -> Any:
            if namespace == "closed" and self.forbidden:
                await self._called("list_pods")
                raise FORBIDDEN
            return await super().list_pods(namespace, selector=selector)

    async def test(world: World) -> None:
        await world.watched("closed", "default")
        world.add("here", "default")
        world.add("there", "closed")
        await world.pass_s(5)
        assert world.found() == ["here"]
        assert world.watcher.trouble == {"closed": str(FORBIDDEN)}
        assert world.seen_pods.forbidden == {"closed": str(FORBIDDEN)}
        assert world.seen_pods.has_listed_all, "who cannot be listed holds nobody up"
        Partly.forbidden = False
        await world.pass_s(40)
        assert world.found() == ["here", "there"]
        assert (world.watcher.trouble, world.seen_pods.forbidden) == ({}, {})

    using(test, Partly)


@pytest.mark.parametrize(
    "fault",
    [
        errors.ApiUnavailable("no route to host"),
        errors.ApiError(500, "InternalError", "etcdserver: request timed out"),
        errors.ApiError(429, "TooManyRequests", "too many requests"),
        errors.ApiError(401, "Unauthorized", "the token has expired"),
        RuntimeError("a fault that nobody foresaw"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["list_pods", "watch_pods"])
def test_whatever_the_api_server_answers_it_goes_on(call: str, fault: Exception) -> None:
    """Later each time, and none of it forbids to launch."""

    async def test(world: World) -> None:
        world.api.fail(call, fault, times=8)
        await world.watched()
        await world.pass_s(30)
        assert world.api.calls[call] <= 9
        await world.pass_s(120)
        world.add("later")
        await world.pass_s(1)
        assert world.found() == ["later"]
        assert (world.watcher.trouble, world.seen_pods.forbidden) == ({}, {})

    using(test)


def test_an_api_server_that_asks_for_time_gets_it() -> None:
    """`Retry-After` is more than its own back-off."""

    async def test(world: World) -> None:
        world.api.fail("list_pods", errors.ApiError(429, "TooManyRequests", "slow down", retry_after_s=60.0))
        world.watcher.watch("default")
        await world.pass_s(59)
        assert world.api.calls["list_pods"] == 1
        await world.pass_s(2)
        assert (world.api.calls["list_pods"], world.watcher.trouble) == (2, {})

    using(test)


@pytest.mark.parametrize(
    ("stream", "most"),
    [
        pytest.param([], 61, id="ends at once"),
        pytest.param([{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}], 61, id="says little"),
        pytest.param([{"type": "ERROR", "object": {"code": 410}}], 61, id="is always too old"),
        pytest.param([{"type": "ERROR", "object": STATUS_500}], 15, id="always ends with an error"),
        pytest.param([{"type": "ERROR", "object": {}}], 15, id="always ends with an error without words"),
    ],
)
def test_streams_that_end_at_once_are_not_opened_without_end(stream: list[dict[str, Any]], most: int) -> None:
    """A proxy or a server in trouble is asked once a second at most, and less often where it says that it fails."""

    async def test(world: World) -> None:
        await world.watched()
        await world.pass_s(59)
        assert 2 <= world.api.calls["watch_pods"] <= most
        assert world.api.calls["list_pods"] <= most

    using(test, lambda: Streams(stream))


def test_an_error_within_a_stream_is_told_until_the_next_list() -> None:
    """As one that is an answer."""

    async def test(world: World) -> None:
        world.watcher.watch("default")
        await world.pass_s(0.1)
        assert world.watcher.trouble == {"default": "500 InternalError: etcdserver: leader changed"}
        await world.pass_s(3)
        assert (world.watcher.trouble, world.watcher.relists) == ({}, 2)

    using(test, lambda: Streams([{"type": "ERROR", "object": STATUS_500}], []))


def test_an_event_that_cannot_be_read_is_counted_and_the_next_is_seen() -> None:
    """One odd pod fails alone, in a list too."""

    async def test(world: World) -> None:
        await world.watched()
        await world.pass_s(0.5)
        assert world.found()[0] == "good"
        assert world.watcher.skipped >= 4

    made = builders.attempt(task_id="good")
    good = builders.pod_of(made)
    good["metadata"]["name"] = "good"
    odd: list[dict[str, Any]] = [
        {"type": "UNREADABLE", "object": None},
        {"type": "ADDED"},
        {"type": "ADDED", "object": {"metadata": {"name": "without-a-namespace"}}},
        {"type": "ADDED", "object": {"metadata": {"namespace": "default", "name": "without-a-uid"}}},
    ]
    using(test, lambda: Streams([*odd, {"type": "ADDED", "object": good}]))


def test_a_watch_that_is_renewed_lists_at_once() -> None:
    """A namespace that nobody watches is not watched by that."""

    async def test(world: World) -> None:
        await world.watched()
        world.watcher.renew("default")
        world.watcher.renew("unknown")
        await world.pass_s(1)
        assert (world.watcher.relists, world.api.calls["watch_pods"]) == (2, 2)
        assert world.seen_pods.watched == {"default": None}

    using(test)


def test_a_namespace_is_watched_once() -> None:
    """However often it is asked for."""

    async def test(world: World) -> None:
        await world.watched("default", "default")
        world.watcher.watch("default")
        await world.pass_s(1)
        assert world.api.calls["list_pods"] == 1

    using(test)
