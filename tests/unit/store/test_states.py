"""The tables of states and moves, and the page that is generated from them."""

from pathlib import Path

import pytest

from routing.store import diagram, states

TABLES = {"attempt": states.ATTEMPT_MOVES, "task": states.TASK_MOVES, "run": states.RUN_MOVES}


@pytest.mark.parametrize("name", TABLES)
def test_every_target_is_a_state(name: str) -> None:
    moves = TABLES[name]
    assert {target for targets in moves.values() for target in targets} <= moves.keys()


@pytest.mark.parametrize("name", TABLES)
def test_every_state_is_reached_from_the_first(name: str) -> None:
    moves = TABLES[name]
    reached, open_states = set(), [next(iter(moves))]
    while open_states:
        state = open_states.pop()
        if state not in reached:
            reached.add(state)
            open_states.extend(moves[state])
    assert reached == moves.keys()


@pytest.mark.parametrize("name", TABLES)
def test_every_state_can_end(name: str) -> None:
    """No state is a trap: from each one a final state is one move away, so that a deadline can end it."""
    moves = TABLES[name]
    final = states.final(moves)
    assert all(targets & final for targets in moves.values() if targets)


def test_final_states() -> None:
    assert states.final(states.ATTEMPT_MOVES) == {"succeeded", "failed", "lost", "revoked"}
    assert states.final(states.TASK_MOVES) == {"success", "failed", "skipped", "upstream_failed", "cancelled"}
    assert states.final(states.RUN_MOVES) == {"success", "failed", "cancelled"}


def test_sources_are_the_states_that_may_be_left() -> None:
    assert states.sources(states.ATTEMPT_MOVES, "running") == {"recorded", "sent"}
    assert states.sources(states.ATTEMPT_MOVES, "recorded") == frozenset()
    with pytest.raises(KeyError):
        states.sources(states.ATTEMPT_MOVES, "done")


def test_the_page_is_generated_from_the_tables() -> None:
    """`docs/states.md` cannot tell another story than the code: regenerate it by `python -m routing.store.diagram`."""
    page = Path(__file__).parents[3] / "docs" / "states.md"
    assert page.read_text() == diagram.page()
