"""When a dispatcher must ask whether an attempt is still its own."""

from dispatcher.watching.takeover import FIRST_AFTER_S
from dispatcher.worker.backend_questions import PING_S
from dispatcher.worker.stall_detector import EVERY_S, LIMIT_S, Moment, StallDetector


def at(mono_s: float, *, suspended_s: float = 0.0) -> Moment:
    return Moment(mono_s=mono_s, boot_mono_s=mono_s + suspended_s)


def test_one_that_turns_has_no_doubt() -> None:
    """Whatever it has had for however long."""
    stalls = StallDetector(at(0))
    for second in range(1, 100):
        stalls.turned(at(second))
    assert not stalls.was_since(0, at(100))


def test_a_stalls_that_ends_just_now_counts() -> None:
    """What was read before may be acted on before the hub has said that it turns again."""
    stalls = StallDetector(at(0))
    assert stalls.was_since(0, at(LIMIT_S + 0.1))
    assert stalls.was_since(LIMIT_S, at(LIMIT_S + 0.1))


def test_what_became_ours_after_it_is_not_in_doubt() -> None:
    """And what was ours before it is, until it was asked for."""
    stalls = StallDetector(at(0))
    stalls.turned(at(60))
    assert stalls.was_since(10, at(61))
    assert not stalls.was_since(60.5, at(61))


def test_a_machine_that_was_suspended_stood_still() -> None:
    """The monotonic clock did not notice."""
    stalls = StallDetector(at(0))
    assert stalls.was_since(0, at(1, suspended_s=30))
    stalls.turned(at(1, suspended_s=30))
    assert stalls.was_since(0.5, at(1.5, suspended_s=30))
    assert not stalls.was_since(1.2, at(1.5, suspended_s=30))


def test_it_is_noticed_before_others_take_its_pods() -> None:
    """They must be unanswered twice, a while apart, before they do."""
    assert LIMIT_S + EVERY_S <= PING_S + FIRST_AFTER_S
