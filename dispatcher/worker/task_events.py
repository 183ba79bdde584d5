"""Task events: Celery's events of a pod task carry the pod's times, not those of the dispatcher's bookkeeping.

Celery's Request announces a task as started when a pool accepts it, and as ended when the pool calls back. Here a pod
is accepted when it exists, starts later, and ended before its outcome was replayed. Runs on the hub's thread.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

FLUSH_AFTER_S = 0.1
"""Events are sent in batches, at most so late. They carry their own times, and nobody decides anything by them."""


def batch(consumer: Any) -> None:
    """Lets a consumer send its task events now and then, instead of in each turn of its loop: a fifth of its work."""
    due_mono_s = 0.0

    def flush() -> None:
        nonlocal due_mono_s
        due_mono_s = 0.0
        if consumer.event_dispatcher:
            consumer.event_dispatcher.flush()

    def buffered() -> None:
        nonlocal due_mono_s
        now_mono_s = time.monotonic()
        if (
            now_mono_s > due_mono_s + FLUSH_AFTER_S
        ):  # none is due, or Celery cancelled it with its other timers at a reconnect
            due_mono_s = now_mono_s + FLUSH_AFTER_S
            consumer.hub.call_later(FLUSH_AFTER_S, flush)

    # Without a hub there is no timer to send them later.
    send: Callable[[], None] = consumer.on_send_event_buffered
    consumer.on_send_event_buffered = buffered if consumer.hub else send


class _Timed:
    """Celery's event dispatcher as one request sees it: its events carry a given time."""

    def __init__(self, eventer: Any, *, epoch_s: float) -> None:
        self._eventer = eventer
        self._epoch_s = epoch_s

    @property
    def enabled(self) -> bool:
        return bool(self._eventer.enabled)

    def send(self, kind: str, **fields: Any) -> Any:
        return self._eventer.send(kind, timestamp=self._epoch_s, **fields)


class _WithoutStart:
    """Celery's event dispatcher as a request sees it while its pod is accepted: one that was revoked says so then."""

    def __init__(self, eventer: Any) -> None:
        self._eventer = eventer

    @property
    def enabled(self) -> bool:
        return bool(self._eventer.enabled)

    def send(self, kind: str, **fields: Any) -> Any:
        return None if kind == "task-started" else self._eventer.send(kind, **fields)


def accepted(request: Any, pod: str) -> None:
    """Celery takes note of the pod and acknowledges the message; no event says that the task has started."""
    eventer = request.eventer
    request.eventer = None if eventer is None else _WithoutStart(eventer)
    try:
        request.on_accepted(pod, time.monotonic())
    finally:
        # In `finally`: Celery's own code in between may raise, and what follows has to be announced.
        request.eventer = eventer


def started(request: Any, *, pod: str, not_before: datetime | None, at: datetime) -> None:
    """Tells that the container started, when it did. A pod's status has whole seconds; its creation bounds them."""
    moment = at.timestamp() if not_before is None else max(at.timestamp(), not_before.timestamp())
    _retimed(request, moment)
    request.send_event("task-started", pod=pod)


def ending(request: Any, *, started_at: datetime | None, ended_at: datetime | None, runtime_s: float) -> None:
    """Gives what the request announces next the time at which the container ended, as near as it is known."""
    # `finishedAt` has whole seconds; where start and runtime say more, the later of the two is nearer to the truth.
    moments = [moment.timestamp() for moment in (ended_at,) if moment is not None]
    if started_at is not None and runtime_s:
        moments.append(started_at.timestamp() + runtime_s)
    if moments:
        _retimed(request, max(moments))


def _retimed(request: Any, epoch_s: float) -> None:
    eventer = request.eventer
    # Retimed twice (start, end): the first time must not wrap the second.
    if isinstance(eventer, _Timed):
        eventer = eventer._eventer
    if eventer is not None:
        # Not in the future: a node whose clock is ahead would have Flower show tasks that are yet to start.
        request.eventer = _Timed(eventer, epoch_s=min(epoch_s, time.time()))
