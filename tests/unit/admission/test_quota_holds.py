"""What a quota has no room for holds those behind it that ask for the same, and nobody else."""

import pytest

from dispatcher.admission.quota_holds import QuotaHolds
from dispatcher.attempts.attempt import Attempt, Launch
from dispatcher.attempts.registry import Attempts
from tests import builders

GPU = "requests.nvidia.com/gpu"


@pytest.fixture
def attempts() -> Attempts:
    """The attempts of a test."""
    return Attempts(is_strict=True)


def asking(attempts: Attempts, number: int, *resources: str, queue: str = "q", namespace: str = "n") -> Attempt:
    """One whose pod asks for these."""
    made = builders.queued(attempts, number, queue=queue, namespace=namespace)
    attempts.prepare(made, Launch(manifest=b"{}", resources=frozenset(resources)))
    return made


def test_only_what_came_later_in_its_queue_and_asks_for_the_same_is_held(attempts: Attempts) -> None:
    """Small pods go past one that wants a GPU."""
    holds = QuotaHolds()
    first = asking(attempts, 1, "pods", GPU)
    holds.refused(first, frozenset({GPU}), "exceeded quota: gpus")
    held = holds.blocked_reason(asking(attempts, 2, "pods", GPU))
    assert held is not None
    assert held.reason == "QuotaExceeded"
    assert held.text == f"it asks for {GPU} like {first.id}, which came before it: exceeded quota: gpus"
    free = [
        first,
        asking(attempts, 0, "pods", GPU),
        asking(attempts, 2, "pods"),
        asking(attempts, 2, "pods", GPU, queue="other"),
        asking(attempts, 2, "pods", GPU, namespace="other"),
    ]
    assert [holds.blocked_reason(one) for one in free] == [None] * 5


def test_the_hold_ends_with_the_one_that_was_refused(attempts: Attempts) -> None:
    """Whether it was made, or is not there any more."""
    holds = QuotaHolds()
    for end in (attempts.admit, lambda one: attempts.close(one, builders.Closed.WITHDRAWN)):
        first, second = asking(attempts, 1, GPU), asking(attempts, 2, GPU)
        holds.refused(first, frozenset({GPU}), "full")
        assert holds.blocked_reason(second) is not None
        end(first)
        if first.state is builders.State.LAUNCHING:
            assert holds.blocked_reason(second) is not None, "its create is under way"
            attempts.launched(first, first.pod)
        assert holds.blocked_reason(second) is None


def test_the_earliest_that_was_refused_holds(attempts: Attempts) -> None:
    """A later one that was under way when the quota filled up does not take its place."""
    holds = QuotaHolds()
    first, second, third = (asking(attempts, number, GPU) for number in (1, 2, 3))
    holds.refused(first, frozenset({GPU}), "full")
    holds.refused(second, frozenset({GPU}), "full")
    assert holds.blocked_reason(first) is None
    held = holds.blocked_reason(third)
    assert held is not None
    assert first.id in held.text
