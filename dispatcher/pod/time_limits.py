"""Time limits inside a pod: they count from the body's begin, as in a Celery worker, and end with the body.

The soft limit raises SoftTimeLimitExceeded in the body, by the signal that Celery's prefork pool uses; the hard one
kills its process. The pod's first process (`init`) measures both. Imported by the pod's entry point: light.
"""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from celery.exceptions import SoftTimeLimitExceeded

from dispatcher.pod import init
from dispatcher.protocol import message

HARD_ENV = "PODYARD_TIME_LIMIT_S"
SOFT_ENV = "PODYARD_SOFT_TIME_LIMIT_S"


@dataclass(frozen=True)
class Limits:
    """Seconds, or None for no limit."""

    soft_s: float | None = None
    hard_s: float | None = None

    @classmethod
    def of(cls, headers: Mapping[str, Any], task: Any, *, environ: Mapping[str, str] = os.environ) -> "Limits":
        """Those that the dispatcher says, which knows its own command line, too; else of the message, else of the task.

        Celery has it so: the message, then the task, then the worker.
        """
        hard_s, soft_s = headers.get("timelimit") or (None, None)
        return cls(
            # The dispatcher has worked out which limit holds: the worker's `--time-limit` stands in no message.
            soft_s=message.kept_limit_s(_seconds(environ.get(SOFT_ENV)) or soft_s or task.soft_time_limit),
            hard_s=message.kept_limit_s(_seconds(environ.get(HARD_ENV)) or hard_s or task.time_limit),
        )


@contextmanager
def enforced(limits: Limits, *, writer: int | None, termination_message: bytes) -> Iterator[None]:
    """Has the limits enforced while a body runs in the main thread.

    `writer` is the pipe to the pod's first process, None where there is none; `termination_message` is what it leaves
    when the hard limit has passed.
    """
    if writer is None or not (limits.soft_s or limits.hard_s):
        yield
        return
    # The handler first: what SIGUSR1 does without one is end the process.
    if limits.soft_s:
        signal.signal(init.SOFT_SIGNAL, _raise)
    _send(writer, init.limits_line(soft_s=limits.soft_s, hard_s=limits.hard_s, termination_message=termination_message))
    try:
        yield
    finally:
        # Ignored before the first process is told: a signal may be
        # on its way, and would hit what cleans up after the body.
        if limits.soft_s:
            signal.signal(init.SOFT_SIGNAL, signal.SIG_IGN)
        _send(writer, init.BODY_ENDED)


def _send(writer: int, line: bytes) -> None:
    """The author's code may have closed all files, as daemons do: the limits hold on then."""
    with contextlib.suppress(OSError):
        # A pipe takes 64 KiB at once; a longer line goes in parts.
        while line:
            line = line[os.write(writer, line) :]


def _seconds(text: str | None) -> float | None:
    return float(text) if text else None


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise SoftTimeLimitExceeded
