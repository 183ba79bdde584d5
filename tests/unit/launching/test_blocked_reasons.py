"""Blocked reasons: whoever waits for a launch says why, and its numbers are renewed, but not for everybody."""

from typing import Any

from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.states import State
from dispatcher.launching import blocked_reasons
from dispatcher.launching.blocked_reasons import NUMBERS_OF, NUMBERS_S, BlockedReasons
from dispatcher.options import QueueProfile
from tests import builders, fast_time
from tests.cluster_side import ClusterSide

NOW_S = 1e6
PROFILE = QueueProfile(max_pods=1)


def using(test: Any) -> None:
    """Runs a test on the parts of a dispatcher at a fake API server."""

    async def run() -> None:
        side = ClusterSide()
        side.parts.capacity.shared._is_denied = True
        test(side)
        await side.close()

    fast_time.run(run())


def waiting(
    side: ClusterSide, count: int = 1, *, queue: str = "kubernetes", namespace: str = "default"
) -> list[Attempt]:
    """So many in one wait queue, whose limit is one pod."""
    made = [
        builders.queued(side.attempts, number, namespace=namespace, queue=queue, profile=PROFILE)
        for number in range(count)
    ]
    for one in made:
        side.parts.capacity.admission.add(one)
    return made


def fill(side: ClusterSide, queue: str = "kubernetes") -> None:
    """A pod of the queue is there."""
    side.parts.capacity.admission.slots.begin("default", f"there-{queue}", queue)


def explain(side: ClusterSide, reasons: BlockedReasons, now_mono_s: float) -> None:
    """As the launcher does now and then."""
    reasons.explain(side.parts.capacity.admission, side.attempts, now_mono_s=now_mono_s)


def test_everybody_in_a_wait_queue_has_the_reason_of_its_head() -> None:
    """Each wait queue its own."""

    def test(side: ClusterSide) -> None:
        full, free = waiting(side, 3), waiting(side, 2, queue="other")
        fill(side)
        explain(side, BlockedReasons(), NOW_S)
        assert {one.blocked.reason for one in full if one.blocked} == {"QueueLimit"}
        assert all(one.blocked for one in full)
        assert [one.blocked for one in free] == [None, None]

    using(test)


def test_a_reason_that_changes_reaches_all_at_once() -> None:
    """However many wait."""

    def test(side: ClusterSide) -> None:
        many, reasons = waiting(side, NUMBERS_OF + 3), BlockedReasons()
        fill(side)
        explain(side, reasons, NOW_S)
        side.attempts.changed.take_now()
        side.parts.seen_pods.forbidden["default"] = "no"
        explain(side, reasons, NOW_S + 0.1)
        assert {one.blocked.reason for one in many if one.blocked} == {"NotPermitted"}
        assert len(side.attempts.changed.take_now()) == len(many)

    using(test)


def test_numbers_that_change_are_renewed_seldom_and_for_those_in_front() -> None:
    """Each renewal is a row in the database."""

    def test(side: ClusterSide) -> None:
        many, reasons = waiting(side, NUMBERS_OF + 3), BlockedReasons()
        fill(side)
        explain(side, reasons, NOW_S)
        side.attempts.changed.take_now()
        side.parts.capacity.admission.slots.begin("default", "another", "kubernetes")
        explain(side, reasons, NOW_S + NUMBERS_S - 1)
        assert side.attempts.changed.take_now() == []
        explain(side, reasons, NOW_S + NUMBERS_S)
        assert set(side.attempts.changed.take_now()) == set(many[:NUMBERS_OF])
        assert many[0].blocked != many[-1].blocked

    using(test)


def test_a_newcomer_gets_the_reason_at_once_and_the_others_keep_their_numbers() -> None:
    """It has none yet."""

    def test(side: ClusterSide) -> None:
        waiting(side, 2)
        reasons = BlockedReasons()
        fill(side)
        explain(side, reasons, NOW_S)
        side.attempts.changed.take_now()
        (late,) = waiting(side)
        explain(side, reasons, NOW_S + 1)
        assert side.attempts.changed.take_now() == [late]

    using(test)


def test_one_that_was_just_taken_in_is_explained_by_itself() -> None:
    """Or looked at, where nothing holds it: it counts as waiting until it is launched."""

    def test(side: ClusterSide) -> None:
        (held,), (free,) = waiting(side), waiting(side, queue="other")
        fill(side)
        side.attempts.changed.take_now()
        for one in (held, free):
            blocked_reasons.explain(one, side.parts.capacity.admission, side.attempts, now_mono_s=NOW_S)
        assert held.blocked is not None
        assert (held.blocked.reason, free.blocked) == ("QueueLimit", None)
        assert set(side.attempts.changed.take_now()) == {held, free}

    using(test)


def test_what_waits_no_more_or_says_why_already_is_left_alone() -> None:
    """It was launched, or parked, in the same breath."""

    def test(side: ClusterSide) -> None:
        said = builders.queued(side.attempts)
        side.attempts.block(said, BlockedReason("Conflict", "try again"))
        others = [builders.in_state(side.attempts, state) for state in (State.LAUNCHING, State.PENDING, State.ENDED)]
        side.attempts.changed.take_now()
        for one in (said, *others):
            blocked_reasons.explain(one, side.parts.capacity.admission, side.attempts, now_mono_s=NOW_S)
        assert side.attempts.changed.take_now() == []
        assert said.blocked == BlockedReason("Conflict", "try again")

    using(test)
