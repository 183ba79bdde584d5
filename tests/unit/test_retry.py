"""The one loop that tries again."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import errors, retry

AWAY = errors.ApiUnavailable("away")
API = (errors.ApiError, errors.ApiUnavailable)
STEADY = {"first_s": 0.001, "last_s": 0.004, "has_jitter": False}
"""Waits that a test can sit out; their lengths are what counts."""


def calls(*answers: Any) -> Callable[[], Any]:
    """A call that gives or raises one answer after the other."""
    left = list(answers)

    def call() -> Any:
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return call


def tried(*answers: Any, is_endless: bool = False, **how: Any) -> tuple[Any, list[float]]:
    """What came out, or the error, and the waits in between."""
    call, waits = calls(*answers), []
    backoff = retry.Backoff(**(STEADY | how))

    async def run() -> Any:
        try:
            async for one in retry.Tries(API, backoff=backoff, is_endless=is_endless):
                with one:
                    answer = call()
                if one.error is not None:
                    waits.append(one.delay_s)
        except (*API, KeyError, IndexError) as error:
            return error
        return answer

    return asyncio.run(run()), waits


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_backoff_grows_within_bounds(failures: int, jitter: float) -> None:
    """Never below half of the first step, never above the cap, never shorter for more failures."""
    delay_s = retry.backoff_s(failures, jitter=jitter)

    assert retry.FIRST_S / 2 <= delay_s <= retry.LAST_S
    assert retry.backoff_s(failures + 1, jitter=jitter) >= delay_s


def test_a_success_waits_for_nothing() -> None:
    assert tried("pod") == ("pod", [])


def test_failures_are_tried_again_with_growing_waits() -> None:
    assert tried(AWAY, AWAY, AWAY, AWAY, "pod") == ("pod", [0.001, 0.002, 0.004, 0.004])


def test_the_loop_waits_as_long_as_it_says() -> None:
    begun_s = time.monotonic()
    assert tried(AWAY, "pod", first_s=0.05, last_s=0.05) == ("pod", [0.05])
    assert time.monotonic() - begun_s >= 0.05


def test_a_thread_waits_in_the_same_loop() -> None:
    """The worker's child and the command line have no event loop."""
    call, waits, begun_s = calls(AWAY, AWAY, "pod"), [], time.monotonic()
    for one in retry.Tries(errors.ApiUnavailable, backoff=retry.Backoff(**STEADY | {"first_s": 0.02, "last_s": 0.03})):
        with one:
            answer = call()
        waits.append((one.error, one.delay_s))
    assert (answer, waits) == ("pod", [(AWAY, 0.02), (AWAY, 0.03), (None, 0.0)])
    assert time.monotonic() - begun_s >= 0.05


def test_a_foreign_error_passes_through_at_once() -> None:
    """A mistake of ours is no outage."""
    error = KeyError("metadata")
    assert tried(AWAY, error, "pod") == (error, [0.001])


def test_the_last_of_bounded_tries_is_raised() -> None:
    assert tried(AWAY, AWAY, AWAY, "pod", tries=3) == (AWAY, [0.001, 0.002])


@pytest.mark.parametrize(
    ("retry_after_s", "waited"), [(None, 0.5), (0.0, 0.5), (0.1, 0.5), (7.0, 7.0), (1e9, retry.RETRY_AFTER_LAST_S)]
)
def test_the_servers_word_on_when_to_come_back_is_honoured(retry_after_s: float | None, waited: float) -> None:
    """Retry-After is the least, our own back-off too, and nobody can make us wait for days."""
    busy = errors.ApiError(429, "TooManyRequests", "later", retry_after_s=retry_after_s)
    assert retry.Backoff(has_jitter=False).delay_s(1, error=busy) == waited
    assert tried(errors.ApiError(429, "TooManyRequests", "later", retry_after_s=0.02), "pod") == ("pod", [0.02])


def test_whoever_sees_a_failure_can_end_the_loop() -> None:
    gone = errors.ApiError(404, "NotFound", "no such pod")
    call, seen = calls(AWAY, gone, "pod"), []

    async def run() -> None:
        async for one in retry.Tries(API, backoff=retry.Backoff(**STEADY)):
            with one:
                call()
            seen.append(one.error)
            if isinstance(one.error, errors.ApiError) and one.error.status == 404:
                raise one.error

    with pytest.raises(errors.ApiError):
        asyncio.run(run())
    assert seen == [AWAY, gone]


def test_a_cancellation_ends_the_loop() -> None:
    """While it waits, and while it works: it is never taken for a failure."""

    async def run(work_s: float) -> None:
        async def work() -> None:
            async for one in retry.Tries(Exception):
                with one:
                    await asyncio.sleep(work_s)
                    raise AWAY

        loop = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop

    asyncio.run(run(0.0))
    asyncio.run(run(60.0))


def test_work_that_was_steady_before_it_failed_counts_anew() -> None:
    """A loop that ends once a day is started again each time; one that cannot start is given up."""
    assert tried(AWAY, AWAY, AWAY, "done", tries=2, steady_s=0.0) == ("done", [0.001, 0.001, 0.001])


def test_a_loop_forgets_failures_with_each_success() -> None:
    """What is to go on for ever begins again at once after a success."""
    end = IndexError("pop from empty list")
    out, waits = tried(AWAY, AWAY, "listed", "listed", AWAY, is_endless=True)
    assert (repr(out), waits) == (repr(end), [0.001, 0.002, 0.001])


@given(st.integers(1, 30))
def test_any_number_of_failures_is_waited_out(failures: int) -> None:
    """One wait for each failure, none longer than the cap, none shorter than half of the first."""
    answer, waits = tried(*[AWAY] * failures, "pod", first_s=1e-5, last_s=1e-4, has_jitter=True)
    assert (answer, len(waits)) == ("pod", failures)
    assert min(waits) >= 0.5e-5
    assert max(waits) <= 1e-4
