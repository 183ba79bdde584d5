"""The table of an attempt's states: whole, without a trap, and as the docs draw it."""

from pathlib import Path

import pytest

from dispatcher.attempts import states
from dispatcher.attempts.states import TRANSITIONS, Move, State


def reached(start: State) -> set[State]:
    """All states that can follow."""
    found: set[State] = set()
    todo = [start]
    while todo:
        state = todo.pop()
        if state not in found:
            found.add(state)
            todo.extend(TRANSITIONS[state].values())
    return found


def test_every_state_has_a_row_and_every_move_a_use() -> None:
    """A new state or move cannot be forgotten."""
    assert TRANSITIONS.keys() == set(State)
    assert {move for moves in TRANSITIONS.values() for move in moves} == set(Move)


def test_every_state_is_reached_from_the_first() -> None:
    """None is there for nothing."""
    assert reached(State.QUEUED) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
def test_every_attempt_in_flight_can_be_closed(state: State) -> None:
    """At once: a revocation or a requeue needs no state in between."""
    assert states.after(state, Move.CLOSE) is State.CLOSED


def test_closed_is_final_and_ended_can_only_be_closed() -> None:
    """An attempt ends once."""
    assert TRANSITIONS[State.CLOSED] == {}
    assert TRANSITIONS[State.ENDED] == {Move.CLOSE: State.CLOSED}


def test_each_state_in_flight_has_a_pod_or_has_none_or_has_ended() -> None:
    """What asks for one of these sets never misses a state."""
    assert states.UNLAUNCHED.isdisjoint(states.LIVE)
    assert states.UNLAUNCHED | states.LIVE | {State.ENDED, State.CLOSED} == set(State)


def test_a_pod_is_never_forgotten() -> None:
    """No move leads from a state with a pod back to one without."""
    back = [(state, to) for state in states.LIVE for to in TRANSITIONS[state].values() if to in states.UNLAUNCHED]
    assert back == []


def test_the_docs_draw_this_table() -> None:
    """Regenerate docs/states.md by `python -m routing.store.diagram`."""
    page = (Path(__file__).parents[3] / "docs" / "states.md").read_text()
    assert f"```mermaid\n{states.diagram()}\n```" in page
    for state, moves in TRANSITIONS.items():
        for move, to in moves.items():
            assert f"{state.replace('-', '_')} --> {to.replace('-', '_')}: {move}" in page
