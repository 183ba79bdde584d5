"""Message waits: the kinds of wait before anybody has an attempt's message, and what people read about each.

The scheduler writes the kind into the record (`attempt.wait_kind`), and the words beside it. Programs ask for the kind
alone: the words may change from one version to the next, or be translated. No I/O, no state.
"""

from typing import Final

from routing import commands

SENDING: Final = "sending"
CONSUMER: Final = "consumer"
QUEUED: Final = "queued"

UNSENT = "its message is not sent yet: the broker or the scheduler is away"
PROGRAMS = {"celery": "worker", "kubernetes": "dispatcher"}
"""Side -> the command that consumes its queues, and what people call the process."""
_KINDS = frozenset({SENDING, CONSUMER, QUEUED})


def in_line(side: str) -> str:
    """Why a sent attempt waits whose queue somebody consumes."""
    return "waiting for a free worker slot" if side == "celery" else "waiting for the dispatcher"


def unconsumed(side: str, queue: str) -> str:
    """Why it waits in a queue without a consumer."""
    return f"no {PROGRAMS.get(side, 'worker')} consumes the queue {queue!r}"


def kind_of(recorded: str | None) -> str:
    """The kind of wait of an attempt whose message nobody has, by what the record says of it.

    An attempt whose pod's row is gone (a clean-up, another database) still has a kind of pods there: its message is
    back in its queue.
    """
    return recorded if recorded in _KINDS else QUEUED


def start_command(side: str, queue: str) -> str:
    """The command that starts a consumer of a queue."""
    return commands.plain(PROGRAMS.get(side, "worker"), "--queues", queue)
