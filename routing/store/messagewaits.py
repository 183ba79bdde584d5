"""Message waits: the record's words for attempts whose message nobody has taken yet, and what they mean. Pure.

The scheduler writes them, `explanation` reads them again.
"""

import shlex
from typing import Any

UNSENT = "its message is not sent yet: the broker or the scheduler is away"
PROGRAMS = {"celery": "worker", "kubernetes": "dispatcher"}
"""Side -> the command that consumes its queues, and what people call the process."""
_CONSUMES = " consumes the queue "


def in_line(side: str) -> str:
    """Why a sent attempt waits whose queue somebody consumes."""
    return "waiting for a free worker slot" if side == "celery" else "waiting for the dispatcher"


def unconsumed(side: str, queue: str) -> str:
    """Why it waits in a queue without a consumer."""
    return f"no {PROGRAMS.get(side, 'worker')}{_CONSUMES}{queue!r}"


def kind_of(reason: str | None) -> str:
    """The kind of wait (`dispatcher.attempts.wait_rules`) that one of these words means."""
    if reason == UNSENT:
        return "sending"
    return "consumer" if reason and _CONSUMES in reason else "queued"


def is_of_consumer(reason: Any) -> Any:
    """The same question as a condition of SQL, of a column of reasons."""
    return reason.like(f"%{_CONSUMES}%")


def start_command(side: str, queue: str) -> str:
    """The command that starts a consumer of a queue."""
    return f"podyard {PROGRAMS.get(side, 'worker')} --queues {shlex.quote(queue)}"
