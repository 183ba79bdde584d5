"""The waiting lines: order within a line, turns between queues, and nobody held by a namespace that pauses."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.admission.wait_queues import WaitQueues

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class One:
    """Something that waits."""

    queue: str
    namespace: str
    number: int

    @property
    def received_at(self) -> datetime:
        """In the order of the numbers."""
        return START + timedelta(seconds=self.number)


def drained(lines: WaitQueues[One], may_go: Callable[[One], bool] = lambda _: True) -> list[One]:
    """All that may go, in the order in which it goes."""
    found = []
    while (one := next(filter(may_go, lines.heads()), None)) is not None:
        lines.take(one)
        found.append(one)
    return found


def lines_of(*ones: One) -> WaitQueues[One]:
    """WaitQueues in which those wait."""
    lines: WaitQueues[One] = WaitQueues()
    for one in ones:
        lines.add(one)
    return lines


def test_a_queue_keeps_its_order_over_its_namespaces() -> None:
    """Whose head came first goes first."""
    ones = [One("q", "ab"[number % 2], number) for number in range(6)]
    assert drained(lines_of(*ones)) == ones


def test_what_comes_back_takes_its_old_place() -> None:
    """Parked attempts are put in by the time of receipt, not at the end."""
    first, second, third = (One("q", "a", number) for number in range(3))
    assert drained(lines_of(second, third, first)) == [first, second, third]


def test_a_namespace_that_pauses_holds_no_other_one() -> None:
    """Though its head came first, in the same queue."""
    held, free = One("q", "paused", 1), One("q", "free", 2)
    lines = lines_of(held, free)
    assert drained(lines, lambda one: one.namespace == "free") == [free]
    assert drained(lines) == [held]


def test_queues_take_turns() -> None:
    """A long line does not keep a short one waiting."""
    long = [One("long", "a", number) for number in range(4)]
    short = [One("short", "a", number) for number in range(10, 12)]
    assert [one.queue for one in drained(lines_of(*long, *short))] == ["long", "short", "long", "short", "long", "long"]


def test_a_queue_that_may_not_go_loses_no_turn() -> None:
    """Its turn comes when it may."""
    lines = lines_of(One("a", "n", 1), One("a", "n", 2), One("b", "n", 3), One("b", "n", 4))
    assert [one.queue for one in drained(lines, lambda one: one.queue == "b")] == ["b", "b"]
    assert len(lines) == 2


def test_what_is_withdrawn_is_gone() -> None:
    """A second time it was not there."""
    one = One("q", "a", 1)
    lines = lines_of(one)
    assert (lines.remove(one), lines.remove(one), len(lines)) == (True, False, 0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=30), st.randoms())
def test_nothing_is_lost_and_no_line_is_overtaken(kinds: list[tuple[str, str]], random: object) -> None:
    """However they come in."""
    ones = [One(queue, namespace, number) for number, (queue, namespace) in enumerate(kinds)]
    shuffled = list(ones)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    out = drained(lines_of(*shuffled))
    assert sorted(out, key=lambda one: one.number) == ones
    for queue in "ab":
        assert [one.number for one in out if one.queue == queue] == [one.number for one in ones if one.queue == queue]
