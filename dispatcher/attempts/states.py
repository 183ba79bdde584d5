"""The states of an attempt and its moves: one table, from which the checks and the diagram in docs/states.md come.

`registry.Attempts` is the only one that moves an attempt. What is not in the table does not happen: in tests it raises,
in production it is logged and refused.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where an attempt is. All but `CLOSED` are in flight."""

    QUEUED = "queued"
    """It waits for its turn: a limit, a pause of its namespace, or the first answer of the API server."""
    PARKED = "parked"
    """Its create was refused or not answered: it waits by itself for a while, then it is queued again."""
    LAUNCHING = "launching"
    """Its launch is being claimed, its pod created or adopted."""
    PENDING = "pending"
    """Its pod exists, its container has not started."""
    RUNNING = "running"
    """Its container has started."""
    COLLECTING = "collecting"
    """Its container has ended, the result sidecar has not reported yet."""
    EXPIRING_LAUNCH = "expiring-launch"
    """Its deadline has come, and a create had no clear answer: its pod is looked for."""
    EXPIRING_POD = "expiring-pod"
    """Its deadline has come: its pod, which has not started, is being deleted."""
    ENDED = "ended"
    """How it ended is known, or is being read, and wants to be stored."""
    CLOSED = "closed"
    """Nothing is left to do for it here."""


class Move(StrEnum):
    """What happens to an attempt."""

    ADMIT = "admit"
    PARK = "park"
    QUEUE = "queue"
    LAUNCHED = "launched"
    STARTED = "started"
    COLLECT = "collect"
    EXPIRE = "expire"
    RESUME = "resume"
    END = "end"
    CLOSE = "close"


TRANSITIONS: Mapping[State, Mapping[Move, State]] = {
    # END without a launch: its manifest cannot be built, or its deadline came and it has no pod for certain.
    State.QUEUED: {
        Move.ADMIT: State.LAUNCHING,
        Move.LAUNCHED: State.PENDING,
        Move.EXPIRE: State.EXPIRING_LAUNCH,
        Move.END: State.ENDED,
        Move.CLOSE: State.CLOSED,
    },
    State.PARKED: {
        Move.QUEUE: State.QUEUED,
        Move.EXPIRE: State.EXPIRING_LAUNCH,
        Move.END: State.ENDED,
        Move.CLOSE: State.CLOSED,
    },
    # No EXPIRE: its calls are bounded, and an end in between would leave a pod that nobody knows.
    State.LAUNCHING: {
        Move.LAUNCHED: State.PENDING,
        Move.PARK: State.PARKED,
        Move.QUEUE: State.QUEUED,
        Move.END: State.ENDED,
        Move.CLOSE: State.CLOSED,
    },
    State.PENDING: {
        Move.STARTED: State.RUNNING,
        Move.COLLECT: State.COLLECTING,
        Move.EXPIRE: State.EXPIRING_POD,
        Move.END: State.ENDED,
        Move.CLOSE: State.CLOSED,
    },
    # No EXPIRE from here on: deadlines are about waits. Time limits are kept by the pod, and by Celery's side.
    State.RUNNING: {Move.COLLECT: State.COLLECTING, Move.END: State.ENDED, Move.CLOSE: State.CLOSED},
    State.COLLECTING: {Move.END: State.ENDED, Move.CLOSE: State.CLOSED},
    State.EXPIRING_LAUNCH: {Move.RESUME: State.QUEUED, Move.END: State.ENDED, Move.CLOSE: State.CLOSED},
    State.EXPIRING_POD: {Move.RESUME: State.PENDING, Move.END: State.ENDED, Move.CLOSE: State.CLOSED},
    # No way back and no second END: the first verdict stands.
    State.ENDED: {Move.CLOSE: State.CLOSED},
    State.CLOSED: {},
}
"""From a state by a move to a state. `LAUNCHED` from `QUEUED` is the adoption of a pod that was found."""

UNLAUNCHED = frozenset({State.QUEUED, State.PARKED, State.LAUNCHING, State.EXPIRING_LAUNCH})
"""No pod is known of it yet."""
LIVE = frozenset({State.PENDING, State.RUNNING, State.COLLECTING, State.EXPIRING_POD})
"""It has a pod whose end is not known yet."""


class IllegalMoveError(Exception):
    """A move that the table does not know: a fault of ours."""


def after(state: State, move: Move) -> State | None:
    """Where a move leads; None where the table does not know it."""
    return TRANSITIONS[state].get(move)


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {_word(State.QUEUED)}"]
    for state, moves in TRANSITIONS.items():
        lines += [f"    {_word(state)} --> {_word(to)}: {move}" for move, to in moves.items()]
    return "\n".join([*lines, f"    {_word(State.CLOSED)} --> [*]"])


def _word(state: State) -> str:
    return state.replace("-", "_")
