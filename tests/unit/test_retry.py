"""The back-off of every loop that speaks to the API server."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher import retry


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_backoff_grows_within_bounds(failures: int, jitter: float) -> None:
    """Never below half of the first step, never above the cap, never shorter for more failures."""
    delay_s = retry.backoff_s(failures, jitter=jitter)

    assert retry.FIRST_S / 2 <= delay_s <= retry.LAST_S
    assert retry.backoff_s(failures + 1, jitter=jitter) >= delay_s
