"""Rows of pods that were deleted while nobody watched are ended, by what the result backend knows; no other row is."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from dispatcher import errors
from dispatcher.attempts import status_store
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.status_store import PodRow, PodStore
from dispatcher.manifests import labels
from dispatcher.watching import lost_pods
from dispatcher.watching.lost_pods import LostPods
from tests import builders, fake_api, fast_time
from tests.cluster_side import OWNER, Answers

pytestmark = pytest.mark.filterwarnings("ignore:Selection of the SingletonThreadPool")  # either class will do

LONG_S = lost_pods.FIRST_AFTER_S + 2.5 * lost_pods.EVERY_S
"""Three rounds."""
OLD = datetime.now(UTC) - timedelta(hours=1)


def row_of(name: str, **fields: Any) -> PodRow:
    """A row of a pod that runs, as it was written an hour ago."""
    usual = {
        "attempt_id": name,
        "retries": 0,
        "deployment": "d",
        "name": f"pod-{name}",
        "namespace": "default",
        "uid": f"uid-{name}",
        "queue": "kubernetes",
        "task": "t",
        "owner": OWNER,
        "phase": "Running",
        "updated_at": OLD,
    }
    return PodRow(**{**usual, **fields})


class World:
    """A dispatcher that has just started, and looks at the table of pods."""

    def __init__(self, api: fake_api.FakeApi | None) -> None:
        self.api = api or fake_api.FakeApi()
        self.answers = Answers()
        self.attempts = Attempts(is_strict=True)
        url = f"sqlite:///file:{uuid4()}?mode=memory&cache=shared&uri=true"
        self.store = PodStore(url)
        status_store.METADATA.create_all(self.store._engine)
        self.lost_pods = LostPods(
            self.api,  # type: ignore[arg-type]
            database_url=url,
            deployment="d",
            owner=OWNER,
            attempts=self.attempts,
            questions=self.answers,
        )

    def add(self, name: str = "a", **fields: Any) -> PodRow:
        """A row, an hour old."""
        row = row_of(name, **fields)
        self.store.save([row])
        return row

    def add_pod(self, row: PodRow) -> PodRow:
        """Its pod is in the cluster, and its row says which."""
        pod = self.api.add_pod(builders.manifest(row.name), row.namespace)
        row = replace(row, uid=pod["metadata"]["uid"])
        self.store.save([row])
        return row

    def phases(self) -> dict[str, str]:
        """Attempt -> the phase of its row."""
        return {row.attempt_id: row.phase for row in self.store.pods()}


def using(test: Callable[[World], Awaitable[Any]], api: fake_api.FakeApi | None = None) -> None:
    """Runs a test while that dispatcher looks for lost pods."""

    async def run() -> None:
        world = World(api)
        running = asyncio.create_task(world.lost_pods.run())
        try:
            await test(world)
            assert not running.done(), "it looks for ever"
        finally:
            running.cancel()
            await asyncio.wait([running])
            world.store.close()
            if world.lost_pods._store is not None:
                world.lost_pods._store.close()

    fast_time.run(run())


@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown", "Succeeded", "Failed"])
def test_a_pod_that_is_gone_without_an_outcome_is_lost(phase: str) -> None:
    """Its failure is stored, and its row says why; not charged to the author. What it left is gone with it."""

    async def test(world: World) -> None:
        row = world.add(phase=phase)
        await asyncio.sleep(LONG_S)
        assert world.answers.lost == [row], "once"
        (ended,) = world.store.pods()
        assert (ended.phase, ended.reason, ended.cause) == ("Lost", "PodDeleted", "infrastructure")
        assert ended.deleted_at is not None

    using(test)


def test_an_outcome_that_is_stored_closes_the_row() -> None:
    """Then its dispatcher was killed between the two."""

    async def test(world: World) -> None:
        world.add("done")
        world.answers.outcomes.add("done")
        await asyncio.sleep(LONG_S)
        assert (world.phases(), world.answers.lost) == ({"done": "Succeeded"}, [])

    using(test)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Lost", "Revoked"])
def test_a_row_whose_end_is_reported_is_done(phase: str) -> None:
    """Whether its pod is there or not."""

    async def test(world: World) -> None:
        row = world.add(phase=phase, reported_at=OLD)
        await asyncio.sleep(LONG_S)
        assert (world.store.pods(), world.answers.lost) == ([row], [])

    using(test)


def test_a_pod_that_is_kept_and_marked_as_done_closes_its_row() -> None:
    """Its dispatcher was killed between the mark and the row: nobody adopts such a pod."""

    async def test(world: World) -> None:
        row = world.add_pod(world.add(phase="Failed"))
        world.api.pods[row.namespace, row.name]["metadata"]["labels"][labels.DONE_LABEL] = "true"
        await asyncio.sleep(LONG_S)
        (kept,) = world.store.pods()
        assert (kept.phase, kept.deleted_at, world.answers.lost) == ("Failed", None, [])
        assert kept.reported_at is not None

    using(test)


def test_a_pod_that_is_there_is_not_lost() -> None:
    """It will be adopted."""

    async def test(world: World) -> None:
        row = world.add_pod(world.add())
        await asyncio.sleep(LONG_S)
        assert world.store.pods() == [row]

    using(test)


def test_a_pod_that_was_replaced_by_one_of_its_name_is_lost() -> None:
    """Its uid says so; where the row knows none, whatever is there may be it."""

    async def test(world: World) -> None:
        replaced = world.add_pod(world.add("replaced"))
        unknown = world.add_pod(world.add("unknown"))
        world.store.save([replace(replaced, uid="the one before"), replace(unknown, uid=None)])
        await asyncio.sleep(LONG_S)
        assert world.phases() == {"replaced": "Lost", "unknown": "Running"}

    using(test)


def test_what_is_in_flight_here_is_left_to_the_watch() -> None:
    """By attempt and retry: another retry of it is another launch."""

    async def test(world: World) -> None:
        builders.launched(world.attempts, task_id="a")
        world.add("a")
        world.add("a", retries=1)
        await asyncio.sleep(LONG_S)
        assert {(row.retries, row.phase) for row in world.store.pods()} == {(0, "Running"), (1, "Lost")}

    using(test)


def test_what_comes_into_flight_while_it_is_looked_for_is_not_lost() -> None:
    """A message that was delivered again meanwhile has the row."""

    async def test(world: World) -> None:
        world.add("a")
        gate = world.api.hold("read_pod")
        await asyncio.sleep(lost_pods.FIRST_AFTER_S + 1)
        builders.launched(world.attempts, task_id="a")
        gate.set()
        await asyncio.sleep(LONG_S)
        assert (world.phases(), world.answers.lost) == ({"a": "Running"}, [])

    using(test)


def test_rows_of_dispatchers_that_live_are_theirs() -> None:
    """Those of one that does not answer are not."""

    async def test(world: World) -> None:
        world.answers.workers = {OWNER, "live@host"}
        world.add("theirs", owner="live@host")
        world.add("gone", owner="gone@host")
        world.add("mine", owner=OWNER)
        await asyncio.sleep(LONG_S)
        assert world.phases() == {"theirs": "Running", "gone": "Lost", "mine": "Lost"}

    using(test)


def test_who_does_not_hear_itself_ends_its_own_rows_alone() -> None:
    """The others may live; the broker cannot say."""

    async def test(world: World) -> None:
        world.answers.workers = None
        world.add("theirs", owner="gone@host")
        world.add("mine")
        await asyncio.sleep(LONG_S)
        assert world.phases() == {"theirs": "Running", "mine": "Lost"}

    using(test)


def test_rows_of_another_deployment_are_never_touched() -> None:
    """Nor such as were written just now, nor such as have ended."""

    async def test(world: World) -> None:
        world.add("other", deployment="another")
        world.add("fresh", updated_at=datetime.now(UTC) + timedelta(seconds=3600))
        world.add("ended", phase="Failed", reported_at=OLD)
        before = world.phases()
        await asyncio.sleep(LONG_S)
        assert (world.phases(), world.api.calls) == (before, {})

    using(test)


def test_what_only_waited_for_a_pod_leaves_no_row() -> None:
    """Its message is delivered again: nothing is stored for it."""

    async def test(world: World) -> None:
        world.add("a", phase="Waiting", uid=None)
        await asyncio.sleep(LONG_S)
        assert (world.phases(), world.answers.lost) == ({}, [])

    using(test)


def test_a_row_that_is_written_while_it_is_looked_at_stands() -> None:
    """By a dispatcher that has taken the pod over."""

    async def test(world: World) -> None:
        row = world.add("a")
        gate = world.api.hold("read_pod")
        await asyncio.sleep(lost_pods.FIRST_AFTER_S + 1)
        world.store.save([replace(row, owner="taker@host", updated_at=datetime.now(UTC) + timedelta(hours=1))])
        gate.set()
        await asyncio.sleep(1)
        (stands,) = world.store.pods()
        assert (stands.owner, stands.phase) == ("taker@host", "Running")

    using(test)


def test_a_result_backend_that_is_away_is_asked_at_the_next_round() -> None:
    """Until then the row stays open."""

    async def test(world: World) -> None:
        world.add("a")
        world.answers.trouble = ConnectionError("away")
        await asyncio.sleep(LONG_S)
        assert world.phases() == {"a": "Running"}
        world.answers.trouble = None
        await asyncio.sleep(lost_pods.EVERY_S)
        assert world.phases() == {"a": "Lost"}

    using(test)


@pytest.mark.parametrize(
    "fault",
    [errors.ApiUnavailable("no answer"), errors.ApiError(429, "F", "slow down"), errors.ApiError(403, "F", "no")],
    ids=str,
)
def test_without_a_clear_answer_nothing_is_lost(fault: Exception) -> None:
    """It is looked for again."""

    async def test(world: World) -> None:
        world.add("a")
        world.api.fail("read_pod", fault, times=2)
        await asyncio.sleep(lost_pods.FIRST_AFTER_S + lost_pods.EVERY_S + 1)
        assert world.phases() == {"a": "Running"}
        await asyncio.sleep(lost_pods.EVERY_S)
        assert world.phases() == {"a": "Lost"}

    using(test)


def test_a_namespace_that_is_refused_leaves_the_others_alone() -> None:
    """Whichever rows are the oldest."""

    class Closed403(fake_api.FakeApi):
        async def read_pod(self, namespace: str, name: str) -> dict[str, Any]:
            if namespace == "closed":
                raise errors.ApiError(403, "Forbidden", "no")
            return await super().read_pod(namespace, name)

    async def test(world: World) -> None:
        world.add("there", namespace="closed", updated_at=OLD - timedelta(hours=1))
        world.add("here")
        await asyncio.sleep(LONG_S)
        assert world.phases() == {"there": "Running", "here": "Lost"}

    using(test, Closed403())


def test_rows_that_stay_as_they_are_hide_no_others() -> None:
    """A crowd of pods that cannot be looked at, older than all, takes one round and no more."""

    class Closed403(fake_api.FakeApi):
        async def read_pod(self, namespace: str, name: str) -> dict[str, Any]:
            if namespace == "closed":
                raise errors.ApiError(403, "Forbidden", "no")
            return await super().read_pod(namespace, name)

    async def test(world: World) -> None:
        older = {"namespace": "closed", "updated_at": OLD - timedelta(hours=1)}
        world.store.save([row_of(f"there-{number}", **older) for number in range(lost_pods.AT_ONCE)])
        world.add("here")
        await asyncio.sleep(LONG_S)
        assert world.phases()["here"] == "Lost"

    using(test, Closed403())


def test_a_database_without_the_table_is_no_end() -> None:
    """It may be migrated later."""

    async def test(world: World) -> None:
        status_store.METADATA.drop_all(world.store._engine)
        await asyncio.sleep(LONG_S)
        status_store.METADATA.create_all(world.store._engine)
        world.add("a")
        await asyncio.sleep(lost_pods.EVERY_S)
        assert world.phases() == {"a": "Lost"}

    using(test)
