"""The one loop that tries again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import errors, retry

AWAY = errors.ApiUnavailable("away")


class Clock:
    """Sleeps that take no time, and how long they were."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        await asyncio.sleep(0)


def calls(*answers: Any) -> Callable[[], Awaitable[Any]]:
    """A call that gives or raises one answer after the other."""
    left = list(answers)

    async def call() -> Any:
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return call


def tried(*answers: Any, **how: Any) -> tuple[Any, list[float]]:
    """What came out, or the error, and the waits in between."""
    clock = Clock()
    how = {"catch": (errors.ApiError, errors.ApiUnavailable), "backoff": retry.Backoff(jitter=lambda: 0.0)} | how

    async def run() -> Any:
        try:
            return await retry.until_done(calls(*answers), sleep=clock.sleep, **how)
        except (errors.ApiError, errors.ApiUnavailable, KeyError) as error:
            return error

    return asyncio.run(run()), clock.slept


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_backoff_grows_within_bounds(failures: int, jitter: float) -> None:
    """Never below half of the first step, never above the cap, never shorter for more failures."""
    delay_s = retry.backoff_s(failures, jitter=jitter)

    assert retry.FIRST_S / 2 <= delay_s <= retry.LAST_S
    assert retry.backoff_s(failures + 1, jitter=jitter) >= delay_s


def test_a_success_waits_for_nothing() -> None:
    assert tried("pod") == ("pod", [])


def test_failures_are_tried_again_with_growing_waits() -> None:
    assert tried(AWAY, AWAY, AWAY, "pod") == ("pod", [0.5, 1.0, 2.0])


def test_a_foreign_error_passes_through_at_once() -> None:
    """A mistake of ours is no outage."""
    error = KeyError("metadata")
    assert tried(AWAY, error, "pod") == (error, [0.5])


def test_the_last_of_bounded_tries_is_raised() -> None:
    seen: list[retry.Failure] = []
    backoff = retry.Backoff(tries=3, jitter=lambda: 0.0)
    assert tried(AWAY, AWAY, AWAY, "pod", backoff=backoff, on_failure=seen.append) == (AWAY, [0.5, 1.0])
    assert [(failure.failures, failure.delay_s) for failure in seen] == [(1, 0.5), (2, 1.0), (3, None)]


@pytest.mark.parametrize(
    ("retry_after_s", "waited"), [(None, 0.5), (0.0, 0.5), (0.1, 0.5), (7.0, 7.0), (1e9, retry.RETRY_AFTER_LAST_S)]
)
def test_the_servers_word_on_when_to_come_back_is_honoured(retry_after_s: float | None, waited: float) -> None:
    """Retry-After is the least, our own back-off too, and nobody can make us wait for days."""
    busy = errors.ApiError(429, "TooManyRequests", "later", retry_after_s=retry_after_s)
    assert tried(busy, "pod") == ("pod", [waited])


def test_who_is_told_of_a_failure_can_end_the_loop() -> None:
    gone = errors.ApiError(404, "NotFound", "no such pod")

    def note(failure: retry.Failure) -> None:
        if isinstance(failure.error, errors.ApiError) and failure.error.status == 404:
            raise failure.error

    assert tried(AWAY, gone, "pod", on_failure=note) == (gone, [0.5])


def test_a_cancellation_ends_the_loop() -> None:
    async def run() -> None:
        loop = asyncio.create_task(retry.until_done(calls(AWAY, "pod"), catch=errors.ApiUnavailable))
        await asyncio.sleep(0)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop

    asyncio.run(run())


def test_work_that_was_steady_before_it_failed_counts_anew() -> None:
    """A loop that ends once a day is started again each time; one that cannot start is given up."""
    seen: list[int] = []
    backoff = retry.Backoff(tries=2, steady_s=0.0, jitter=lambda: 0.0)
    answer, _ = tried(AWAY, AWAY, AWAY, "done", backoff=backoff, on_failure=lambda one: seen.append(one.failures))
    assert (answer, seen) == ("done", [1, 1, 1])


def waits_of_a_loop(answers: Sequence[Any]) -> list[float]:
    clock = Clock()
    backoff = retry.Backoff(jitter=lambda: 0.0)

    async def run() -> None:
        await retry.forever(calls(*answers), catch=errors.ApiUnavailable, backoff=backoff, sleep=clock.sleep)

    with pytest.raises(IndexError):  # there are no more answers
        asyncio.run(run())
    return clock.slept


def test_a_loop_forgets_failures_with_each_success() -> None:
    assert waits_of_a_loop([AWAY, AWAY, "listed", "listed", AWAY]) == [0.5, 1.0, 0.5]


@given(st.integers(1, 30), st.floats(0, 1))
def test_any_number_of_failures_is_waited_out(failures: int, jitter: float) -> None:
    """One wait for each failure, none longer than the cap."""
    answer, slept = tried(*[AWAY] * failures, "pod", backoff=retry.Backoff(jitter=lambda: jitter))
    assert (answer, len(slept)) == ("pod", failures)
    assert max(slept) <= retry.LAST_S
