"""The page `docs/states.md`, written from the tables in `states`; a test holds the file against it. Pure.

python -m routing.store.diagram > docs/states.md
"""

import sys
from collections.abc import Iterator, Mapping

from routing.store import states

Moves = Mapping[str, frozenset[str]]

_ATTEMPTS = """One row, one id, one message, at most one pod. `recorded`: the row is committed, the message is not
known to be sent. `sent`: the broker has it, or its pod waits; `waiting_reason` says what for. `lost`: nobody will ever
report."""

_TABLES: tuple[tuple[str, str, Moves], ...] = (
    ("Attempts", _ATTEMPTS, states.ATTEMPT_MOVES),
    ("Task instances", "In Airflow's words; a task instance follows its latest attempt.", states.TASK_MOVES),
    ("DAG runs", "A run ends when all its tasks have; the tasks that nothing follows decide how.", states.RUN_MOVES),
)


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# States"
    yield ""
    yield "Generated from `routing/store/states.py` by `python -m routing.store.diagram`. Every UPDATE names the states"
    yield "that it may leave, from the same tables."
    for title, text, moves in _TABLES:
        yield from ("", f"## {title}", "", text, "", "```mermaid", "stateDiagram-v2")
        yield f"    [*] --> {next(iter(moves))}"
        yield from (f"    {state} --> {target}" for state in moves for target in sorted(moves[state]))
        yield from (f"    {state} --> [*]" for state in moves if not moves[state])
        yield "```"


if __name__ == "__main__":
    sys.stdout.write(page())
