"""One launch, step by step, on a fake API server: what each answer leads to, for this attempt and for the others."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.states import State
from dispatcher.manifests import names
from tests import builders
from tests.cluster_side import OWNER, ClusterSide
from tests.memory_claim_store import MemoryClaimStore


def using(test: Callable[[ClusterSide], Awaitable[Any]], **options: Any) -> Any:
    """Runs a test on the parts of a dispatcher at a fake API server."""

    async def run() -> Any:
        side = ClusterSide(**options)
        try:
            return await asyncio.wait_for(test(side), 10)
        finally:
            await side.close()

    return asyncio.run(run())


def submitted(side: ClusterSide, **fields: Any) -> Attempt:
    """One that was taken in, and admitted."""
    one = builders.attempt(**fields)
    side.attempts.add(one)
    side.parts.launcher.submit(one)
    assert one.state is State.QUEUED, one.ending
    return one


async def launch(side: ClusterSide, one: Attempt) -> None:
    """Its turn has come."""
    found = side.parts.capacity.admission.take(1e12)
    assert found is one
    await side.parts.launcher._creation.launch(one, asyncio.Semaphore(1))


def has_slot(side: ClusterSide, one: Attempt) -> bool:
    """Whether it counts against the limits."""
    return side.parts.capacity.admission.slots.has(one.namespace, one.pod.name)


def alone(side: ClusterSide) -> None:
    """No other dispatcher shares the limits."""
    side.parts.capacity.shared._is_denied = True


def test_a_create_makes_the_pod_and_the_attempt_has_its_uid() -> None:
    """And a slot."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        await launch(side, one)
        pod = side.api.pods["default", one.pod.name]
        assert (one.state, one.pod.uid) == (State.PENDING, pod["metadata"]["uid"])
        assert has_slot(side, one)

    using(test)


QUOTA = (
    'pods "a" is forbidden: exceeded quota: small, requested: pods=1,requests.cpu=1, used: pods=2,requests.cpu=2, '
    "limited: pods=2,requests.cpu=2"
)
TOO_LARGE = (
    'pods "a" is forbidden: exceeded quota: q, requested: requests.cpu=9, used: requests.cpu=0, limited: requests.cpu=2'
)


@pytest.mark.parametrize(
    ("error", "states", "reason"),
    [
        (errors.ApiError(403, "Forbidden", QUOTA), {State.PARKED}, "QuotaExceeded"),
        (errors.ApiError(403, "Forbidden", TOO_LARGE), {State.ENDED}, "LargerThanQuota"),
        (errors.ApiError(500, "InternalError", "failed calling webhook x"), {State.QUEUED}, "WebhookUnavailable"),
        (errors.ApiError(400, "BadRequest", "denied the request: no"), {State.ENDED}, "WebhookDenied"),
        (errors.ApiError(403, "Forbidden", "it is being terminated"), {State.ENDED}, "NamespaceTerminating"),
        (errors.ApiError(404, "NotFound", 'namespaces "x" not found'), {State.ENDED}, "NamespaceNotFound"),
        (errors.ApiError(401, "Unauthorized", "Unauthorized"), {State.QUEUED}, "Unauthorized"),
        (errors.ApiError(429, "TooManyRequests", "slow down"), {State.QUEUED}, "TooManyRequests"),
        (errors.ApiError(409, "Conflict", "try again"), {State.QUEUED}, "Conflict"),
        (errors.ApiError(413, "RequestEntityTooLarge", "too large"), {State.ENDED}, "RequestTooLarge"),
        (errors.ApiError(422, "Invalid", "spec.x"), {State.ENDED}, "Invalid"),
        (errors.ApiError(504, "Timeout", "took too long"), {State.QUEUED}, "ApiServerError"),
        (errors.ApiUnavailable("gone"), {State.QUEUED}, "ApiServerUnavailable"),
    ],
)
def test_each_error_parks_or_ends_its_own_attempt(error: Exception, states: set[State], reason: str) -> None:
    """With the reason that people read; what waits is tried again, and made then."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        side.api.fail("create_pod", error)
        await launch(side, one)
        if State.ENDED in states:
            assert one.state is State.ENDED
            assert one.ending is not None
            assert one.ending.reason == reason
            assert not has_slot(side, one)
            return
        assert one.state in (State.PARKED, State.QUEUED)
        assert one.blocked is not None
        assert one.blocked.reason == reason
        await launch(side, one)
        assert one.state is State.PENDING

    using(test)


def test_a_lost_answer_keeps_the_slot_and_finds_the_pod() -> None:
    """One pod, not two."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        side.api.fail("create_pod", errors.ApiUnavailable("lost", was_sent=True), takes_effect=True)
        await launch(side, one)
        assert one.launch.is_in_doubt
        assert has_slot(side, one)
        await launch(side, one)
        assert one.state is State.PENDING
        assert len(side.api.pods) == 1

    using(test)


def test_a_fault_that_nobody_foresaw_parks_that_attempt_alone() -> None:
    """The next one is launched, and the first again after a while."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one, two = submitted(side, number=0), submitted(side, number=1)
        side.api.fail("create_pod", KeyError("metadata"))
        await launch(side, one)
        assert one.state is State.PARKED
        assert one.blocked is not None
        assert (one.blocked.reason, one.blocked.text) == ("LaunchFault", "KeyError: 'metadata'")
        found = side.parts.capacity.admission.take(0.0)
        assert found is two
        await side.parts.launcher._creation.launch(two, asyncio.Semaphore(1))
        assert two.state is State.PENDING
        await launch(side, one)
        assert one.state is State.PENDING

    using(test)


def made_meanwhile(side: ClusterSide, one: Attempt) -> None:
    """The server has done what it was asked to, and its answer is on the way."""
    side.api.add_pod(json.loads(one.launch.manifest))


async def interrupted(side: ClusterSide, one: Attempt, call: str) -> None:
    """Its launch is cancelled while it waits for the answer to a call."""
    found = side.parts.capacity.admission.take(1e12)
    assert found is one
    gate = side.api.hold(call)
    launching = asyncio.create_task(side.parts.launcher._creation.launch(one, asyncio.Semaphore(1)))
    await side.until(lambda: side.api.calls[call])
    if call == "create_pod":
        made_meanwhile(side, one)
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    gate.set()


def begun_anew(side: ClusterSide, one: Attempt) -> None:
    """What the controller does with it once the loops begin anew."""
    side.attempts.park(one, BlockedReason("LaunchInDoubt", "its launch was interrupted"), one.launch)
    side.attempts.queue(one)
    side.parts.launcher.submit(one)


def listed_without_it(side: ClusterSide, one: Attempt) -> None:
    """Its pod came and went while nobody watched, and a list since has not had it."""
    side.api.remove(one.pod.name)
    side.parts.seen_pods.listed(one.namespace, (), asked_mono_s=time.monotonic())


@pytest.mark.parametrize("call", ["create_pod", "put_secret"])
def test_a_create_that_was_cancelled_may_have_worked_and_its_pod_is_looked_for(call: str) -> None:
    """Once the loops begin anew: a pod that came and went in between is lost, and the body runs no second time."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side, profile=builders.QueueProfile(payload="secret"))
        await interrupted(side, one, call)
        assert one.launch.is_in_doubt
        assert one.launch.doubted_mono_s is not None
        assert has_slot(side, one)
        begun_anew(side, one)
        listed_without_it(side, one)
        await launch(side, one)
        assert (one.state, side.api.pods) == (State.ENDED, {})
        assert one.ending is not None
        assert one.ending.reason == "PodLost"

    using(test, claim_store=MemoryClaimStore())


def test_a_create_that_was_cancelled_is_adopted_where_its_pod_is_there() -> None:
    """One pod, not two."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        await interrupted(side, one, "create_pod")
        begun_anew(side, one)
        await launch(side, one)
        assert one.state is State.PENDING
        assert len(side.api.pods) == 1

    using(test, claim_store=MemoryClaimStore())


def test_an_adoption_that_was_cancelled_is_in_doubt_too() -> None:
    """Its pod was there: once it is gone it is lost."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side, profile=builders.QueueProfile(payload="secret"))
        there(side, one)
        await interrupted(side, one, "put_secret")
        begun_anew(side, one)
        listed_without_it(side, one)
        await launch(side, one)
        assert one.ending is not None
        assert one.ending.reason == "PodLost"

    using(test, claim_store=MemoryClaimStore())


def test_a_launch_that_is_cancelled_before_its_create_is_in_no_doubt() -> None:
    """It is launched as if nothing had been, and its slot is free until then."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        found = side.parts.capacity.admission.take(1e12)
        assert found is one
        sends = asyncio.Semaphore(0)
        launching = asyncio.create_task(side.parts.launcher._creation.launch(one, sends))
        await side.until(lambda: side.claims and side.claims.holds(one))
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching
        assert (one.launch.is_in_doubt, one.launch.doubted_mono_s, has_slot(side, one)) == (False, None, False)
        begun_anew(side, one)
        listed_at = time.monotonic()
        side.parts.seen_pods.listed(one.namespace, (), asked_mono_s=listed_at)
        await launch(side, one)
        assert one.state is State.PENDING

    using(test, claim_store=MemoryClaimStore())


def test_a_fault_in_a_create_leaves_open_whether_its_pod_was_made() -> None:
    """As no answer does: where it came and went unseen it is lost, and not run again."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        side.api.fail("create_pod", KeyError("metadata"), takes_effect=True)
        await launch(side, one)
        assert one.launch.doubted_mono_s is not None
        listed_without_it(side, one)
        await launch(side, one)
        assert one.ending is not None
        assert one.ending.reason == "PodLost"

    using(test, claim_store=MemoryClaimStore())


def test_an_answer_that_is_no_pod_is_a_fault_of_that_attempt() -> None:
    """Such as `null` from a proxy: it may have been made, so it keeps its slot."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        real = side.api._created
        side.api._created = lambda *a, **k: real(*a, **k) and None  # type: ignore[assignment,method-assign,func-returns-value]
        await launch(side, one)
        assert (one.state, has_slot(side, one)) == (State.PARKED, True)
        side.api._created = real  # type: ignore[method-assign]
        await launch(side, one)
        assert one.state is State.PENDING
        assert len(side.api.pods) == 1

    using(test)


def there(side: ClusterSide, one: Attempt, **metadata: Any) -> dict[str, Any]:
    """A pod of the attempt's name, made before."""
    labels = {"podyard.dev/owner": names.label_value(OWNER), **metadata.pop("labels", {})}
    return side.api.add_pod(builders.pod_of(one, labels=labels, **metadata))


def test_a_pod_of_ours_that_is_there_is_adopted_with_what_it_says() -> None:
    """Its start may have been seen before anybody had its name."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        pod = there(side, one)
        side.api.run(one.pod.name)
        await launch(side, one)
        assert (one.state, one.pod.uid, one.seen.verdict) == (State.PENDING, pod["metadata"]["uid"], "running")

    using(test)


@pytest.mark.parametrize(
    ("labels", "closed"),
    [
        ({"podyard.dev/owner": "another"}, Closed.DROPPED),
        ({"podyard.dev/done": "true"}, Closed.DROPPED),
    ],
)
def test_a_pod_that_is_anothers_or_done_drops_the_delivery(labels: dict[str, str], closed: Closed) -> None:
    """No second run, and no second result."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        there(side, one, labels=labels)
        await launch(side, one)
        assert one.closed is closed
        assert not has_slot(side, one)

    using(test)


def test_a_name_that_is_taken_fails_and_touches_nobodys_pod() -> None:
    """It says whose to delete."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        pod = there(side, one, annotations={})
        await launch(side, one)
        assert one.state is State.ENDED
        assert one.ending is not None
        assert one.ending.reason == "NameTaken"
        assert side.api.pods["default", one.pod.name]["metadata"]["uid"] == pod["metadata"]["uid"]

    using(test)


def test_a_pod_that_leaves_is_waited_for() -> None:
    """Then one of its own is made."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        old = there(side, one)
        side.api.run(one.pod.name)
        await side.api.delete_pod("default", one.pod.name, uid=None)
        await launch(side, one)
        assert one.state is State.PARKED
        assert one.blocked is not None
        assert one.blocked.reason == "PodLeaving"
        side.api.remove(one.pod.name)
        await launch(side, one)
        assert one.state is State.PENDING
        assert one.pod.uid != old["metadata"]["uid"]

    using(test)


def test_a_secret_that_is_refused_ends_the_attempt() -> None:
    """Its pod could never read its message."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side, profile=builders.QueueProfile(payload="secret"))
        side.api.fail("put_secret", errors.ApiError(422, "Invalid", "metadata.name"))
        await launch(side, one)
        assert one.state is State.ENDED

    using(test)


def test_what_was_revoked_while_it_waited_is_not_made() -> None:
    """Nor is what the result backend has an outcome of, where it was delivered again."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        side.answers.revoked.add(one.id)
        await launch(side, one)
        two = submitted(side, delivery_info={"redelivered": True})
        side.answers.outcomes.add(two.id)
        await launch(side, two)
        assert [one.closed, two.closed, side.api.pods] == [Closed.WITHDRAWN, Closed.DROPPED, {}]

    using(test)


def lost_answer(side: ClusterSide) -> None:
    """The next create works, and nobody hears of it."""
    side.api.fail("create_pod", errors.ApiUnavailable("lost", was_sent=True), takes_effect=True)


def test_a_doubt_outlasts_a_server_that_cannot_be_reached() -> None:
    """The pod of the create before may be there: it keeps its slot, and is looked for before it ends."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        lost_answer(side)
        await launch(side, one)
        side.api.fail("create_pod", errors.ApiUnavailable("connection refused", was_sent=False))
        await launch(side, one)
        assert (one.launch.is_in_doubt, has_slot(side, one), one.launch.may_have_pod) == (True, True, True)
        await launch(side, one)
        assert one.state is State.PENDING
        assert len(side.api.pods) == 1

    using(test)


def test_a_server_that_says_no_gives_the_slot_back_and_the_doubt_stays() -> None:
    """What keeps one namespace from creating must not take the slots of others; its pod is looked for all the same."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        lost_answer(side)
        await launch(side, one)
        side.api.fail("create_pod", errors.ApiError(403, "Forbidden", QUOTA))
        await launch(side, one)
        assert (one.launch.is_in_doubt, has_slot(side, one), one.launch.may_have_pod) == (False, False, True)

    using(test)


@pytest.mark.parametrize("has_worked", [True, False])
def test_what_is_refused_for_good_while_its_pod_may_exist_is_looked_for_first(has_worked: bool) -> None:
    """The server asks its webhooks before it sees that the name is taken: the task may run already."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        side.api.fail("create_pod", errors.ApiUnavailable("lost", was_sent=True), takes_effect=has_worked)
        await launch(side, one)
        side.api.fail("create_pod", errors.ApiError(403, "Forbidden", "denied the request: no latest"))
        await launch(side, one)
        assert one.state is (State.PENDING if has_worked else State.ENDED)

    using(test)


def test_what_is_revoked_while_its_pod_may_exist_is_looked_for_first() -> None:
    """One that is there runs, so it is ended as any other pod; else its outcome would come after the revocation."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        lost_answer(side)
        await launch(side, one)
        side.answers.revoked.add(one.id)
        side.api.fail("read_pod", errors.ApiUnavailable("away"))
        await launch(side, one)
        assert (one.state, one.launch.may_have_pod) == (State.QUEUED, True)
        await launch(side, one)
        assert one.state is State.PENDING
        assert side.api.calls["create_pod"] == 1

    using(test)


@pytest.mark.parametrize("is_taken", [False, True])
def test_what_is_revoked_in_doubt_and_has_no_pod_is_withdrawn(is_taken: bool) -> None:
    """Whoever has its name."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        side.api.fail("create_pod", errors.ApiUnavailable("lost", was_sent=True))
        await launch(side, one)
        side.answers.revoked.add(one.id)
        if is_taken:
            there(side, one, annotations={})
        await launch(side, one)
        assert (one.closed, has_slot(side, one)) == (Closed.WITHDRAWN, False)
        assert len(side.api.pods) == is_taken

    using(test)


def test_a_question_that_fails_parks_its_own_attempt() -> None:
    """Whether it was revoked cannot be told for now."""

    async def test(side: ClusterSide) -> None:
        alone(side)
        one = submitted(side)
        side.answers.revoked = None  # type: ignore[assignment] - a fault that nobody foresaw
        await launch(side, one)
        assert one.state is State.PARKED
        side.answers.revoked = set()
        await launch(side, one)
        assert one.state is State.PENDING

    using(test)
