"""Why attempts that wait are not launched, kept true: each has the reason that holds the head of its wait queue."""

from collections.abc import Iterable
from itertools import islice

from dispatcher.admission.admission import Admission
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State

NUMBERS_S = 10.0
NUMBERS_OF = 100
"""Where a reason stays and only its numbers change, so many of a wait queue get the new ones, and so seldom."""


class BlockedReasons:
    """Remembers when the numbers in the reason of a wait queue were renewed last."""

    def __init__(self) -> None:
        self._renewed_mono_s: dict[tuple[str, str], float] = {}
        """(queue, namespace) -> when."""

    def explain(self, admission: Admission, attempts: Attempts, *, now_mono_s: float) -> None:
        """Gives every attempt in the wait queues the reason that holds now."""
        for queue in admission.queues:
            # Of the head alone: within a wait queue nobody is overtaken, so what holds the head holds all behind it.
            hold = admission.blocked_reason(queue[0], now_mono_s)
            if hold is None:
                continue
            name = (queue[0].queue, queue[0].namespace)
            is_due = now_mono_s - self._renewed_mono_s.get(name, 0.0) >= NUMBERS_S
            renewed: Iterable[Attempt] = islice(queue, NUMBERS_OF) if is_due else ()
            # Each new text is a row to write: numbers that change all the time
            # are written seldom, a new reason at once.
            changed = [one for one in queue if one.blocked is None or one.blocked.reason != hold.reason]
            for attempt in {*changed, *renewed}:
                attempts.block(attempt, hold)
            if is_due:
                self._renewed_mono_s[name] = now_mono_s


def explain(attempt: Attempt, admission: Admission, attempts: Attempts, *, now_mono_s: float) -> None:
    """Says why an attempt that was taken in a moment ago waits, if it does."""
    if attempt.state is not State.QUEUED or attempt.blocked is not None:
        return
    hold = admission.blocked_reason(attempt, now_mono_s)
    if hold is not None:
        attempts.block(attempt, hold)
    else:
        # Nothing holds it, and it has no row yet: it is written as one that is about to be launched.
        attempts.changed.add(attempt)
