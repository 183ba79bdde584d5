"""Claims in the result backend: one for each launch, renewed while it waits, given back only where no pod can be."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.launching import claim_client
from dispatcher.launching.claim_client import Claims
from dispatcher.protocol import launch_claim
from tests import builders, fast_time
from tests.memory_claim_store import MemoryClaimStore

ME, OTHER = "me@host", "other@host"
AWAY = ConnectionError("the result backend is away")


class World:
    """The claims of one dispatcher, in a store that others write, too."""

    def __init__(self) -> None:
        self.claim_store = MemoryClaimStore()
        self.claims = Claims(self.claim_store, owner=ME)
        self.attempts = Attempts(is_strict=True)

    def attempt(self, number: int = 0, **fields: Any) -> Attempt:
        """One that waits."""
        return builders.queued(self.attempts, number, **fields)

    def claimed_by(self, owner: str, one: Attempt, **fields: Any) -> str:
        """The claim of another delivery of a launch stands there."""
        claim = launch_claim.Claim(
            **{"token": "theirs", "retries": one.key.retries, "replaced": one.key.replaced, "owner": owner, **fields}
        )
        ((_, _, _),) = self.claim_store.take_launches([(one.id, claim.token, claim.encode())])
        return self.claim_store.claims[one.id]


def using(test: Callable[[World], Awaitable[Any]]) -> Any:
    """Runs a test in a world of its own, whose clock jumps."""

    async def run() -> Any:
        return await test(World())

    return fast_time.run(run())


def test_only_a_backend_that_knows_claims_is_a_claim_store() -> None:
    """Celery's own do not."""
    claim_store = MemoryClaimStore()
    assert claim_client.claim_store_of(claim_store) is claim_store
    assert claim_client.claim_store_of(object()) is None


def test_a_launch_that_nobody_claimed_is_ours_and_may_be_sent() -> None:
    """Until then it is neither."""

    async def test(world: World) -> None:
        one = world.attempt()
        assert not world.claims.holds(one)
        assert not world.claims.is_fresh(one)
        assert await world.claims.take(one) == launch_claim.Answer(age_s=float("inf"))
        assert world.claims.holds(one)
        assert world.claims.is_fresh(one)
        assert (world.claim_store.owner(one.id), world.claim_store.state(one.id)) == (ME, "launching")

    using(test)


def test_a_launch_that_is_anothers_is_answered_with_what_stands_there() -> None:
    """And its age; nothing of it changes."""

    async def test(world: World) -> None:
        one = world.attempt()
        theirs = world.claimed_by(OTHER, one)
        world.claim_store.ages_s[one.id] = 4.0
        assert await world.claims.take(one) == launch_claim.Answer(held=theirs, age_s=4.0)
        assert not world.claims.holds(one)
        assert world.claim_store.claims == {one.id: theirs}

    using(test)


def test_what_has_an_outcome_is_not_claimed() -> None:
    """The answer says so."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claim_store.outcomes.add(one.id)
        answer = await world.claims.take(one)
        assert (answer.held, answer.has_outcome) == (None, True)
        assert not world.claims.holds(one)
        assert world.claim_store.claims == {}

    using(test)


def test_many_are_claimed_in_one_round_trip_and_no_more_than_a_bound() -> None:
    """Those that are wanted while one is under way go together in the next."""

    async def test(world: World) -> None:
        many = [world.attempt(number) for number in range(claim_client.AT_ONCE + 5)]
        answers = await asyncio.gather(*map(world.claims.take, many))
        assert [len(trip) for trip in world.claim_store.trips] == [claim_client.AT_ONCE, 5]
        assert len(answers) == len(many)
        assert all(map(world.claims.holds, many))

    using(test)


def test_one_that_comes_alone_does_not_wait() -> None:
    """Only those that follow it at once do, so that they come together."""

    async def test(world: World) -> None:
        loop = asyncio.get_running_loop()
        one, two, three = (world.attempt(number) for number in range(3))
        began_s = loop.time()
        await world.claims.take(one)
        assert loop.time() - began_s < claim_client.GATHER_S / 2
        await asyncio.gather(world.claims.take(two), world.claims.take(three))
        assert world.claim_store.trips == [[one.id], [two.id, three.id]]

    using(test)


def test_each_that_waits_learns_that_the_backend_is_away_and_may_ask_again() -> None:
    """Nothing is held of it."""

    async def test(world: World) -> None:
        one, two = world.attempt(0), world.attempt(1)
        world.claim_store.fail(AWAY)
        answers = await asyncio.gather(world.claims.take(one), world.claims.take(two), return_exceptions=True)
        assert answers == [AWAY, AWAY]
        assert not world.claims.holds(one)
        await world.claims.take(one)
        assert world.claims.holds(one)

    using(test)


@pytest.mark.parametrize("answers", [[], [(None, 0.0, False)] * 3, [("too", "few")] * 2, None, [None, None]])
def test_an_odd_answer_of_the_backend_leaves_nobody_waiting(answers: Any) -> None:
    """It is as good as none: who asked hears of it, and asks again."""

    class Odd(MemoryClaimStore):
        def take_launches(self, wanted: Any) -> Any:
            return answers if len(wanted) > 1 else super().take_launches(wanted)

    async def test(_: World) -> None:
        claims, attempts = Claims(Odd(), owner=ME), Attempts()
        one, two = builders.queued(attempts), builders.queued(attempts)
        found = await asyncio.gather(claims.take(one), claims.take(two), return_exceptions=True)
        assert all(isinstance(error, Exception) for error in found)
        assert (await claims.take(one)).held is None
        assert claims.holds(one)

    using(test)


def test_who_is_cancelled_while_it_asks_keeps_nobody_else_from_an_answer() -> None:
    """What it claimed is known, and taken back in the end."""

    async def test(world: World) -> None:
        one, two = world.attempt(0), world.attempt(1)
        gate = world.claim_store.hold()
        asking = [asyncio.create_task(world.claims.take(each)) for each in (one, two)]
        await fast_time.until(lambda: world.claim_store.trips)
        asking[0].cancel()
        gate.set()
        assert (await asking[1]).held is None
        assert world.claims.holds(one)
        await world.claims.close()
        assert world.claim_store.claims == {}

    using(test)


def test_who_is_cancelled_before_it_is_asked_for_claims_nothing() -> None:
    """Nobody would give that back."""

    async def test(world: World) -> None:
        one, two, three = world.attempt(0), world.attempt(1), world.attempt(2)
        gate = world.claim_store.hold()
        first = asyncio.create_task(world.claims.take(one))
        await fast_time.until(lambda: world.claim_store.trips)
        second, third = asyncio.create_task(world.claims.take(two)), asyncio.create_task(world.claims.take(three))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, third)
        assert world.claim_store.trips == [[one.id], [three.id]]
        assert set(world.claim_store.claims) == {one.id, three.id}

    using(test)


def test_the_end_waits_for_a_claim_that_is_under_way_and_gives_it_back() -> None:
    """Else it would stand for a dead dispatcher, and its task would count as lost."""

    async def test(world: World) -> None:
        one = world.attempt()
        gate = world.claim_store.hold()
        asking = asyncio.create_task(world.claims.take(one))
        await fast_time.until(lambda: world.claim_store.trips)
        asking.cancel()
        closing = asyncio.create_task(world.claims.close())
        await asyncio.sleep(0)
        gate.set()
        await closing
        assert world.claim_store.claims == {}

    using(test)


def test_an_end_that_is_cut_short_leaves_the_others_their_answers() -> None:
    """The result backend hangs: the controller waits a moment, and goes."""

    async def test(world: World) -> None:
        one = world.attempt()
        gate = world.claim_store.hold()
        asking = asyncio.create_task(world.claims.take(one))
        await fast_time.until(lambda: world.claim_store.trips)
        closing = asyncio.create_task(world.claims.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        gate.set()
        assert (await asking).held is None

    using(test)


def test_a_claim_entitles_to_a_create_for_a_short_time() -> None:
    """Below the lease: who was stopped meanwhile asks again."""

    async def test(world: World) -> None:
        one = world.attempt()
        await world.claims.take(one)
        await asyncio.sleep(launch_claim.FRESH_S - 0.5)
        assert world.claims.is_fresh(one)
        await asyncio.sleep(1)
        assert not world.claims.is_fresh(one)
        assert world.claims.holds(one)
        await world.claims.take(one)
        assert world.claims.is_fresh(one)

    using(test)


def test_the_time_counts_from_when_it_was_asked_for() -> None:
    """An answer that took long entitles to nothing."""

    async def test(world: World) -> None:
        one = world.attempt()
        gate = world.claim_store.hold()
        asking = asyncio.create_task(world.claims.take(one))
        await fast_time.until(lambda: world.claim_store.trips)
        fast_time.skip(launch_claim.FRESH_S)
        gate.set()
        await asking
        assert not world.claims.is_fresh(one)

    using(test)


def test_what_waits_for_its_pod_is_renewed_and_what_has_one_is_not() -> None:
    """Others see that we are at it; one failure ends nothing."""

    async def test(world: World) -> None:
        waits, launched = world.attempt(0), world.attempt(1)
        await asyncio.gather(world.claims.take(waits), world.claims.take(launched))
        world.attempts.admit(launched)
        world.attempts.launched(launched, launched.pod)
        renewing = asyncio.create_task(world.claims.run())
        world.claim_store.trips.clear()
        world.claim_store.fail(AWAY)
        await asyncio.sleep(3 * launch_claim.RENEW_S + 0.5)
        assert world.claim_store.trips == [[waits.id]] * 3
        assert world.claims.is_fresh(waits)
        assert not world.claims.holds(launched)
        renewing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renewing

    using(test)


def test_an_ended_dispatcher_takes_back_what_it_never_sent() -> None:
    """What was sent and not answered stays: its pod may exist."""

    async def test(world: World) -> None:
        unsent, sent = world.attempt(0), world.attempt(1)
        await asyncio.gather(world.claims.take(unsent), world.claims.take(sent))
        world.claims.sent(sent)
        await world.claims.close()
        assert set(world.claim_store.claims) == {sent.id}
        assert world.claims.holds(sent)

    using(test)


def test_a_create_that_was_refused_gives_its_claim_back() -> None:
    """But not while another create of the same launch is unanswered."""

    async def test(world: World) -> None:
        one = world.attempt()
        await world.claims.take(one)
        world.claims.sent(one)
        world.claims.sent(one)
        await world.claims.refused(one)
        assert world.claim_store.owner(one.id) == ME
        await world.claims.refused(one)
        assert (world.claim_store.claims, world.claims.holds(one)) == ({}, False)
        await world.claims.refused(one)  # of what is not held nothing follows

    using(test)


def test_a_claim_that_cannot_be_given_back_harms_nobody() -> None:
    """It stands, and says whose it was; it is not renewed any more."""

    async def test(world: World) -> None:
        one = world.attempt()
        await world.claims.take(one)
        world.claim_store.trouble = AWAY
        await world.claims.give_up(one)
        assert (world.claim_store.owner(one.id), world.claims.holds(one)) == (ME, False)

    using(test)


def test_nobodys_claim_but_our_own_is_given_back() -> None:
    """Another may have taken it over, after a stall of ours."""

    async def test(world: World) -> None:
        one = world.attempt()
        await world.claims.take(one)
        del world.claim_store.claims[one.id]
        theirs = world.claimed_by(OTHER, one)
        await world.claims.give_up(one)
        assert world.claim_store.claims == {one.id: theirs}

    using(test)


def test_the_claim_of_an_earlier_launch_is_replaced_if_it_stands_there_still() -> None:
    """One of several can."""

    async def test(world: World) -> None:
        one = world.attempt(headers={"retries": 1})
        theirs = world.claimed_by(OTHER, one, retries=0)
        assert await world.claims.replace(one, theirs)
        assert world.claim_store.owner(one.id) == ME
        assert world.claims.is_fresh(one)
        assert not await world.claims.replace(one, theirs)

    using(test)


def test_of_several_that_find_a_launch_lost_one_notes_it() -> None:
    """And none where an outcome has come in between."""

    async def test(world: World) -> None:
        one = world.attempt()
        theirs = world.claimed_by(OTHER, one)
        rival = Claims(world.claim_store, owner="rival@host")
        late = builders.queued(Attempts(), task_id=one.id)
        assert await world.claims.lose(one, theirs)
        assert not await rival.lose(late, theirs)
        assert (world.claim_store.owner(one.id), world.claim_store.state(one.id)) == (ME, "lost")
        world.claim_store.outcomes.add(one.id)
        assert not await world.claims.lose(one, one.delivery)

    using(test)


def test_a_loss_whose_answer_was_lost_is_noted_once_and_is_ours() -> None:
    """Asked again it says so: else nobody would report it."""

    async def test(world: World) -> None:
        one = world.attempt()
        theirs = world.claimed_by(OTHER, one)
        world.claim_store.fail(AWAY, takes_effect=True)
        with pytest.raises(ConnectionError):
            await world.claims.lose(one, theirs)
        assert await world.claims.lose(one, theirs)
        assert world.claim_store.state(one.id) == "lost"

    using(test)


@pytest.mark.parametrize("held", ["nothing", "ours", "another delivery of this launch"])
def test_a_message_that_goes_back_leaves_no_claim_of_its_launch(held: str) -> None:
    """Whoever made it, however often the backend is away meanwhile."""

    async def test(world: World) -> None:
        one = world.attempt()
        if held == "ours":
            await world.claims.take(one)
            world.claims.sent(one)
        elif held != "nothing":
            world.claimed_by(OTHER, one)
        world.claim_store.fail(*[AWAY] * 7)
        await world.claims.release(one)
        assert (world.claim_store.claims, world.claims.holds(one)) == ({}, False)

    using(test)


@pytest.mark.parametrize("text", ['{"blocked":true}', '{"worker":"w"}', "?"])
def test_what_is_no_claim_of_this_launch_stays_when_a_message_goes_back(text: str) -> None:
    """A body runs there, or it was withdrawn."""

    async def test(world: World) -> None:
        one = world.attempt()
        world.claim_store.claims[one.id] = text
        await world.claims.release(one)
        assert world.claim_store.claims == {one.id: text}

    using(test)


def test_what_has_ended_is_released_at_once() -> None:
    """Its outcome stands, nobody looks at its claim any more."""

    async def test(world: World) -> None:
        one = world.attempt()
        await world.claims.take(one)
        claim = world.claim_store.claims[one.id]
        world.claim_store.outcomes.add(one.id)
        await world.claims.release(one)
        assert world.claim_store.claims == {one.id: claim}

    using(test)


def test_a_launched_attempt_is_what_the_registry_says() -> None:
    """Whatever is in `UNLAUNCHED` is renewed, parked ones too."""

    async def test(world: World) -> None:
        parked = builders.in_state(world.attempts, State.PARKED)
        await world.claims.take(parked)
        renewing = asyncio.create_task(world.claims.run())
        world.claim_store.trips.clear()
        await asyncio.sleep(launch_claim.RENEW_S + 0.1)
        assert world.claim_store.trips == [[parked.id]]
        renewing.cancel()

    using(test)
