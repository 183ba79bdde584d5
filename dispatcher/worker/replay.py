"""Replays the outcome of a pod through Celery's own tracer, so that both halves report in the same words.

The tracer of a Celery worker runs a body and then stores the result, sends links and the next of a chain, counts
chords and fires signals. Here its body is a stand-in that returns or raises what the pod's body did; all that follows
is Celery's code. Runs on the hub thread; imported by the pool alone. What it never does: run an author's body.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from billiard.einfo import ExceptionInfo
from celery import Celery, signals, states
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Reject, Retry

from dispatcher import errors
from dispatcher.attempts import endings
from dispatcher.protocol import outcome
from dispatcher.protocol.message import Message
from dispatcher.status import reasons
from dispatcher.worker.celery_patches import chord_parts, store_script, switches
from dispatcher.worker.sending import ReplayAgain, Sending

_OF_THE_POD = (errors.PodFailed.__module__, errors.PodFailed.__qualname__)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What Celery's Request is called back with: (failed, value, seconds), as by Celery's own pools."""

    failed: bool
    value: Any
    runtime_s: float


class Replay:
    """The tracers of one app, one per task, made when first used."""

    def __init__(self, app: Celery, *, hostname: str, keeps_logs: bool = True) -> None:
        """`keeps_logs`: the logs of pods are saved, so that a failure may point at one."""
        self._app = app
        self._keeps_logs = keeps_logs
        self._hostname = hostname
        self._tracers: dict[str, tuple[Any, Callable[..., Any]]] = {}
        self.sending = Sending(app)
        """What Celery sends meanwhile; for other ends of a launch that Celery stores, too."""

    def replay(self, message: Message, ended: outcome.Outcome | BaseException) -> Replayed:
        """Stores and announces how a launch ended, an exception being a pod that left no outcome.

        Raises what the result backend or the broker raise when they cannot be reached: nothing is lost then, the
        caller keeps the outcome and tries again.
        """
        ended = self._explained(ended)
        stand_in, trace = self._tracer(message.name)
        # Handed over by the object, not by the arguments, which are the author's and reach handlers and signals.
        stand_in.ended = ended
        stand_in.remote_traceback = _remote_traceback(ended)
        stand_in.raised = None
        # The tracer measures the call of its body, which takes no time here: logs and signals say what the pod took.
        runtime_s = ended.runtime_s if isinstance(ended, outcome.Outcome) else 0.0
        stand_in.clock.start(runtime_s)
        request = {**message.request, "hostname": self._hostname}
        try:
            with self.sending.replay(message.key):
                value, info, _, text = trace(message.id, message.args, message.kwargs, request)
        finally:
            stand_in.ended = (
                None  # called without an outcome at hand it fails, rather than replay that of another launch
            )
        if info is None:
            return Replayed(failed=False, value=text, runtime_s=runtime_s)
        if stand_in.remote_traceback:
            value.traceback = stand_in.remote_traceback
        return Replayed(failed=True, value=value, runtime_s=runtime_s)

    def announced(self, message: Message, ended: outcome.Outcome) -> Replayed:
        """What Celery's Request is called back with for an outcome that its pod has stored itself. Stores nothing."""
        if ended.state == "SUCCESS":
            return Replayed(failed=False, value=ended.value, runtime_s=ended.runtime_s)
        stand_in, _ = self._tracer(message.name)
        error = _rebuilt(stand_in, ended.failure) if ended.failure is not None else None
        errors_of = {"RETRY": lambda: Retry(exc=error), "IGNORED": Ignore, "REJECTED": lambda: _rejection(ended, error)}
        value = raised(errors_of.get(ended.state, lambda: error or RuntimeError("the pod's outcome names no error"))())
        if ended.failure is not None:
            value.traceback = ended.failure.traceback
        return Replayed(failed=True, value=value, runtime_s=ended.runtime_s)

    def stored(self, message: Message) -> outcome.Outcome | None:
        """The final state that stands in the result backend already, for people; None where there is none."""
        meta = self._app.backend.get_task_meta(message.id)
        if meta["status"] not in states.READY_STATES:
            return None
        error = meta["result"] if isinstance(meta["result"], BaseException) else None
        failure = error and outcome.Failure(
            type=type(error).__name__,
            module=type(error).__module__,
            args=error.args,
            traceback=meta.get("traceback") or "",
        )
        state = "SUCCESS" if meta["status"] == states.SUCCESS else "FAILURE"
        return outcome.Outcome(
            id=message.id, retries=message.retries, state=state, value=repr(meta["result"]), failure=failure or None
        )

    def _tracer(self, name: str) -> tuple[Any, Callable[..., Any]]:
        if name not in self._tracers:
            backend = self._app.tasks[name].backend
            # When a task is first replayed: a task may have a backend of its own.
            if switches.is_on(self._app, "store_script"):
                store_script.shorten(backend)
            chord_parts.guard(backend, self.sending)
            stand_in = _stand_in(self._app.tasks[name])
            stand_in.sending = self.sending
            with (
                _without_receivers(signals.task_prerun),
                _without_receivers(signals.task_postrun),
            ):  # they were sent where the body ran
                # The tracer looks at a task once, when it is built: what is to
                # act (stand-in, clock, receivers) is there before.
                tracer = build_tracer(name, stand_in, app=self._app, hostname=self._hostname, monotonic=stand_in.clock)
            self._tracers[name] = (stand_in, tracer)
        return self._tracers[name]

    def _explained(self, ended: outcome.Outcome | BaseException) -> outcome.Outcome | BaseException:
        """The outcome with sentences for people; they point at the saved log only where logs are saved."""
        ended = _explained(ended)
        if self._keeps_logs:
            return ended
        if isinstance(ended, errors.PodFailed):
            return _without_saved_log(ended)
        failure = ended.failure if isinstance(ended, outcome.Outcome) else None
        if failure is None or not _is_of_the_pod(failure) or not isinstance(ended, outcome.Outcome):
            return ended
        told = _without_saved_log(errors.PodFailed(*failure.args[:2]))
        return replace(ended, failure=replace(failure, args=told.args))


def _is_of_the_pod(failure: outcome.Failure) -> bool:
    return (failure.module, failure.type) == _OF_THE_POD and isinstance([*failure.args, None, None][1], Mapping)


def _without_saved_log(failure: errors.PodFailed) -> errors.PodFailed:
    what_to_do = str(failure.details.get("what_to_do", "")).replace(reasons.SAVED_LOG, reasons.LOG_OF_POD)
    return type(failure)(failure.message, {**failure.details, "what_to_do": what_to_do})


def _explained(ended: outcome.Outcome | BaseException) -> outcome.Outcome | BaseException:
    """The outcome; a failure that the pod itself found gets the sentences for people that those of the cluster have."""
    failure = ended.failure if isinstance(ended, outcome.Outcome) else None
    if failure is None or not _is_of_the_pod(failure) or not isinstance(ended, outcome.Outcome):
        return ended
    message, details, *_ = failure.args
    diagnosed = endings.diagnosed(errors.PodFailed(str(message), details), place="pod")
    return replace(ended, failure=replace(failure, args=diagnosed.args))


def raised(error: BaseException) -> ExceptionInfo:
    """An exception as Celery's requests want it: one that was raised."""
    try:
        raise error  # noqa: TRY301 - raising it is the point
    except BaseException:  # the one that was raised a line before
        return ExceptionInfo()


@contextmanager
def _without_receivers(signal: Any) -> Iterator[None]:
    """A tracer that is built meanwhile sends this signal to nobody: it takes the list of receivers with it."""
    # The tracer takes `signal.receivers` over by reference, so the list itself is exchanged and not emptied.
    receivers, signal.receivers = signal.receivers, []
    try:
        yield
    finally:
        signal.receivers = receivers


class _PodsClock:
    """The tracer's clock: between its first and its later looks passes what the pod took, for logs and signals."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._runtime_s = 0.0

    def start(self, runtime_s: float) -> None:
        self._now_s, self._runtime_s = 0.0, runtime_s

    def __call__(self) -> float:
        seen_s, self._now_s = self._now_s, self._runtime_s
        return seen_s


def _stand_in(task: Any) -> Any:
    """A twin of the task that shares its request stack, and whose call answers with the outcome at hand."""
    cls = type(task)

    class StandIn(cls):  # type: ignore[misc, valid-type]
        ended: outcome.Outcome | BaseException | None = None
        raised: BaseException | None = None
        remote_traceback = ""
        sending: Sending

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return _answer(self, self.ended)

        def before_start(self, *args: Any) -> None:
            """It ran in the pod."""

        def on_failure(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> Any:
            einfo.traceback = self.remote_traceback or einfo.traceback
            return super().on_failure(exc, task_id, args, kwargs, einfo)

        def on_retry(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> Any:
            einfo.traceback = self.remote_traceback or einfo.traceback
            return super().on_retry(exc, task_id, args, kwargs, einfo)

        @property
        def backend(self) -> Any:
            return _PodsBackend(super().backend, self)

    # No constructor: it is the author's, and has run once for this task.
    twin = StandIn.__new__(StandIn)
    twin.__dict__.update(task.__dict__)
    twin.clock = _PodsClock()
    twin.track_started = False  # the pool said so when the container started
    return twin


def _answer(task: Any, ended: outcome.Outcome | BaseException | None) -> Any:
    if not isinstance(ended, outcome.Outcome):
        raise ended or RuntimeError("a replay without an outcome")
    if ended.state == "SUCCESS":
        return ended.value
    if ended.state == "IGNORED":
        raise Ignore
    error = task.raised = _rebuilt(task, ended.failure) if ended.failure is not None else None
    if ended.state == "REJECTED":
        raise _rejection(ended, error)
    if ended.state == "RETRY":
        # Sends the next message from here: the pod had no broker. Raises Retry, or the error where none is left.
        task.retry(exc=error, **{key: value for key, value in (ended.retry or {}).items() if key != "reason"})
    raise error or RuntimeError("the pod's outcome names no error")


def _rejection(ended: outcome.Outcome, error: BaseException | None) -> Reject:
    """The Reject of the body; its second argument asks for the message to be requeued."""
    reason, requeue, *_ = [*(ended.failure.args if ended.failure else ()), None, None]
    return Reject(reason or str(error), requeue=requeue is True)


def _rebuilt(task: Any, failure: outcome.Failure) -> BaseException:
    """The exception, of its own class where this process knows it, else of a class of the same name (Celery's rule)."""
    fields = {"exc_type": failure.type, "exc_module": failure.module, "exc_message": list(failure.args)}
    error = task.app.backend.exception_to_python(fields)
    if isinstance(error, BaseException) and type(error).__module__ == failure.module:
        error.args = tuple(failure.args)  # a constructor may have made others of them, and would again for each reader
        return error
    unknown = type(failure.type, (Exception,), {"__module__": failure.module})
    return cast("BaseException", unknown(*failure.args))


def _remote_traceback(ended: outcome.Outcome | BaseException) -> str:
    if isinstance(ended, outcome.Outcome) and ended.failure is not None:
        return ended.failure.traceback
    return ""


class _PodsBackend:
    """The task's result backend, but failures are stored with the pod's traceback, and one to store ends the replay.

    Celery's tracer turns an error of the backend into a failure of the task; here it must reach the caller instead.
    """

    def __init__(self, backend: Any, stand_in: Any) -> None:
        self._backend = backend
        self._stand_in = stand_in

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def mark_as_done(self, *args: Any, **kwargs: Any) -> Any:
        with self._ends_the_replay():
            return self._backend.mark_as_done(*args, **kwargs)

    def mark_as_failure(self, task_id: str, exc: BaseException, traceback: Any = None, **kwargs: Any) -> Any:
        """Stores the pod's own exception: the tracer wraps one whose class this process does not know."""
        text = self._stand_in.remote_traceback or traceback
        with self._ends_the_replay():
            return self._backend.mark_as_failure(task_id, self._stand_in.raised or exc, text, **kwargs)

    def mark_as_retry(self, task_id: str, exc: BaseException, traceback: Any = None, **kwargs: Any) -> Any:
        text = self._stand_in.remote_traceback or traceback
        with self._ends_the_replay():
            return self._backend.mark_as_retry(task_id, exc, text, **kwargs)

    @contextmanager
    def _ends_the_replay(self) -> Iterator[None]:
        # Only that it cannot be reached: what it refuses for good (a value it
        # cannot encode) is the task's failure, as ever.
        errors_of_backend = (
            *getattr(self._backend, "connection_errors", ()),
            *getattr(self._backend, "channel_errors", ()),
            OSError,
        )
        try:
            yield
        except errors_of_backend as error:
            raise ReplayAgain(error) from error
        # Stored: Celery sends before it stores, so that all of it has gone out.
        self._stand_in.sending.finish()
