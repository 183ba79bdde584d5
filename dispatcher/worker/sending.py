"""What Celery sends while an outcome is replayed goes out exactly once, or the replay comes again. On Celery's thread.

Links, the next of a chain, a retry, the callback of a chord and errbacks are sent from many places within Celery.
Where the broker is away some of them store a failure instead, some log it and go on: a worker of Celery's own loses the
rest of the canvas then. Here such an error ends the replay at once; the caller keeps the outcome and replays it again,
and what was sent the first time is not sent a second time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import kombu.exceptions
from celery import Celery

from dispatcher.protocol.message import LaunchKey

BROKER_IS_AWAY = (kombu.exceptions.OperationalError, OSError)
"""What publishing raises while the broker is away, or refuses."""


class ReplayAgain(BaseException):
    """Ends a replay that has to come again. No `Exception`: Celery handles those, and would store a failure."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """One message that a replay sent."""

    name: str
    args: Any
    kwargs: Any
    result: Any


@dataclass(kw_only=True)
class _Launch:
    """What the replays of one launch have sent."""

    earlier: list[_Sent] = field(default_factory=list)
    """Sent by replays that failed later on."""
    sent: list[_Sent] = field(default_factory=list)
    unsent: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    """Calls of `send_task` that failed where Celery cannot take the step again that led to them."""
    steps: set[str] = field(default_factory=set)
    """Such steps that were taken."""


class _Here(threading.local):
    """What this thread replays: Celery's own tasks, which run in helper threads meanwhile, send for themselves."""

    launch: _Launch | None = None


class Sending:
    """Stands before `send_task` of one app."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._celerys = app.send_task
        self._launches: dict[LaunchKey, _Launch] = {}
        """Those whose replay failed and comes again."""
        self._here = _Here()
        self._is_final = False
        self._has_failed = False
        app.send_task = self._send

    @property
    def is_replaying(self) -> bool:
        """Whether what is sent now belongs to a replay."""
        return self._here.launch is not None

    @property
    def has_failed(self) -> bool:
        """Whether something could not be sent during the current replay."""
        return self.is_replaying and self._has_failed

    @contextmanager
    def replay(self, launch: LaunchKey) -> Iterator[None]:
        """Around one replay of a launch. Raises the error of broker or backend that ended it: it has to come again."""
        # Taken out: it comes back only where this replay has to come again, so the memory is bounded by what failed.
        current = self._here.launch = self._launches.pop(launch, None) or _Launch()
        self._has_failed = False
        try:
            # What Celery will not send again comes first: behind the replay nobody would know whether it had gone out.
            self._send_late(current)
            yield
            self.finish()
        except ReplayAgain as again:
            self._launches[launch] = replace(current, earlier=[*current.sent, *current.earlier], sent=[])
            # The error itself: callers know what a backend and a broker raise, and not our way of leaving the tracer.
            raise again.error from None
        finally:
            self._here.launch = None

    def finish(self) -> None:
        """All that Celery sends for the launch is sent and stored.

        What follows are hooks of the author's own, which may handle a broker that is away themselves.
        """
        if self._here.launch is not None:
            self._send_late(self._here.launch)
            self._here.launch = None

    @contextmanager
    def once(self, step: str) -> Iterator[bool]:
        """Around a step that Celery cannot take twice for one launch; False where it was taken.

        What cannot be sent there is kept in memory, and sent before the next replay.
        """
        current = self._here.launch
        if current is None or step in current.steps:
            yield current is None
            return
        self._is_final = True
        try:
            yield True
            current.steps.add(step)
        finally:
            self._is_final = False

    def _send(self, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """`send_task` of the app."""
        current = self._here.launch
        if current is None:
            return self._celerys(name, args, kwargs, *rest, **options)
        # By what is sent, not by its id: most signatures get a new id each time they are applied.
        before = next(
            (one for one in current.earlier if (one.name, one.args, one.kwargs) == (name, args, kwargs)), None
        )
        if before is not None:
            current.earlier.remove(before)
            self._add_to_parent(before.result, options)
        else:
            result = self._sent(current, name, args, kwargs, *rest, **options)
            before = _Sent(name=name, args=args, kwargs=kwargs, result=result)
        current.sent.append(before)
        return before.result

    def _sent(self, current: _Launch, *args: Any, **options: Any) -> Any:
        try:
            return self._celerys(*args, **options)
        except BROKER_IS_AWAY as error:
            self._has_failed = True
            if not self._is_final:
                raise ReplayAgain(error) from error
            # It is of the connection that is gone, from a pool.
            options.pop("producer", None)
            current.unsent.append((args, options))
            return self._app.AsyncResult(options.get("task_id", ""))

    def _send_late(self, current: _Launch) -> None:
        while current.unsent:
            args, options = current.unsent[0]
            try:
                self._celerys(*args, **options)
            except BROKER_IS_AWAY as error:
                raise ReplayAgain(error) from error
            # Behind the call: one that fails stays the first, and none is skipped.
            del current.unsent[0]

    def _add_to_parent(self, result: Any, options: dict[str, Any]) -> None:
        """As `send_task` does: a result of a message that is sent by a task is one of the task's children."""
        parent = options.get("parent") or self._app.current_worker_task
        if parent is not None and options.get("add_to_parent", True):
            parent.add_trail(result)
