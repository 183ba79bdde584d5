"""What becomes of a wait that is too long: it ends, but never while it may run, nor without a clear answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts import endings, wait_rules
from dispatcher.attempts.attempt import Attempt, Closed, Launch
from dispatcher.attempts.states import State
from dispatcher.manifests import labels, names
from dispatcher.watching import deadlines
from dispatcher.watching.deadlines import Deadlines
from tests import builders, fast_time
from tests.cluster_side import OWNER, ClusterSide

MINE = {labels.OWNER_LABEL: names.label_value(OWNER)}


class World:
    """The deadlines of a dispatcher at a fake API server."""

    def __init__(self, **options: Any) -> None:
        self.side = ClusterSide(**options)
        self.api, self.attempts = self.side.api, self.side.attempts
        self.deadlines: Deadlines = self.side.parts.executors.deadlines
        self.admission = self.side.parts.capacity.admission

    def waiting(self, state: State = State.QUEUED, *, is_in_doubt: bool = False, **fields: Any) -> Attempt:
        """One without a pod that waits in its queue, and does so for too long."""
        made = builders.in_state(self.attempts, state, **fields)
        self.attempts.prepare(made, Launch(manifest=b"{}", is_in_doubt=is_in_doubt))
        if state is State.QUEUED:
            self.admission.add(made)
        else:
            self.admission.park(made, until_mono_s=time.monotonic() + 3600)
        self.wait(made, "slot", reason="QueueLimit", detail="max_pods of the queue kubernetes is 1")
        return made

    async def pending(self, **fields: Any) -> Attempt:
        """One with a pod that does not start, and does so for too long."""
        made = await self.side.launched(**fields)
        self.attempts.saw(made, builders.seen(made), uid=made.pod.uid or "")
        self.wait(made, "start", reason="ContainerCreating", detail=None)
        return made

    def wait(self, made: Attempt, kind: str, *, reason: str, detail: str | None) -> None:
        """It has waited for that since the world began."""
        rule = wait_rules.Rule(action="fail", after_s=60.0)
        wait = wait_rules.Wait(
            kind=kind, reason=reason, detail=detail, since_mono_s=0.0, rule=rule, said_by="a setting"
        )
        self.attempts.waits(made, wait)
        self.attempts.changed.take_now()

    async def expire(self, made: Attempt) -> None:
        """Its deadline has come."""
        self.deadlines.expire(made)
        await self.side.settle()

    def is_there(self, made: Attempt) -> bool:
        """Whether a pod of its name is in the cluster."""
        return (made.namespace, made.pod.name) in self.api.pods


def using(test: Callable[[World], Awaitable[Any]], **options: Any) -> None:
    """Runs a test in a world of its own."""

    async def run() -> None:
        world = World(**options)
        try:
            await test(world)
        finally:
            await world.side.close()

    fast_time.run(run())


def reason_of(made: Attempt) -> tuple[Any, Any, Any]:
    """What its ending says: a sentence, whether its pod is gone, and what it is for Celery."""
    assert made.ending is not None
    return made.ending.message, made.ending.is_pod_gone, type(made.ending.result)


# Before there is a pod


@pytest.mark.parametrize("state", [State.QUEUED, State.PARKED])
def test_what_never_had_a_create_ends_at_once(state: State) -> None:
    """It leaves its queue, and says what it waited for; no call is needed."""

    async def test(world: World) -> None:
        one = world.waiting(state)
        world.deadlines.expire(one)
        assert one.state is State.ENDED
        message, is_pod_gone, kind = reason_of(one)
        assert "max_pods of the queue kubernetes is 1" in message
        assert (is_pod_gone, kind) == (False, errors.PodFailed)
        assert (len(world.admission.queues), world.admission._parked, world.api.calls) == (0, {}, {})

    using(test)


@pytest.mark.parametrize("state", [State.QUEUED, State.PARKED])
def test_a_create_without_an_answer_that_made_no_pod_ends_when_that_is_known(state: State) -> None:
    """The API server is asked first."""

    async def test(world: World) -> None:
        one = world.waiting(state, is_in_doubt=True)
        world.deadlines.expire(one)
        assert one.state is State.EXPIRING_LAUNCH
        await world.side.settle()
        assert one.state is State.ENDED
        assert world.api.calls["read_pod"] == 1

    using(test)


def test_a_create_without_an_answer_that_made_its_pod_goes_on() -> None:
    """Into its queue again, from which the launcher finds the pod under its name."""

    async def test(world: World) -> None:
        one = world.waiting(is_in_doubt=True)
        world.api.add_pod(builders.pod_of(one, labels=MINE))
        await world.expire(one)
        assert (one.state, one.ending) == (State.QUEUED, None)
        assert len(world.admission.queues) == 1

    using(test)


def test_a_pod_of_its_name_that_is_another_ones_is_not_its_own() -> None:
    """Known by what the pod says of itself."""

    async def test(world: World) -> None:
        one, other = world.waiting(is_in_doubt=True), builders.attempt()
        pod = builders.pod_of(other, builders.running(), labels=MINE)
        pod["metadata"]["name"] = one.pod.name
        world.api.add_pod(pod)
        await world.expire(one)
        assert one.state is State.ENDED
        assert world.is_there(one)

    using(test)


# With a pod


def test_a_pod_that_does_not_start_is_deleted_first_and_then_the_attempt_ends() -> None:
    """So nothing can run of what is reported as failed."""

    async def test(world: World) -> None:
        one = await world.pending()
        gate = world.api.hold("delete_unchanged")
        world.deadlines.expire(one)
        await asyncio.sleep(1)
        assert (one.state, one.ending) == (State.EXPIRING_POD, None)
        gate.set()
        await world.side.settle()
        assert (one.state, world.is_there(one)) == (State.ENDED, False)
        message, is_pod_gone, kind = reason_of(one)
        assert "ContainerCreating" in message
        assert (is_pod_gone, kind) == (True, errors.PodFailed)

    using(test)


def test_what_its_pod_printed_before_is_saved(tmp_path: Path) -> None:
    """Init containers may have said why."""

    async def test(world: World) -> None:
        one = await world.pending()
        world.api.logs[one.namespace, one.pod.name, "base"] = b"said before\n"
        await world.expire(one)

    using(test, log_folder=tmp_path)
    (saved,) = tmp_path.iterdir()
    assert "said before" in saved.read_text()


@pytest.mark.parametrize("status", [builders.running(), builders.ended(0), builders.ended(1)], ids=["runs", "0", "1"])
def test_a_pod_that_has_started_meanwhile_goes_on(status: dict[str, Any]) -> None:
    """Though the watch has not told it yet; what the API server says is looked at like an event."""

    async def test(world: World) -> None:
        one = await world.pending()
        world.api.set_status(one.pod.name, **status)
        await world.expire(one)
        assert (one.state, one.ending, world.is_there(one)) == (State.PENDING, None, True)
        assert one.started_at is not None
        assert one in world.attempts.changed.take_now()

    using(test)


def test_a_pod_that_starts_just_before_it_is_deleted_goes_on() -> None:
    """The server compares: it is no more as it was read."""

    async def test(world: World) -> None:
        one = await world.pending()
        gate = world.api.hold("delete_unchanged")
        world.deadlines.expire(one)
        await asyncio.sleep(1)
        world.api.run(one.pod.name)
        gate.set()
        await world.side.settle()
        assert (one.state, one.ending, world.is_there(one)) == (State.PENDING, None, True)

    using(test)


def test_a_start_that_the_watch_tells_while_the_pod_is_read_counts() -> None:
    """Nothing is deleted then."""

    async def test(world: World) -> None:
        one = await world.pending()
        gate = world.api.hold("list_events")
        world.deadlines.expire(one)
        await asyncio.sleep(1)
        world.side.saw(one, builders.running())
        gate.set()
        await world.side.settle()
        assert (one.state, world.api.calls["delete_unchanged"], world.is_there(one)) == (State.PENDING, 0, True)

    using(test)


def test_a_pod_that_is_gone_already_is_no_reason_to_wait_on() -> None:
    """Nor is one that was made under its name: that one is left alone."""

    async def test(world: World) -> None:
        gone, replaced = await world.pending(), await world.pending()
        for one in (gone, replaced):
            world.api.remove(one.pod.name)
        world.api.add_pod(builders.pod_of(replaced, labels=MINE))
        for one in (gone, replaced):
            await world.expire(one)
        assert [one.state for one in (gone, replaced)] == [State.ENDED] * 2
        assert (world.is_there(gone), world.is_there(replaced)) == (False, True)

    using(test)


def test_a_pod_that_another_dispatcher_has_is_that_ones_to_end() -> None:
    """Here it is looked for, and dropped."""

    async def test(world: World) -> None:
        one = await world.pending()
        await world.api.patch_pod(one.namespace, one.pod.name, {"metadata": {"labels": {labels.OWNER_LABEL: "you"}}})
        await world.expire(one)
        assert (one.state, one.is_missing, world.is_there(one)) == (State.PENDING, True, True)
        world.side.reconciler.look(one)
        await world.side.settle()
        assert one.closed is Closed.DROPPED

    using(test)


# Without a clear answer


FAULTS = [
    errors.ApiUnavailable("no answer"),
    errors.ApiError(403, "Forbidden", "no"),
    errors.ApiError(429, "TooManyRequests", "slow down"),
    errors.ApiError(500, "InternalError", "etcd"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("has_pod", [True, False])
def test_without_a_clear_answer_nothing_ends(has_pod: bool, fault: Exception) -> None:
    """It is left in peace for a while, and then tried again."""

    async def test(world: World) -> None:
        one = await world.pending() if has_pod else world.waiting(is_in_doubt=True)
        world.api.fail("read_pod", fault)
        await world.expire(one)
        assert (one.state, one.ending) == (State.PENDING if has_pod else State.QUEUED, None)
        for _ in range(3):
            await world.expire(one)
        assert world.api.calls["read_pod"] == 1
        await asyncio.sleep(deadlines.AGAIN_S + 0.1)
        await world.expire(one)
        assert one.state is State.ENDED

    using(test)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_deletion_without_a_clear_answer_ends_nothing(fault: Exception) -> None:
    """Whether it worked is asked the next time."""

    async def test(world: World) -> None:
        one = await world.pending()
        world.api.fail("delete_unchanged", fault, takes_effect=isinstance(fault, errors.ApiUnavailable))
        await world.expire(one)
        assert (one.state, one.ending) == (State.PENDING, None)
        await asyncio.sleep(deadlines.AGAIN_S + 0.1)
        await world.expire(one)
        assert (one.state, world.is_there(one)) == (State.ENDED, False)

    using(test)


def test_what_cannot_be_explained_or_saved_ends_all_the_same() -> None:
    """Events and logs are a help, no condition."""

    async def test(world: World) -> None:
        one = await world.pending()
        world.api.fail("list_events", errors.ApiError(403, "Forbidden", "no"), times=9)
        world.api.fail("read_log", errors.ApiUnavailable("no answer"), times=9)
        await world.expire(one)
        assert (one.state, world.is_there(one)) == (State.ENDED, False)

    using(test)


def test_a_fault_that_nobody_foresaw_leaves_it_where_it_was() -> None:
    """It does not stay between two states."""

    async def test(world: World) -> None:
        one, two = await world.pending(), world.waiting(is_in_doubt=True)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        world.api.fail("read_pod", RuntimeError("a fault"), times=2)
        await world.expire(one)
        await world.expire(two)
        assert (one.state, two.state) == (State.PENDING, State.QUEUED)

    using(test)


# Meanwhile


@pytest.mark.parametrize("has_pod", [True, False])
def test_what_is_revoked_while_it_is_ended_stays_revoked(has_pod: bool) -> None:
    """Celery stores that result itself."""

    async def test(world: World) -> None:
        one = await world.pending() if has_pod else world.waiting(is_in_doubt=True)
        gate = world.api.hold("read_pod")
        world.deadlines.expire(one)
        await asyncio.sleep(1)
        world.attempts.close(one, Closed.TERMINATED, endings.revoked(one))
        gate.set()
        await world.side.settle()
        assert one.closed is Closed.TERMINATED
        assert one.ending == endings.revoked(one)
        assert len(world.admission.queues) == 0

    using(test)


def test_it_is_ended_once_however_often_it_is_looked_at() -> None:
    """While the calls are under way."""

    async def test(world: World) -> None:
        one = await world.pending()
        for _ in range(3):
            world.deadlines.expire(one) if one.state is State.PENDING else world.side.reconciler.look(one)
        await world.side.settle()
        assert (one.state, world.api.calls["delete_unchanged"]) == (State.ENDED, 1)

    using(test)


def test_the_memory_of_tries_goes_with_the_attempts() -> None:
    """It is bounded by what is in flight."""

    async def test(world: World) -> None:
        gone, other = await world.pending(), await world.pending()
        world.api.fail("read_pod", errors.ApiUnavailable("no answer"), times=2)
        await world.expire(gone)
        world.attempts.close(gone, Closed.STORED)
        await world.expire(other)
        assert list(world.deadlines._again_mono_s) == [other]

    using(test)


def test_an_attempt_that_waits_for_nothing_is_not_ended() -> None:
    """It has begun since it was looked at."""

    async def test(world: World) -> None:
        one = await world.pending()
        world.attempts.waits(one, None)
        await world.expire(one)
        world.deadlines.warn(one)
        deadlines.end(world.attempts, one)
        assert (one.state, world.api.calls) == (State.PENDING, {})

    using(test)


# Warnings


def test_a_wait_that_goes_on_is_warned_of_once_for_its_queue_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand that wait for the same are one line, and again after a while."""

    async def test(world: World) -> None:
        same = [world.waiting(task_id=f"a-{number}") for number in range(3)]
        other_queue, other_kind = world.waiting(queue="gpu"), world.waiting()
        world.wait(other_kind, "quota", reason="QuotaExceeded", detail="exceeded quota")
        for one in (*same, other_queue, other_kind):
            world.deadlines.warn(one)
        said = [record.getMessage() for record in caplog.records if "waits too long" in record.getMessage()]
        assert [line.split("reason=")[1].split(":")[0] for line in said] == [
            "QueueLimit",
            "QueueLimit",
            "QuotaExceeded",
        ]
        assert "attempt_id=a-0 queue=kubernetes wait=slot" in said[0]
        await asyncio.sleep(deadlines.WARN_AGAIN_S - 1)
        world.deadlines.warn(same[0])
        assert len([record for record in caplog.records if "waits too long" in record.getMessage()]) == 3
        await asyncio.sleep(2)
        world.deadlines.warn(same[1])
        assert len([record for record in caplog.records if "waits too long" in record.getMessage()]) == 4
        assert all(one.state is State.QUEUED for one in same)

    using(test)


def test_a_pod_that_no_node_takes_is_a_line_as_soon_as_it_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    """One for its queue, with the scheduler's words; a plain Celery task has no other place that says so."""
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu"}

    async def test(world: World) -> None:
        for number in range(3):
            made = await world.side.launched(task_id=f"a-{number}")
            world.side.saw(made, {"phase": "Pending", "conditions": [unscheduled]})
        looks = asyncio.create_task(world.side.reconciler.run())
        await asyncio.sleep(1)
        looks.cancel()
        said = [record.getMessage() for record in caplog.records if "no node takes a pod" in record.getMessage()]
        assert len(said) == 1
        assert said[0].endswith(": 0/1 nodes: cpu")
        assert "queue=kubernetes" in said[0]

    using(test)
