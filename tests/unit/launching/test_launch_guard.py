"""The launch guard: a create is sent only for what may run by what the result backend says; while it is away, none."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.launching import launch_guard
from dispatcher.launching.claim_client import Claims
from dispatcher.launching.launch_guard import LaunchGuard
from dispatcher.protocol import launch_claim
from dispatcher.protocol.launch_claim import Step
from tests import builders, fast_time
from tests.cluster_side import Answers
from tests.memory_claim_store import MemoryClaimStore

ME, OTHER = "me@host", "other@host"
AWAY = ConnectionError("the result backend is away")


class World:
    """A guard, with a store of claims or without."""

    def __init__(self, *, has_claims: bool = True) -> None:
        self.claim_store = MemoryClaimStore()
        self.answers = Answers()
        self.attempts = Attempts(is_strict=True)
        self.claims = Claims(self.claim_store, owner=ME)
        self.guard = LaunchGuard(self.claims if has_claims else None, questions=self.answers, attempts=self.attempts)

    def attempt(self, *, received_at: datetime | None = None, **fields: Any) -> Attempt:
        """One whose turn has come. It was received just now, unless something else is said."""
        made = builders.in_state(self.attempts, State.LAUNCHING, **fields)
        made.received_at = received_at or datetime.now(UTC)
        return made

    def claimed(self, one: Attempt, *, owner: str = OTHER, age_s: float = 0.0, **fields: Any) -> str:
        """Another's claim stands there."""
        given = {"token": "theirs", "retries": one.key.retries, "replaced": one.key.replaced, "owner": owner, **fields}
        claim = launch_claim.Claim(**given)
        self.claim_store.take_launches([(one.id, claim.token, claim.encode())])
        self.claim_store.ages_s[one.id] = age_s
        return self.claim_store.claims[one.id]


def using(test: Callable[[World], Awaitable[Any]], **world: Any) -> Any:
    """Runs a test in a world of its own, whose clock jumps."""

    async def run() -> Any:
        return await test(World(**world))

    return fast_time.run(run())


# --- with claims


def test_what_nobody_has_claimed_is_created_with_our_claim() -> None:
    """The claim stands before the create is sent."""

    async def test(world: World) -> None:
        one = world.attempt()
        assert await world.guard.ask(one) == Step("create", "Claimed")
        assert world.claim_store.owner(one.id) == ME
        assert world.guard.is_fresh(one)

    using(test)


def test_what_has_ended_is_dropped() -> None:
    """It must not run a second time."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claim_store.outcomes.add(one.id)
        assert await world.guard.ask(one) == Step("drop", "Ended")

    using(test)


def test_what_another_has_asked_for_is_looked_for() -> None:
    """However old the claim is."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claimed(one, age_s=1e6)
        assert await world.guard.ask(one) == Step("look", "ClaimedBefore", OTHER)

    using(test)


def test_the_claim_of_an_earlier_launch_makes_room() -> None:
    """A retry is a launch of its own."""

    async def test(world: World) -> None:
        one = world.attempt(headers={"retries": 2})
        world.claimed(one, retries=1)
        assert await world.guard.ask(one) == Step("create", "Claimed")
        assert world.claim_store.owner(one.id) == ME

    using(test)


def test_a_message_of_an_earlier_launch_is_dropped() -> None:
    """It comes late: its task has gone on."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claimed(one, retries=1)
        assert await world.guard.ask(one) == Step("drop", "LaterLaunch", OTHER)

    using(test)


@pytest.mark.parametrize(("text", "reason"), [('{"blocked":true}', "Blocked"), ('{"worker":"w"}', "RunsElsewhere")])
def test_what_is_no_launch_of_a_dispatcher_is_dropped(text: str, reason: str) -> None:
    """It was withdrawn, or a Celery worker has it."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claim_store.claims[one.id] = text
        assert await world.guard.ask(one) == Step("drop", reason)

    using(test)


def test_while_the_result_backend_is_away_it_waits_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """For as long as it takes; one line when that begins, and one when it is over."""
    caplog.set_level(logging.INFO, launch_guard.__name__)

    async def test(world: World) -> None:
        one, two = world.attempt(), world.attempt()
        world.claim_store.trouble = AWAY
        asking = [asyncio.create_task(world.guard.ask(each)) for each in (one, two)]
        await asyncio.sleep(3600)
        assert not any(task.done() for task in asking)
        assert [each.blocked.reason for each in (one, two) if each.blocked] == ["ResultBackendUnavailable"] * 2
        assert one.blocked is not None
        assert one.blocked.text == str(AWAY)
        world.claim_store.trouble = None
        assert {(await task).action for task in asking} == {"create"}

    using(test)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_an_attempt_that_is_cancelled_while_it_waits_claims_nothing_later() -> None:
    """Nothing goes on behind it."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claim_store.trouble = AWAY
        asking = asyncio.create_task(world.guard.ask(one))
        await asyncio.sleep(60)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        world.claim_store.trouble = None
        await asyncio.sleep(60)
        assert (world.claim_store.claims, world.claims.holds(one)) == ({}, False)

    using(test)


def test_a_claim_whose_answer_comes_too_late_is_asked_for_again() -> None:
    """We may have been stopped meanwhile, and others may think so."""

    async def test(world: World) -> None:
        one = world.attempt()
        gate = world.claim_store.hold()
        asking = asyncio.create_task(world.guard.ask(one))
        await fast_time.until(lambda: world.claim_store.trips)
        fast_time.skip(launch_claim.FRESH_S + 1)
        gate.set()
        assert (await asking).action == "create"
        assert len(world.claim_store.trips) == 2
        assert one.blocked is not None
        assert one.blocked.reason == "ResultBackendUnavailable"

    using(test)


def test_a_claim_that_has_waited_for_its_create_is_not_fresh() -> None:
    """Nor is one that was never held anything to be afraid of."""

    async def test(world: World) -> None:
        one, other = world.attempt(), world.attempt()
        await world.guard.ask(one)
        await asyncio.sleep(launch_claim.FRESH_S + 1)
        assert not world.guard.is_fresh(one)
        assert world.guard.is_fresh(other)

    using(test)


# --- with claims: the pod was looked for, and there is none


def test_a_fresh_claim_without_a_pod_is_waited_for() -> None:
    """Its dispatcher is at it."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claimed(one, age_s=launch_claim.LEASE_S - 1)
        assert await world.guard.without_pod(one) == Step("wait", "ClaimedBefore", OTHER)

    using(test)


def test_an_old_claim_without_a_pod_is_lost_and_one_reports_it() -> None:
    """The others wait for the outcome of that."""

    async def test(world: World) -> None:
        one = world.attempt()
        theirs = world.claimed(one, age_s=launch_claim.LEASE_S + 1)
        assert await world.guard.without_pod(one) == Step("report", "PodLost", OTHER)
        assert (world.claim_store.owner(one.id), world.claim_store.state(one.id)) == (ME, "lost")
        rival = builders.queued(Attempts(), task_id=one.id)
        assert not await Claims(world.claim_store, owner="rival@host").lose(rival, theirs)

    using(test)


def test_a_loss_that_another_has_noted_meanwhile_is_waited_for() -> None:
    """That one reports it."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claimed(one, age_s=launch_claim.LEASE_S + 1)
        real = world.claim_store.swap_launch

        def slower(attempt_id: str, held: str, claim: str | None) -> bool:
            rival = launch_claim.Claim(token="rival", retries=0, owner="rival@host", state="lost")
            real(attempt_id, "theirs", rival.encode())
            return real(attempt_id, held, claim)

        world.claim_store.swap_launch = slower  # type: ignore[method-assign]
        assert await world.guard.without_pod(one) == Step("wait", "ClaimedBefore", OTHER)
        assert world.claim_store.owner(one.id) == "rival@host"

    using(test)


def test_a_loss_whose_answer_was_lost_is_reported_and_not_run_again() -> None:
    """To ask for the claim once more would have taken the place of the note, and the body would have run twice."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claimed(one, age_s=launch_claim.LEASE_S + 1)
        real = world.claim_store.swap_launch

        def answer_is_lost(attempt_id: str, held: str, claim: str | None) -> bool:
            world.claim_store.swap_launch = real  # type: ignore[method-assign]
            real(attempt_id, held, claim)
            raise AWAY

        world.claim_store.swap_launch = answer_is_lost  # type: ignore[method-assign]
        assert await world.guard.without_pod(one) == Step("report", "PodLost", OTHER)
        assert world.claim_store.state(one.id) == "lost"

    using(test)


def test_where_nothing_is_claimed_any_more_it_is_created() -> None:
    """Its dispatcher has given it back in the meantime."""

    async def test(world: World) -> None:
        one = world.attempt()
        assert await world.guard.without_pod(one) == Step("create", "Claimed")

    using(test)


def test_what_was_noted_as_lost_by_another_is_reported() -> None:
    """Perhaps it died before it could."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claimed(one, state="lost")
        assert (await world.guard.ask(one)).action == "report"
        assert (await world.guard.without_pod(one)).action == "report"

    using(test)


# --- with claims: our own pod may have come and gone


def test_our_own_pod_that_nobody_saw_is_lost() -> None:
    """Once an outcome stands it is dropped instead."""

    async def test(world: World) -> None:
        one, two = world.attempt(), world.attempt()
        for each in (one, two):
            await world.guard.ask(each)
        assert await world.guard.lose(one) == Step("report", "PodLost", ME)
        world.claim_store.outcomes.add(two.id)
        assert await world.guard.lose(two) == Step("drop", "Ended")

    using(test)


def test_our_own_loss_whose_answer_was_lost_is_reported() -> None:
    """Not dropped: nobody else would tell."""

    async def test(world: World) -> None:
        one = world.attempt()
        await world.guard.ask(one)
        world.claim_store.fail(AWAY, takes_effect=True)
        assert await world.guard.lose(one) == Step("report", "PodLost", ME)

    using(test)


def test_a_claim_goes_back_with_a_refusal_but_not_while_a_create_is_unanswered() -> None:
    """Its pod may exist."""

    async def test(world: World) -> None:
        refused, unanswered, withdrawn = world.attempt(), world.attempt(), world.attempt()
        for one in (refused, unanswered, withdrawn):
            await world.guard.ask(one)
        world.guard.sent(refused)
        world.guard.sent(unanswered)
        await world.guard.refused(refused)
        await world.guard.give_up(unanswered)
        await world.guard.give_up(withdrawn)
        assert set(world.claim_store.claims) == {unanswered.id}

    using(test)


# --- without claims, or of what stores no outcome


def test_what_stores_no_outcome_is_not_claimed() -> None:
    """Nobody could tell whether it ended: the name of its pod is its only claim."""

    async def test(world: World) -> None:
        one = world.attempt(stores_result=False, delivery_info={"redelivered": True})
        world.answers.outcomes.add(one.id)
        assert await world.guard.ask(one) == Step("create", "Unclaimed")
        assert await world.guard.without_pod(one) == Step("create", "Unclaimed")
        assert await world.guard.lose(one) == Step("create", "Unclaimed")
        world.guard.sent(one)
        await world.guard.refused(one)
        await world.guard.give_up(one)
        assert world.guard.is_fresh(one)
        assert (world.claim_store.claims, world.claim_store.trips) == ({}, [])

    using(test)


def test_a_message_that_comes_for_the_first_time_is_created_without_a_question() -> None:
    """That saves a round trip for nearly all."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.answers.trouble = AWAY
        assert await world.guard.ask(one) == Step("create", "Unclaimed")
        assert world.guard.is_fresh(one)

    using(test, has_claims=False)


LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "fields",
    [
        {"delivery_info": {"redelivered": True}},
        {"headers": {"podyard_again": True}},
        {"received_at": LONG_AGO},
    ],
)
def test_what_may_have_been_delivered_before_is_dropped_once_it_has_an_outcome(fields: Any) -> None:
    """It says so itself, or has waited long enough for another dispatcher to have had it."""

    async def test(world: World) -> None:
        ended, fresh = world.attempt(**fields), world.attempt(**fields)
        world.answers.outcomes.add(ended.id)
        assert await world.guard.ask(ended) == Step("drop", "Ended")
        assert await world.guard.ask(fresh) == Step("create", "Unclaimed")

    using(test, has_claims=False)


def test_an_outcome_that_cannot_be_looked_up_is_waited_for() -> None:
    """It says why."""

    async def test(world: World) -> None:
        one = world.attempt(delivery_info={"redelivered": True})
        world.answers.trouble = AWAY
        asking = asyncio.create_task(world.guard.ask(one))
        await asyncio.sleep(600)
        assert not asking.done()
        assert one.blocked is not None
        assert one.blocked.reason == "ResultBackendUnavailable"
        world.answers.trouble = None
        assert await asking == Step("create", "Unclaimed")

    using(test, has_claims=False)


# --- revoked, or expired


def test_what_was_revoked_or_has_expired_is_known() -> None:
    """By Celery's own set, and by the message."""

    async def test(world: World) -> None:
        now = datetime.now(UTC)
        revoked, plain = world.attempt(), world.attempt()
        late, in_time = (
            world.attempt(expires_at=now - timedelta(seconds=1)),
            world.attempt(expires_at=now + timedelta(hours=1)),
        )
        world.answers.revoked.add(revoked.id)
        assert [world.guard.is_revoked(one) for one in (revoked, plain, late, in_time)] == [True, False, True, False]

    using(test)
