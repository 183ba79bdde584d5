"""Watches that do not tell all: an end that no event brought is found by the roll call, on the real HTTP protocol.

Watcher and roll call in this process, at a quick pace, on a local cluster that takes faults.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dispatcher.attempts import endings, sightings, states
from dispatcher.attempts.attempt import Attempt, Pod
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.attempts.states import State
from dispatcher.kubeapi import client, server_access
from dispatcher.localcluster.client import Client
from dispatcher.localcluster.faults import client as fault_client
from dispatcher.manifests import labels
from dispatcher.watching import resync, watcher
from tests import builders, parts
from tests.chaos import wire

PACE = resync.Pace(every_s=0.2, first_s=1.0, last_s=2.0)
SELECTOR = "for=roll-call"
OWNER = "roll-caller"


@pytest.fixture
def kubeconfig(faulty_cluster: parts.LocalCluster) -> Path:
    return faulty_cluster.kubeconfig


class Follower:
    """What a dispatcher's loop does with pods, as far as it matters here."""

    def __init__(self, api: client.KubeClient) -> None:
        self.attempts = Attempts(is_strict=True)
        seen_pods = SeenPods()
        self.watcher = watcher.Watcher(api, selector=SELECTOR, handler=self, seen_pods=seen_pods)
        self.resync = resync.Resync(
            api, owner=OWNER, selector=SELECTOR, attempts=self.attempts, watcher=self.watcher, pace=PACE
        )

    def add(self, pod: Mapping[str, Any]) -> Attempt:
        """An attempt whose pod was created just now."""
        made = builders.queued(self.attempts, task_id=pod["metadata"]["name"])
        self.attempts.admit(made)
        found = Pod(
            namespace="default",
            name=pod["metadata"]["name"],
            uid=pod["metadata"]["uid"],
            created_mono_s=time.monotonic(),
        )
        self.attempts.launched(made, found)
        return made

    def saw(self, pod: Mapping[str, Any], kind: str) -> None:
        """As `PodHandler.saw`."""
        found = self.attempts.of_pod("default", pod["metadata"]["name"])
        if found is not None and found.state is not State.ENDED:
            seen = sightings.sighting(found, pod, kind, now_mono_s=time.monotonic())
            self.attempts.saw(found, seen, uid=sightings.uid_of(pod))

    def listed(self, namespace: str, pods: Sequence[Mapping[str, Any]], *, asked_mono_s: float) -> None:
        """Lists are not what is tested here."""

    async def reconcile(self) -> None:
        """Ends what has ended, and what is missing."""
        while True:
            for attempt in await self.attempts.changed.take():
                is_over = attempt.is_missing or attempt.seen.verdict in ("succeeded", "failed")
                if is_over and attempt.state in states.LIVE:
                    self.attempts.end(attempt, endings.of_pod())


def pod(name: str, script: str) -> dict[str, Any]:
    made = builders.manifest(
        name,
        *("sh", "-c", script),
        labels={"for": "roll-call", labels.OWNER_LABEL: OWNER},
        terminationGracePeriodSeconds=0,
    )
    made["metadata"]["annotations"] = {labels.ATTEMPT_ANNOTATION: name, labels.RETRIES_ANNOTATION: "0"}
    return made


def follow(kubeconfig: Path, story: Callable[[Follower], Awaitable[None]]) -> None:
    """Runs a story while watcher and roll call work."""

    async def run() -> None:
        async with client.KubeClient(server_access.connect(kubeconfig=kubeconfig)) as api:
            follower = Follower(api)
            follower.watcher.watch("default")
            working = [asyncio.create_task(loop) for loop in (follower.resync.run(), follower.reconcile())]
            try:
                await story(follower)
            finally:
                for task in working:
                    task.cancel()

    asyncio.run(run())


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def create(kubeconfig: Path, name: str, script: str) -> dict[str, Any]:
    found: dict[str, Any] = Client.from_kubeconfig(kubeconfig).call(
        "POST", "/api/v1/namespaces/default/pods", pod(name, script)
    )
    return found


@pytest.mark.parametrize("row", ["W3", "W9"])
def test_W3_W9_an_end_that_the_watch_does_not_tell_is_found_within_the_bound(
    kubeconfig: Path, faults: fault_client.Faults, row: str
) -> None:
    """W3: the stream stays open and says nothing. W9: it goes on, and the events of the end are dropped."""

    async def story(follower: Follower) -> None:
        attempt = follower.add(await asyncio.to_thread(create, kubeconfig, f"missed-end-{row.lower()}", "sleep 0.5"))
        await until(lambda: attempt.started_at)
        if row == "W3":
            faults.silence_watches()
        else:
            faults.disturb("drop")
        waited_s = await until(lambda: attempt.state is State.ENDED)
        assert attempt.seen.verdict == "succeeded"
        assert 0.5 < waited_s < 0.5 + PACE.bound_s(ran_s=0.5) + 1.0
        assert follower.resync.missed_ends == 1
        await until(lambda: follower.watcher.relists >= 2)  # the watch that did not tell was opened anew

    follow(kubeconfig, story)


def test_T3_a_proxy_that_cuts_the_stream_costs_nothing(kubeconfig: Path, tmp_path: Path) -> None:
    """The connections break while the pod runs and while it ends; the watch goes on from the last version."""
    text = kubeconfig.read_text()
    match = re.search(r"https://127\.0\.0\.1:(\d+)", text)
    assert match is not None
    proxy = wire.Wire(to_port=int(match[1]))
    behind = tmp_path / "kubeconfig"
    behind.write_text(text[: match.start(1)] + str(proxy.port) + text[match.end(1) :])

    async def story(follower: Follower) -> None:
        attempt = follower.add(await asyncio.to_thread(create, kubeconfig, "behind-a-proxy", "sleep 1.5"))
        await until(lambda: attempt.started_at)
        for _ in range(2):
            await asyncio.to_thread(proxy.cut)
            await asyncio.to_thread(proxy.mend)
            await asyncio.sleep(0.5)
        await until(lambda: attempt.state is State.ENDED, 5)
        assert attempt.seen.verdict == "succeeded"

    follow(behind, story)
    proxy.close()


def test_a_pod_that_vanished_untold_is_missed(kubeconfig: Path, faults: fault_client.Faults) -> None:
    """Its DELETED never came, and no list has it."""

    async def story(follower: Follower) -> None:
        attempt = follower.add(await asyncio.to_thread(create, kubeconfig, "vanished", "sleep 60"))
        await until(lambda: attempt.started_at)
        faults.disturb("drop")
        faults.delete("vanished", grace_s=0)
        await until(lambda: attempt.state is State.ENDED)

    follow(kubeconfig, story)


def test_a_roll_call_costs_little_where_the_watch_is_honest(kubeconfig: Path, faults: fault_client.Faults) -> None:
    """Twenty pods that run for long: one table for all of them, ever more seldom, and no pod is read."""

    async def story(follower: Follower) -> None:
        names = [f"long-{number}" for number in range(20)]
        started = [follower.add(await asyncio.to_thread(create, kubeconfig, name, "sleep 60")) for name in names]
        await until(lambda: all(attempt.started_at for attempt in started), 20)
        faults.reset_stats()
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 4)
        assert follower.resync.missed_ends == 0
        requests = faults.stats()["requests"]["pods"]
        assert requests.get("get", 0) == 0
        assert 1 <= requests.get("list", 0) <= 4
        for name in names:
            faults.delete(name, grace_s=0)

    follow(kubeconfig, story)
