"""The registry: every move by the table, whatever happens, and indexes and counts that follow."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.attempts import states
from dispatcher.attempts.attempt import Attempt, Closed, Ending, Launch, Pod
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import Move, State
from tests import builders

HOLD = BlockedReason("QuotaExceeded", "pods")
MOVES: dict[Move, Callable[[Attempts, Attempt], bool]] = {
    Move.ADMIT: lambda attempts, one: attempts.admit(one),
    Move.PARK: lambda attempts, one: attempts.park(one, HOLD, Launch(failures=1)),
    Move.QUEUE: lambda attempts, one: attempts.queue(one),
    Move.LAUNCHED: lambda attempts, one: attempts.launched(one, replace(one.pod, uid="a-uid")),
    Move.STARTED: lambda attempts, one: attempts.started(one),
    Move.COLLECT: lambda attempts, one: attempts.collect(one),
    Move.EXPIRE: lambda attempts, one: attempts.expire(one),
    Move.RESUME: lambda attempts, one: attempts.resume(one),
    Move.END: lambda attempts, one: attempts.end(one, Ending()),
    Move.CLOSE: lambda attempts, one: attempts.close(one, Closed.STORED),
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("move", list(Move))
def test_a_move_does_what_the_table_says(state: State, move: Move, caplog: pytest.LogCaptureFixture) -> None:
    """And what the table does not know raises where the registry is strict, and is logged and refused where not."""
    to = states.after(state, move)
    strict = Attempts(is_strict=True)
    one = builders.in_state(strict, state)
    if to is not None:
        assert MOVES[move](strict, one)
        assert one.state is to
        return
    lenient = Attempts()
    other = builders.in_state(lenient, state)
    if (state, move) == (State.CLOSED, Move.CLOSE):  # a second close is no fault
        assert not MOVES[move](strict, one)
        assert not MOVES[move](lenient, other)
        return
    with pytest.raises(states.IllegalMoveError, match=f"{one.id}: {move} in the state {state}"):
        MOVES[move](strict, one)
    before = dict(vars(other))
    with caplog.at_level(logging.ERROR):
        assert not MOVES[move](lenient, other)
    assert vars(other) == before
    assert f"attempt_id={other.id} state={state} move={move}" in caplog.text


def test_one_launch_is_in_flight_once() -> None:
    """A second delivery of the same launch is refused, a later launch of the same task is another one."""
    attempts = Attempts(is_strict=True)
    first = builders.queued(attempts, task_id="a")
    assert not attempts.add(builders.attempt(task_id="a"))
    again = builders.queued(attempts, task_id="a", headers={"retries": 1})
    assert (list(attempts), len(attempts)) == ([first, again], 2)
    assert attempts.get(first.key) is first


def test_an_attempt_is_found_by_key_delivery_and_pod_until_it_is_closed() -> None:
    """Afterwards nobody finds it, and one of its name takes its place."""
    attempts = Attempts(is_strict=True)
    one = builders.launched(attempts)
    found = [attempts.get(one.key), attempts.of_delivery(one.delivery), attempts.of_pod("default", one.pod.name)]
    assert found == [one, one, one]
    attempts.close(one, Closed.STORED)
    assert len(attempts) == 0
    assert attempts.get(one.key) is attempts.of_delivery(one.delivery) is None
    assert attempts.of_pod("default", one.pod.name) is None
    attempts.name_pod(one, one.pod)  # an answer that comes late
    assert attempts.of_pod("default", one.pod.name) is None


def test_what_an_old_attempt_does_leaves_a_new_one_of_its_name_alone() -> None:
    """The pod's name is wanted again after a requeue."""
    attempts = Attempts(is_strict=True)
    old = builders.launched(attempts, task_id="a")
    attempts.close(old, Closed.STORED)
    new = builders.queued(attempts, task_id="a")
    assert not attempts.close(old, Closed.STORED)
    assert attempts.of_pod("default", new.pod.name) is new


def test_the_name_counts_before_the_create_is_answered() -> None:
    """The pod's first event may be faster than the answer."""
    attempts = Attempts(is_strict=True)
    one = builders.queued(attempts)
    assert attempts.of_pod("default", one.pod.name) is one
    assert one.pod.uid is None


def test_a_manifest_is_kept_until_nobody_needs_it() -> None:
    """Ten thousand of them are memory."""
    attempts = Attempts(is_strict=True)
    assert builders.in_state(attempts, State.PARKED).launch.manifest
    assert not builders.in_state(attempts, State.PENDING).launch.manifest
    assert not builders.in_state(attempts, State.ENDED).launch.manifest


def test_what_changes_is_looked_at_once() -> None:
    """However often it has changed; the same reason again is no change."""
    attempts = Attempts(is_strict=True)
    one, two = builders.queued(attempts), builders.queued(attempts)
    attempts.block(one, HOLD)
    attempts.block(two, HOLD)
    attempts.block(one, BlockedReason("QueueLimit", "full"))
    assert attempts.changed.take_now() == [one, two]
    attempts.block(one, BlockedReason("QueueLimit", "full"))
    assert attempts.changed.take_now() == []


def test_the_ending_that_is_known_stands() -> None:
    """A close without words of its own leaves it."""
    attempts = Attempts(is_strict=True)
    one = builders.in_state(attempts, State.ENDED)
    ending = one.ending
    attempts.close(one, Closed.STORED)
    assert one.ending is ending


def check(attempts: Attempts, ones: list[Attempt]) -> None:
    """What is counted and found is what a look at every attempt says."""
    open_ones = [one for one in ones if one.state is not State.CLOSED]
    assert {*attempts} == {*open_ones}
    assert attempts.counts() == Counter(one.state for one in open_ones)
    for namespace in ("n0", "n1"):
        here = [one for one in open_ones if one.state is State.LAUNCHING and one.namespace == namespace]
        assert attempts.launching(namespace) == len(here)
    assert attempts.launching() == sum(one.state is State.LAUNCHING for one in open_ones)
    for one in ones:
        is_open = one.state is not State.CLOSED
        assert attempts.of_delivery(one.delivery) is (one if is_open else None)
        assert attempts.of_pod(one.namespace, one.pod.name) is (one if is_open else None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(list(Move))), max_size=40))
def test_no_order_of_moves_breaks_an_index_or_a_count(steps: list[tuple[int, Move]]) -> None:
    """Illegal ones included: what is refused changes nothing."""
    logging.disable(logging.ERROR)
    try:
        attempts = Attempts()
        ones = [builders.queued(attempts, number, namespace=f"n{number % 2}") for number in range(4)]
        for number, move in steps:
            one = ones[number]
            was, to = one.state, states.after(one.state, move)
            assert MOVES[move](attempts, one) is (to is not None)
            assert one.state is (to or was)
            check(attempts, ones)
    finally:
        logging.disable(logging.NOTSET)


def test_a_pod_that_was_found_is_adopted_without_a_launch() -> None:
    """It counts as no launch."""
    attempts = Attempts(is_strict=True)
    one = builders.attempt()
    attempts.add(one)
    attempts.launched(one, Pod(namespace="n", name="p", uid="u"))
    assert (one.state, attempts.launching()) == (State.PENDING, 0)
