"""The outbox of results: nothing is lost while the result backend is away, and nothing is tried against it."""

import threading
from typing import Any

import pytest

from dispatcher.worker import result_outbox
from dispatcher.worker.result_outbox import ResultOutbox

AWAY = ConnectionError("the result backend is away")


class Backend:
    """Answers probes, or does not."""

    part = "result backend"

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.probes = 0
        self.gate = threading.Event()
        self.gate.set()

    def run(self) -> None:
        self.probes += 1
        self.gate.wait(10)
        if self.trouble is not None:
            raise self.trouble


class Box:
    """An outbox, and the time."""

    def __init__(self) -> None:
        self.backend = Backend()
        self.outbox = ResultOutbox(self.backend)
        self.now_mono_s = 100.0

    def failed(self, what: Any, *, failures: int = 0, error: Exception = AWAY) -> None:
        """It was tried, and not stored."""
        self.outbox.failed(what, failures=failures, error=error, now_mono_s=self.now_mono_s)

    def turn(self) -> list[tuple[Any, int]]:
        """What may be tried now."""
        return [(entry.what, entry.failures) for entry in self.outbox.turn(now_mono_s=self.now_mono_s)]

    def probed(self) -> None:
        """A probe is sent, and answered or not."""
        self.now_mono_s += result_outbox.LAST_S
        before = self.backend.probes
        assert self.turn() == []
        assert self.outbox._probing is not None
        self.outbox._probing.exception(timeout=10)
        assert self.backend.probes == before + 1
        assert self.turn() == []


@pytest.fixture
def box() -> Box:
    """An outbox whose backend answers."""
    return Box()


def test_an_outbox_without_entries_asks_nobody(box: Box) -> None:
    """A turn costs nothing."""
    assert (box.outbox.is_idle, box.outbox.is_away, len(box.outbox)) == (True, False, 0)
    assert box.turn() == []
    assert box.backend.probes == 0


def test_after_the_first_failure_the_backend_is_away_and_nothing_is_tried(box: Box) -> None:
    """Each try would block Celery's hub for a time-out."""
    box.failed("a")
    box.outbox.keep("b")
    assert (box.outbox.is_away, box.outbox.is_idle, len(box.outbox)) == (True, False, 2)
    assert box.turn() == []


def test_all_that_was_kept_comes_again_in_order_with_the_first_answer(box: Box) -> None:
    """With one failure more for what was tried."""
    box.failed("a", failures=2)
    box.outbox.keep("b")
    box.outbox.keep("c", failures=1)
    box.probed()
    assert not box.outbox.is_away
    assert box.turn() == [("a", 3), ("b", 0), ("c", 1)]
    assert (box.outbox.is_idle, len(box.outbox)) == (True, 0)


def test_probes_are_sent_one_at_a_time_and_not_at_once(box: Box) -> None:
    """A server that comes up is not greeted by a flood."""
    box.failed("a")
    box.turn()
    assert box.backend.probes == 0
    box.backend.gate.clear()
    box.now_mono_s += result_outbox.LAST_S
    for _ in range(5):
        box.turn()
        box.now_mono_s += 60
    assert box.backend.probes == 1
    box.backend.gate.set()


def test_while_probes_fail_they_become_fewer_and_nothing_is_given_out(box: Box) -> None:
    """Up to a bound: it is noticed soon that the backend is back."""
    box.backend.trouble = AWAY
    box.failed("a")
    pauses = []
    for _ in range(8):
        before = box.outbox._probe_mono_s
        box.probed()
        pauses.append(box.outbox._probe_mono_s - box.now_mono_s)
        assert box.outbox._probe_mono_s > before
    assert pauses[0] < pauses[-1] <= result_outbox.LAST_S
    assert box.outbox.is_away
    box.backend.trouble = None
    box.probed()
    assert box.turn() == [("a", 1)]


def test_what_fails_although_the_backend_answers_waits_alone(box: Box) -> None:
    """It delays nobody, and is tried ever more seldom."""
    box.failed("bad")
    box.outbox.keep("good")
    box.probed()
    assert [what for what, _ in box.turn()] == ["bad", "good"]
    box.failed("bad", failures=1, error=ValueError("it has a trouble of its own"))
    assert (box.outbox.is_away, len(box.outbox)) == (False, 1)
    assert box.turn() == []
    box.now_mono_s += result_outbox.ALONE_LAST_S
    assert box.turn() == [("bad", 2)]


def test_a_second_failure_after_an_answer_means_that_it_is_away_again(box: Box) -> None:
    """The first could have been its own; the others were not even tried."""
    for what in ("a", "b", "c"):
        box.outbox.keep(what)
    box.failed("first")
    box.probed()
    box.turn()
    box.failed("a")
    box.failed("b")
    box.outbox.requeue([result_outbox.OutboxEntry("c")])
    assert box.outbox.is_away
    box.now_mono_s += result_outbox.ALONE_LAST_S
    box.probed()
    assert [what for what, _ in box.turn()] == ["a", "c", "b"]


def test_one_that_was_stored_proves_that_the_backend_takes_results(box: Box) -> None:
    """A failure after it is one of the backend."""
    box.failed("a")
    box.probed()
    box.turn()
    box.outbox.tried()
    box.failed("b")
    assert box.outbox.is_away


def test_what_a_turn_gave_and_was_not_tried_keeps_its_place(box: Box) -> None:
    """Before what came later."""
    for what in ("a", "b", "c"):
        box.outbox.keep(what)
    entries = box.outbox.turn(now_mono_s=box.now_mono_s)
    box.outbox.keep("d")
    box.outbox.requeue(entries[1:])
    assert [what for what, _ in box.turn()] == ["b", "c", "d"]


def test_a_turn_gives_no_more_than_the_hub_may_do_at_once(box: Box) -> None:
    """Something else wants its turn, too; the rest follows."""
    for number in range(result_outbox.AT_ONCE + 1):
        box.outbox.keep(number)
    assert len(box.turn()) == result_outbox.AT_ONCE
    assert box.turn() == [(result_outbox.AT_ONCE, 0)]


def test_a_backend_that_goes_away_again_is_waited_for_anew(box: Box) -> None:
    """With the short pauses of a beginning."""
    box.backend.trouble = AWAY
    box.failed("a")
    for _ in range(5):
        box.probed()
    box.backend.trouble = None
    box.probed()
    box.turn()
    box.outbox.tried()
    box.failed("a", failures=1)
    assert box.outbox._probe_mono_s - box.now_mono_s <= result_outbox.FIRST_S


def test_a_call_that_failed_and_need_not_come_again_says_that_the_backend_is_away(box: Box) -> None:
    """Nothing is kept of it; the first answer ends it."""
    for _ in range(2):
        box.outbox.noticed(AWAY, now_mono_s=box.now_mono_s)
    assert (box.outbox.is_away, box.outbox.is_idle, len(box.outbox)) == (True, False, 0)
    box.probed()
    assert (box.outbox.is_away, box.turn()) == (False, [])
