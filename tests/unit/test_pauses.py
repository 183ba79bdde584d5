"""Pauses: how long nothing is created after the server said so."""

from dispatcher.limits import Hold
from dispatcher.pauses import EVERYWHERE, Pauses

QUOTA = Hold("QuotaExceeded", "exceeded quota")
BUSY = Hold("TooManyRequests", "slow down")


def test_a_pause_holds_its_namespace_alone() -> None:
    """Another one goes on."""
    pauses = Pauses()
    delay_s = pauses.pause("a", QUOTA, begun_at=0.0, now_s=1.0, wanted_s=0.0, jitter=0.0)
    assert delay_s == 0.5
    assert pauses.hold("a", now_s=1.2, under_way=0) == QUOTA
    assert pauses.hold("b", now_s=1.2, under_way=0) is None
    assert pauses.hold(EVERYWHERE, now_s=1.2, under_way=0) is None
    assert pauses.next_end(1.2) == 1.5
    assert pauses.hold("a", now_s=1.5, under_way=0) is None
    assert pauses.next_end(1.5) is None


def test_creates_that_were_under_way_together_fail_once() -> None:
    """Sixty-four of them are no reason to wait for half a minute."""
    pauses = Pauses()
    delays = [
        pauses.pause("a", QUOTA, begun_at=0.0, now_s=1.0 + number / 100, wanted_s=0.0, jitter=0.0)
        for number in range(64)
    ]
    assert delays[0] == 0.5
    assert max(filter(None, delays)) == 0.5
    assert pauses.pause("a", QUOTA, begun_at=3.0, now_s=3.1, wanted_s=0.0, jitter=0.0) == 1.0


def test_as_long_as_the_server_says() -> None:
    """`Retry-After` wins over a shorter back-off, also in the middle of a pause."""
    pauses = Pauses()
    assert pauses.pause("", BUSY, begun_at=0.0, now_s=1.0, wanted_s=7.0, jitter=1.0) == 7.0
    assert pauses.pause("", BUSY, begun_at=0.0, now_s=2.0, wanted_s=7.0, jitter=1.0) == 7.0
    assert pauses.hold("", now_s=8.9, under_way=0) == BUSY


def test_after_the_pause_one_goes_ahead() -> None:
    """The others follow when it has worked; not where the server only had too much to do."""
    pauses = Pauses()
    pauses.pause("a", QUOTA, begun_at=0.0, now_s=1.0, wanted_s=0.0, jitter=0.0)
    pauses.pause("", BUSY, begun_at=0.0, now_s=1.0, wanted_s=0.0, jitter=0.0)
    assert pauses.hold("a", now_s=2.0, under_way=1) == QUOTA
    assert pauses.hold("", now_s=2.0, under_way=1) is None
    pauses.worked("a", now_s=2.1)
    assert pauses.hold("a", now_s=2.1, under_way=1) is None


def test_a_late_success_ends_no_pause() -> None:
    """It was begun before; but the next failure counts as the first."""
    pauses = Pauses()
    for begun_at in (0.0, 2.0, 4.0):
        pauses.pause("a", BUSY, begun_at=begun_at, now_s=begun_at + 1, wanted_s=0.0, jitter=0.0)
    assert pauses.hold("a", now_s=5.5, under_way=0) == BUSY
    pauses.worked("a", now_s=5.5)
    assert pauses.hold("a", now_s=5.5, under_way=0) == BUSY
    assert pauses.pause("a", BUSY, begun_at=8.0, now_s=8.0, wanted_s=0.0, jitter=0.0) == 0.5
