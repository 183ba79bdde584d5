"""The API server in memory that unit tests use: it has the client's methods, and does what its docstring says."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.kubeapi import client
from tests.fake_api import FakeApi

POD = {"metadata": {"name": "a", "labels": {"who": "me"}}, "spec": {"containers": [{"name": "base", "image": "i"}]}}
BODY = json.dumps(POD).encode()


def methods(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_the_fake_has_every_method_of_the_client_with_its_parameters() -> None:
    """A call that the client does not take fails in a unit test, too."""
    real, fake = methods(client.KubeClient), methods(FakeApi)
    assert {name: list(fake[name].parameters.values()) for name in real if name in fake} == {
        name: list(signature.parameters.values()) for name, signature in real.items()
    }


def using(test: Callable[[FakeApi], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await asyncio.wait_for(test(FakeApi()), 5)

    return asyncio.run(run())


async def events(api: FakeApi, *, since: str, selector: str = "who=me") -> list[tuple[str, str]]:
    """Type and phase (or version) of all events until the server ends the watch."""
    watch = api.watch_pods("default", selector=selector, resource_version=since, silence_s=5)
    return [(event["type"], event["object"].get("status", {}).get("phase", "")) async for event in watch]


def test_a_watch_tells_what_happens_after_its_version() -> None:
    async def test(api: FakeApi) -> None:
        await api.create_pod("default", BODY)
        since = (await api.list_pods("default", selector="who=me")).resource_version
        api.run("a")
        api.end("a", exit_code=1)
        await api.delete_pod("default", "a", uid=None)
        following = asyncio.create_task(events(api, since=since))
        await asyncio.sleep(0.01)
        api.bookmark()
        await asyncio.sleep(0.01)
        api.end_watches()
        assert await following == [
            ("MODIFIED", "Running"),
            ("MODIFIED", "Failed"),
            ("DELETED", "Failed"),
            ("BOOKMARK", ""),
        ]
        assert api.pods == {}

    using(test)


def test_a_pod_that_leaves_the_selector_is_deleted_for_its_watch() -> None:
    """Without a deletion timestamp."""

    async def test(api: FakeApi) -> None:
        made = await api.create_pod("default", BODY)
        await api.patch_pod("default", "a", {"metadata": {"labels": {"who": "you"}}})
        watch = api.watch_pods(
            "default", selector="who=me", resource_version=made["metadata"]["resourceVersion"], silence_s=1
        )
        event = await anext(watch)
        assert event["type"] == "DELETED"
        assert "deletionTimestamp" not in event["object"]["metadata"]

    using(test)


def test_a_forgotten_version_is_410_and_silence_breaks_the_watch() -> None:
    async def test(api: FakeApi) -> None:
        api.forget_history()
        with pytest.raises(errors.ApiError, match="410 Expired"):
            await events(api, since="1")
        since = (await api.list_pods(None, selector="")).resource_version
        with pytest.raises(errors.ApiUnavailable):
            async for _ in api.watch_pods(None, selector="", resource_version=since, silence_s=0.01):
                pass

    using(test)


def test_a_lost_answer_leaves_the_pod_behind() -> None:
    async def test(api: FakeApi) -> None:
        api.fail("create_pod", errors.ApiUnavailable("lost"), takes_effect=True)
        with pytest.raises(errors.ApiUnavailable):
            await api.create_pod("default", BODY)
        with pytest.raises(errors.ApiError, match="AlreadyExists"):
            await api.create_pod("default", BODY)

    using(test)


def test_a_held_call_does_nothing_until_it_is_let_through() -> None:
    async def test(api: FakeApi) -> None:
        gate = api.hold("create_pod")
        waiting = asyncio.create_task(api.create_pod("default", BODY))
        await asyncio.sleep(0.01)
        assert api.pods == {}
        gate.set()
        await waiting
        assert list(api.pods) == [("default", "a")]

    using(test)


def test_a_running_pod_is_marked_and_goes_when_its_kubelet_is_done() -> None:
    async def test(api: FakeApi) -> None:
        await api.create_pod("default", BODY)
        api.run("a")
        await api.delete_pod("default", "a", uid=None, grace_s=7)
        assert (await api.read_pod("default", "a"))["metadata"]["deletionGracePeriodSeconds"] == 7
        api.remove("a")
        with pytest.raises(errors.ApiError, match="404 NotFound"):
            await api.read_pod("default", "a")

    using(test)
