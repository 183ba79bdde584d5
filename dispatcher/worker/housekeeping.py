"""Celery's own tasks run in the dispatcher, not in pods: they need the result backend, and no author's code.

A result backend without chords of its own (a database, a folder) has `celery.chord_unlock` look for the parts of a
chord, and Celery sends it to the queue of the chord's body. In a pod without credentials it could look for ever.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from dispatcher.attempts.celery_side import Housekept
from dispatcher.worker.bridge import Bridge
from dispatcher.worker.replay import raised
from dispatcher.worker.requests import Callbacks

TASKS = frozenset({"celery.chord_unlock", "celery.backend_cleanup"})
AT_ONCE = 2


class Housekeeping:
    """Runs them, each in a helper thread, by Celery's own tracer."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="podyard-housekeeping")
        self._callbacks: dict[str, Callbacks] = {}

    def run(self, target: Callable[..., Any], args: Sequence[Any], callbacks: Callbacks) -> None:
        """Begins one; `target` is Celery's tracer with its arguments. Returns at once."""
        name = uuid4().hex
        self._callbacks[name] = callbacks
        # Accepted at once: Celery acknowledges it early, as one that a child of prefork has begun.
        callbacks.accept(os.getpid(), time.monotonic())
        self._threads.submit(self._trace, name, target, args)

    def done(self, event: Housekept) -> None:
        """One has ended: Celery is called back, on its own thread."""
        callbacks = self._callbacks.pop(event.name, None)
        if callbacks is not None:
            callbacks.done(event.answer)

    def stop(self) -> None:
        """Begins no more."""
        # Not waited for: a stop has bounded seconds.
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _trace(self, name: str, target: Callable[..., Any], args: Sequence[Any]) -> None:
        try:
            answer = target(*args)
        except BaseException as error:  # whatever it is, Celery's request must be called back
            answer = (1, raised(error), 0.0)
        self._bridge.post(Housekept(name=name, answer=answer))
