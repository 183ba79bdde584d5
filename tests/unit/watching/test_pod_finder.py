"""A pod that a list lacked is looked for: the attempt ends only where the API server says that it is gone."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt, Closed, Pod
from dispatcher.attempts.states import State
from dispatcher.manifests import labels
from dispatcher.watching.pod_finder import PodFinder
from tests import fast_time
from tests.cluster_side import ClusterSide


def using(test: Callable[[ClusterSide, PodFinder], Awaitable[Any]]) -> None:
    """Runs a test on the parts of a dispatcher at a fake API server."""

    async def run() -> None:
        side = ClusterSide()
        finder = side.parts.executors.pod_finder
        try:
            await test(side, finder)
        finally:
            await side.close()

    fast_time.run(run())


async def missed(side: ClusterSide) -> Attempt:
    """An attempt whose pod a list lacked."""
    one = await side.launched()
    side.attempts.missed(one)
    side.attempts.changed.take_now()
    return one


def test_an_attempt_whose_pod_is_gone_ends_and_says_so() -> None:
    """Not charged to the author; there is nothing to clean up."""

    async def test(side: ClusterSide, finder: PodFinder) -> None:
        one = await missed(side)
        side.api.remove(one.pod.name)
        finder.find(one)
        await side.settle()
        assert one.state is State.ENDED
        assert one.ending is not None
        assert (one.ending.reason, one.ending.cause, one.ending.is_pod_gone) == ("PodDeleted", "infrastructure", True)
        assert side.attempts.changed.take_now() == [one]

    using(test)


def test_a_pod_that_was_made_under_its_name_is_not_its_own() -> None:
    """Its own was deleted: by its uid."""

    async def test(side: ClusterSide, finder: PodFinder) -> None:
        one = await missed(side)
        side.attempts.name_pod(one, Pod(namespace=one.namespace, name=one.pod.name, uid="the one before"))
        finder.find(one)
        await side.settle()
        assert one.ending is not None
        assert one.ending.reason == "PodDeleted"
        assert (one.namespace, one.pod.name) in side.api.pods, "the other one is left alone"

    using(test)


def test_a_pod_that_is_there_and_names_us_is_ours() -> None:
    """The list came from a cache: the attempt goes on, by what the pod says now."""

    async def test(side: ClusterSide, finder: PodFinder) -> None:
        one = await missed(side)
        side.api.end(one.pod.name, exit_code=3)
        finder.find(one)
        await side.settle()
        assert (one.state, one.closed, one.seen.exit_code) == (State.PENDING, None, 3)
        assert not one.is_missing
        assert side.attempts.changed.take_now() == [one]

    using(test)


@pytest.mark.parametrize("owner", ["another", None])
def test_a_pod_that_names_another_is_another_dispatchers_by_now(owner: str | None) -> None:
    """The attempt ends here without a result, and the pod runs on."""

    async def test(side: ClusterSide, finder: PodFinder) -> None:
        one = await missed(side)
        patch = {"metadata": {"labels": {labels.OWNER_LABEL: owner}}}
        await side.api.patch_pod(one.namespace, one.pod.name, patch)
        finder.find(one)
        await side.settle()
        assert (one.closed, one.ending) == (Closed.DROPPED, None)
        assert (one.namespace, one.pod.name) in side.api.pods

    using(test)


@pytest.mark.parametrize(
    "fault",
    [
        errors.ApiUnavailable("no answer"),
        errors.ApiError(403, "Forbidden", "no"),
        errors.ApiError(429, "TooManyRequests", "slow down"),
        errors.ApiError(500, "InternalError", "etcd"),
    ],
    ids=str,
)
def test_without_a_clear_answer_nothing_ends(fault: Exception) -> None:
    """It is looked for again when the next list lacks it, not before."""

    async def test(side: ClusterSide, finder: PodFinder) -> None:
        one = await missed(side)
        side.api.remove(one.pod.name)
        side.api.fail("read_pod", fault)
        finder.find(one)
        await side.settle()
        assert (one.state, one.is_missing) == (State.PENDING, False)
        side.attempts.missed(one)
        finder.find(one)
        await side.settle()
        assert one.state is State.ENDED

    using(test)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_has_ended_meanwhile_keeps_its_end(is_there: bool) -> None:
    """The first verdict stands."""

    async def test(side: ClusterSide, finder: PodFinder) -> None:
        one = await missed(side)
        if not is_there:
            side.api.remove(one.pod.name)
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        gate = side.api.hold("read_pod")
        finder.find(one)
        side.attempts.close(one, Closed.TERMINATED)
        gate.set()
        await side.settle()
        assert (one.closed, one.ending) == (Closed.TERMINATED, None)
        gc.collect()  # what a task has raised is told when nobody holds it any more
        assert faults == []

    using(test)


def test_what_a_list_lacked_is_looked_for_once() -> None:
    """However often the attempt is looked at before the answer comes."""

    async def test(side: ClusterSide, _: PodFinder) -> None:
        one = await missed(side)
        gate = side.api.hold("read_pod")
        for _ in range(3):
            side.reconciler.look(one)
        gate.set()
        await side.settle()
        assert side.api.calls["read_pod"] == 1

    using(test)
