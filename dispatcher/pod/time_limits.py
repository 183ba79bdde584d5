"""Time limits inside a pod, where a body can be told of its soft limit.

The soft limit raises SoftTimeLimitExceeded in the body, by the signal that Celery's prefork pool uses. The hard limit
is the dispatcher's to keep; here it is only a backstop, a little later, for a pod that nobody watches. Imported by the
pod's entry point: light.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from celery.exceptions import SoftTimeLimitExceeded

BACKSTOP_S = 5.0
"""How long after the hard limit a pod ends itself: the dispatcher counts from the container's start and is first."""


@dataclass(frozen=True)
class Limits:
    """Seconds, or None for no limit."""

    soft_s: float | None = None
    hard_s: float | None = None

    @classmethod
    def of(cls, headers: Mapping[str, Any], task: Any) -> "Limits":
        """Those of the message, else those of the task, as Celery has it."""
        hard_s, soft_s = headers.get("timelimit") or (None, None)
        return cls(soft_s=soft_s or task.soft_time_limit, hard_s=hard_s or task.time_limit)


@contextmanager
def kept(limits: Limits, *, on_hard: Callable[[float], None]) -> Iterator[None]:
    """Keeps the limits while a body runs in the main thread. `on_hard` is called in a thread of its own."""
    timers = []
    if limits.soft_s:
        signal.signal(signal.SIGUSR1, _raise)
        timers.append(threading.Timer(limits.soft_s, os.kill, (os.getpid(), signal.SIGUSR1)))
    if limits.hard_s:
        timers.append(threading.Timer(limits.hard_s + BACKSTOP_S, on_hard, (limits.hard_s,)))
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        if limits.soft_s:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature is Python's
    raise SoftTimeLimitExceeded
