"""Holdoff: how long nothing is created after the server said so."""

import pytest

from dispatcher.admission.holdoff import EVERYWHERE, IN_A_ROW, RECENT_S, Holdoff
from dispatcher.attempts.limits import BlockedReason

QUOTA = BlockedReason("QuotaExceeded", "exceeded quota")
BUSY = BlockedReason("TooManyRequests", "slow down")


def test_a_pause_holds_its_namespace_alone() -> None:
    """Another one goes on."""
    pauses = Holdoff()
    delay_s = pauses.pause("a", QUOTA, begun_mono_s=0.0, now_mono_s=1.0, wanted_s=0.0, jitter=0.0)
    assert delay_s == 0.5
    assert pauses.blocked_reason("a", now_mono_s=1.2, under_way=0) == QUOTA
    assert pauses.blocked_reason("b", now_mono_s=1.2, under_way=0) is None
    assert pauses.blocked_reason(EVERYWHERE, now_mono_s=1.2, under_way=0) is None
    assert pauses.next_end(1.2) == 1.5
    assert pauses.blocked_reason("a", now_mono_s=1.5, under_way=0) is None
    assert pauses.next_end(1.5) is None


def test_creates_that_were_under_way_together_fail_once() -> None:
    """Sixty-four of them are no reason to wait for half a minute."""
    pauses = Holdoff()
    delays = [
        pauses.pause("a", QUOTA, begun_mono_s=0.0, now_mono_s=1.0 + number / 100, wanted_s=0.0, jitter=0.0)
        for number in range(64)
    ]
    assert delays[0] == 0.5
    assert max(filter(None, delays)) == 0.5
    assert pauses.pause("a", QUOTA, begun_mono_s=3.0, now_mono_s=3.1, wanted_s=0.0, jitter=0.0) == 1.0


def test_as_long_as_the_server_says() -> None:
    """`Retry-After` wins over a shorter back-off, also in the middle of a pause."""
    pauses = Holdoff()
    assert pauses.pause("", BUSY, begun_mono_s=0.0, now_mono_s=1.0, wanted_s=7.0, jitter=1.0) == 7.0
    assert pauses.pause("", BUSY, begun_mono_s=0.0, now_mono_s=2.0, wanted_s=7.0, jitter=1.0) == 7.0
    assert pauses.blocked_reason("", now_mono_s=8.9, under_way=0) == BUSY


def test_after_the_pause_one_goes_ahead() -> None:
    """The others follow when it has worked; not where the server only had too much to do."""
    pauses = Holdoff()
    pauses.pause("a", QUOTA, begun_mono_s=0.0, now_mono_s=1.0, wanted_s=0.0, jitter=0.0)
    pauses.pause("", BUSY, begun_mono_s=0.0, now_mono_s=1.0, wanted_s=0.0, jitter=0.0)
    assert pauses.blocked_reason("a", now_mono_s=2.0, under_way=1) == QUOTA
    assert pauses.blocked_reason("", now_mono_s=2.0, under_way=1) is None
    pauses.worked("a", now_mono_s=2.1)
    assert pauses.blocked_reason("a", now_mono_s=2.1, under_way=1) is None


def test_a_late_success_ends_no_pause() -> None:
    """It was begun before; but the next failure counts as the first."""
    pauses = Holdoff()
    for begun_mono_s in (0.0, 2.0, 4.0):
        pauses.pause("a", BUSY, begun_mono_s=begun_mono_s, now_mono_s=begun_mono_s + 1, wanted_s=0.0, jitter=0.0)
    assert pauses.blocked_reason("a", now_mono_s=5.5, under_way=0) == BUSY
    pauses.worked("a", now_mono_s=5.5)
    assert pauses.blocked_reason("a", now_mono_s=5.5, under_way=0) == BUSY
    assert pauses.pause("a", BUSY, begun_mono_s=8.0, now_mono_s=8.0, wanted_s=0.0, jitter=0.0) == 0.5


def _alone_s(
    pauses: Holdoff, hold: BlockedReason, *, now_mono_s: float, wanted_s: float = 0.0, failures: int = 1
) -> float | None:
    return pauses.alone_s("a", hold, failures=failures, now_mono_s=now_mono_s, wanted_s=wanted_s, jitter=0.0)


def test_a_failure_among_creates_that_work_waits_by_itself() -> None:
    """As long as the server says, or longer each time; the others are not held."""
    pauses = Holdoff()
    pauses.worked("a", now_mono_s=1.0)
    assert _alone_s(pauses, BUSY, now_mono_s=1.1, wanted_s=7.0) == 7.0
    assert _alone_s(pauses, BUSY, now_mono_s=1.2, failures=3) == 2.0
    assert pauses.blocked_reason("a", now_mono_s=1.2, under_way=1) is None


def test_failures_in_a_row_are_about_the_server() -> None:
    """A success between them makes them single ones again."""
    pauses = Holdoff()
    pauses.worked("a", now_mono_s=1.0)
    waits = [_alone_s(pauses, BUSY, now_mono_s=1.1) for _ in range(IN_A_ROW + 1)]
    assert waits == [0.5] * IN_A_ROW + [None]
    pauses.worked("a", now_mono_s=1.2)
    assert _alone_s(pauses, BUSY, now_mono_s=1.3) == 0.5


@pytest.mark.parametrize(
    ("hold", "now_mono_s"), [(QUOTA, 1.1), (BUSY, 1.1 + RECENT_S), (BlockedReason("Unauthorized", ""), 1.1)], ids=str
)
def test_what_concerns_every_request_pauses_at_once(hold: BlockedReason, now_mono_s: float) -> None:
    """A quota, a token, and whatever fails where nothing has worked for a while."""
    pauses = Holdoff()
    pauses.worked("a", now_mono_s=1.0)
    assert _alone_s(pauses, hold, now_mono_s=now_mono_s) is None


def test_nothing_waits_by_itself_while_its_namespace_pauses() -> None:
    """It lines up with the others."""
    pauses = Holdoff()
    pauses.worked("a", now_mono_s=1.0)
    pauses.pause("a", QUOTA, begun_mono_s=1.0, now_mono_s=1.1, wanted_s=0.0, jitter=0.0)
    assert _alone_s(pauses, BUSY, now_mono_s=1.2) is None
