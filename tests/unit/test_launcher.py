"""The launcher's table of reactions and its back-off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import errors, launcher


@pytest.mark.parametrize(
    ("status", "reason", "message", "expected"),
    [
        (409, "AlreadyExists", 'pods "x" already exists', "adopt"),
        (409, "Conflict", "the object has been modified", "wait"),
        (403, "Forbidden", 'pods "x" is forbidden: exceeded quota: q, requested: pods=1', "wait"),
        (403, "Forbidden", 'pods is forbidden: User "u" cannot create resource "pods"', "fail"),
        (403, "Forbidden", "unable to create new content in namespace n because it is being terminated", "fail"),
        (401, "Unauthorized", "Unauthorized", "wait"),
        (429, "TooManyRequests", "slow down", "wait"),
        (500, "InternalError", "etcdserver: leader changed", "wait"),
        (503, "ServiceUnavailable", "", "wait"),
        (504, "Timeout", "", "wait"),
        (400, "BadRequest", "", "fail"),
        (404, "NotFound", 'namespaces "n" not found', "fail"),
        (422, "Invalid", "spec.containers[0].image: Required value", "fail"),
    ],
)
def test_each_error_of_a_create_has_one_reaction(status: int, reason: str, message: str, expected: str) -> None:
    """Back-pressure waits, what cannot heal fails, and a name that is taken is looked at."""
    assert launcher.react(errors.ApiError(status, reason, message)).action == expected


def test_no_answer_means_ask_again() -> None:
    """The create may have succeeded: the same name makes asking again safe."""
    assert launcher.react(errors.ApiUnavailable("time-out")) == launcher.Reaction("wait", "ApiServerUnavailable")


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_backoff_grows_within_bounds(failures: int, jitter: float) -> None:
    """Never below half of the first step, never above the cap, never shorter for more failures."""
    delay_s = launcher.backoff_s(failures, jitter=jitter)

    assert launcher.BACKOFF_FIRST_S / 2 <= delay_s <= launcher.BACKOFF_LAST_S
    assert launcher.backoff_s(failures + 1, jitter=jitter) >= delay_s
