"""Rows of docs/failure-modes.md on lists and watches, each by its id: the watcher and its door, on a local cluster."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.kubeapi import client, server_access
from dispatcher.localcluster.faults import client as fault_client
from dispatcher.watching import watcher
from tests import builders, parts

PODS = 1_100
LABELS = {"of": "ours"}
SELECTOR = "of=ours"
FORGETS_AFTER = 20
"""Other lists that were begun and not ended; then the local cluster gives up the oldest one."""


@pytest.fixture(scope="module")
def faulty_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.LocalCluster]:
    """A local cluster without processes that forgets soon and sends bookmarks at once."""
    words = ("--hold", "--faults", "--history", "20", "--bookmark-seconds", "0.1", "--max-pods", "5000")
    found = parts.LocalCluster.start(tmp_path_factory.mktemp("lists") / "home", *words)
    yield found
    found.stop()


_numbers = itertools.count()


def pod(labels: dict[str, str]) -> bytes:
    """The JSON of a new pod."""
    return json.dumps(builders.manifest(f"p{next(_numbers)}", labels=labels)).encode()


class Watched:
    """A watcher at work, and what it said."""

    def __init__(self, api: client.KubeClient) -> None:
        self.api = api
        self.names: set[str] = set()
        self.lists: list[int] = []
        self.watcher = watcher.Watcher(api, selector=SELECTOR, handler=self, seen_pods=SeenPods())

    def saw(self, pod: Mapping[str, Any], kind: str) -> None:
        """As `PodHandler.saw`."""
        self.names.add(pod["metadata"]["name"])

    def listed(self, namespace: str, pods: Sequence[Mapping[str, Any]], *, asked_mono_s: float) -> None:
        """As `PodHandler.listed`."""
        self.lists.append(len(pods))

    async def until(self, holds: Callable[[], Any]) -> None:
        """Waits for a state."""
        await asyncio.to_thread(parts.eventually, holds, 20)

    async def two_bookmarks(self) -> None:
        """Waits until a watch like the watcher's has had two bookmarks: then the watcher's has had one."""
        version, count = (await self.api.list_pods("default", selector=SELECTOR)).resource_version, 0
        stream = self.api.watch_pods("default", selector=SELECTOR, resource_version=version, silence_s=20)
        async for event in stream:
            count += event["type"] == "BOOKMARK"
            if count == 2:
                break


def working(faulty_cluster: parts.LocalCluster, test: Callable[[Watched], Awaitable[None]]) -> None:
    """Runs a test with a watcher of its own."""

    async def run() -> None:
        async with client.KubeClient(server_access.connect(kubeconfig=faulty_cluster.kubeconfig)) as api:
            await test(Watched(api))

    asyncio.run(run())


def test_W10_bookmarks_alone_carry_a_quiet_watch_on(
    faulty_cluster: parts.LocalCluster, faults: fault_client.Faults
) -> None:
    """Nothing of ours happens while others change more than the server remembers: the next watch needs no list."""

    async def test(seen: Watched) -> None:
        seen.watcher.watch("default")
        await seen.until(lambda: seen.lists)
        for _ in range(3):
            for _ in range(40):
                await seen.api.create_pod("default", pod({"of": "others"}))
            await seen.two_bookmarks()
            faults.reset_stats()
            faults.cut_watches(how="end")
            # The next stream begins a moment later: what others change before that is more than a quiet watch meets.
            await seen.until(lambda: faults.stats()["requests"].get("pods", {}).get("watch"))
        await seen.api.create_pod("default", pod(LABELS))
        await seen.until(lambda: seen.names)
        assert seen.watcher.relists == 1

    working(faulty_cluster, test)


def test_K22_a_list_of_many_pods_comes_in_pages_and_begins_again_where_it_expired(
    faulty_cluster: parts.LocalCluster, faults: fault_client.Faults
) -> None:
    """Three requests for 1,100 pods; a list that is forgotten between two pages means a new list, and all of it."""

    async def test(seen: Watched) -> None:
        await asyncio.gather(*(seen.api.create_pod("default", pod(LABELS)) for _ in range(PODS)))
        count = len((await seen.api.list_pods("default", selector=SELECTOR)).pods)
        assert count >= PODS
        faults.reset_stats()
        await seen.api.list_pods("default", selector=SELECTOR)
        assert faults.stats()["requests"]["pods"]["list"] == -(-count // client.PAGE_SIZE)

        faults.delay("list", 1.5, resource="pods", times=2)
        seen.watcher.watch("default")
        await seen.until(
            lambda: faults.stats()["requests"]["pods"]["list"] == 3 + 2
        )  # its second page is being delayed
        for _ in range(FORGETS_AFTER):
            faults.cluster.call("GET", "/api/v1/namespaces/default/pods", limit=1)
        await seen.until(lambda: seen.lists)
        assert faults.stats()["answers"].get("410") == 1
        assert faults.stats()["requests"]["pods"]["list"] == 3 + 2 + FORGETS_AFTER + 3
        assert seen.lists == [count]
        assert len(seen.names) == count

    working(faulty_cluster, test)


def test_K19_a_field_that_the_server_drops_is_told_once(
    faulty_cluster: parts.LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """By the server's own warning; the pod is made all the same."""

    async def test(seen: Watched) -> None:
        for _ in range(2):
            strange = json.loads(pod({"of": "others"}))
            strange["spec"]["fromTheFuture"] = True
            await seen.api.create_pod("default", json.dumps(strange).encode())

    working(faulty_cluster, test)

    told = [record.getMessage() for record in caplog.records if "the API server warns" in record.getMessage()]
    assert told == ['the API server warns: "unknown field \\"spec.fromTheFuture\\""']
