"""The token bucket: a burst, then a rate."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.admission.token_bucket import TokenBucket


def taken(bucket: TokenBucket, *, until_s: float, step_s: float = 0.01) -> int:
    """How many tokens somebody gets who always wants one."""
    count, now_mono_s = 0, 0.0
    while now_mono_s <= until_s:
        while bucket.wait_s(now_mono_s) == 0:
            bucket.take(now_mono_s)
            count += 1
        now_mono_s += max(step_s, bucket.wait_s(now_mono_s))
    return count


@given(st.floats(0.5, 500), st.integers(1, 200), st.floats(0.5, 20))
def test_a_burst_and_then_the_rate(rate: float, burst: int, seconds: float) -> None:
    """Never more than both together, and what is due is had."""
    count = taken(TokenBucket(rate=rate, burst=burst), until_s=seconds)
    assert count <= burst + rate * seconds + 1
    assert count >= burst
    assert burst > rate / 50 or count >= 1


def test_the_wait_is_as_long_as_one_token_takes() -> None:
    """So a timer needs no second try."""
    bucket = TokenBucket(rate=4, burst=1)
    bucket.take(0.0)
    assert bucket.wait_s(0.0) == 0.25
    assert bucket.wait_s(0.25) == 0


def test_a_quiet_time_saves_up_no_more_than_the_burst() -> None:
    """After a night the server meets a burst, not a night's worth."""
    bucket = TokenBucket(rate=10, burst=3)
    for _ in range(3):
        bucket.take(0.0)
    for _ in range(3):
        assert bucket.wait_s(1000.0) == 0
        bucket.take(1000.0)
    assert bucket.wait_s(1000.0) > 0


def test_no_rate_is_no_limit() -> None:
    """0 turns it off."""
    bucket = TokenBucket(rate=0, burst=1)
    for _ in range(1000):
        assert bucket.wait_s(0.0) == 0
        bucket.take(0.0)
