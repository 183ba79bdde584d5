"""The page `docs/states.md`, written from the tables in `states`; a test holds the file against it. Pure.

python -m routing.store.diagram > docs/states.md
"""

import sys
from collections.abc import Iterator, Mapping

from dispatcher.attempts import states as attempt_states
from dispatcher.attempts import wait_rules
from dispatcher.options import QueueProfile
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


_WAITS = """An attempt that has not begun waits for one of these, in this order at most, and `podyard tasks explain`
says which, why, since when, until when and what happens then. What happens at the deadline stands here as it is by
default; a queue may say otherwise (`[queues.NAME.waits]`, [configuration.md](configuration.md#waits)): go on and warn
(`wait`), end it on the budget of the infrastructure (`retry`), or let it fail (`fail`). The reasons are the record's
words."""

_DISPATCHER = """What a dispatcher knows of an attempt while it has it, in memory alone: the pods in the cluster are the
truth, from which the next dispatcher rebuilds it. Generated from `dispatcher/attempts/states.py`; what is no arrow here
is refused. In the record above it is `sent` up to `pending`, and `running` from then on."""

_NOTES = {
    **dict.fromkeys(("volume", "start"), " (`startup_timeout_s`)"),
    **dict.fromkeys(("image", "config"), " (`startup_timeout_s`); at once where Kubernetes says that it cannot come"),
    "unschedulable": " (`schedule_timeout_s`)",
}


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
    yield from ("", "## Attempts in a dispatcher", "", _DISPATCHER, "", "```mermaid", attempt_states.diagram(), "```")
    yield from _waits()


def _waits() -> Iterator[str]:
    yield from (
        "",
        "## Waits",
        "",
        _WAITS,
        "",
        "| wait | it waits for | reasons | at its deadline | what to do |",
        "|---|---|---|---|---|",
    )
    for name, kind in wait_rules.KINDS.items():
        reasons = ", ".join(f"`{reason}`" for reason in sorted(kind.reasons)) or "-"
        at_deadline = f"`{wait_rules.rule_of(name, profile=QueueProfile())}`{_NOTES.get(name, '')}"
        if kind.only_wait:
            at_deadline += f"; never ends it: {kind.only_wait}"
        yield f"| `{name}` | {kind.what} | {reasons} | {at_deadline} | {kind.remedy} |"


if __name__ == "__main__":
    sys.stdout.write(page())
