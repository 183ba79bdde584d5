"""The body of a task pod: runs one task message and leaves its outcome.

`python -m dispatcher.pod` needs `PODYARD_APP` (the Celery app, as `celery -A` names it) and `PODYARD_MESSAGE`
(the JSON of `message.Message`) or a `PODYARD_MESSAGE_FILE`. By default it holds no broker or database credential:
retries, results, links and chords are carried out by the dispatcher, which replays the outcome. With
`PODYARD_CREDENTIALS=inherit` Celery's own tracer does all that in the pod, and the outcome only says so. The exit code
is 0 for a success and 1 for anything else, so that `kubectl get pods` tells the truth. Its start is paid by every pod,
so it imports little.
"""

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from celery import signals
from celery._state import _task_stack
from celery.app.task import Context, Task
from celery.exceptions import Ignore, Reject, Retry, TimeLimitExceeded

from dispatcher.pod import app_process, bounds, credentials, failures, init, time_limits
from dispatcher.protocol import outcome
from dispatcher.protocol.message import Message

DEFAULT_MAX_BYTES = 1_048_576


def main(limits: int | None = None) -> int:
    """Runs the message of the environment. Returns the exit code: 0 success, 1 anything else, 2 no message.

    `limits` is the pipe over which the pod's first process takes time limits.
    """
    # Python's default ends at once: the author's `finally` blocks would not run in the grace period.
    signal.signal(signal.SIGTERM, _on_term)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a process that is killed has said what it printed
    try:
        text = _message_text()
        # Before the application is imported: what is no message ends at once and in words of ours.
        message = Message.decode(text)
    except (KeyError, ValueError, OSError) as error:
        sys.stderr.write(f"podyard: no task message: {error}. The dispatcher passes it; see docs/architecture.md\n")
        return 2
    max_bytes = int(os.environ.get("PODYARD_RESULT_MAX_BYTES", DEFAULT_MAX_BYTES))
    ended = bounds.bounded(_run(message, text, limits=limits), max_bytes=max_bytes)
    _leave(ended)
    exit_code = int(ended.state != "SUCCESS")
    app_process.finish(exit_code)
    return exit_code


def _message_text() -> str:
    file = os.environ.get("PODYARD_MESSAGE_FILE")
    return Path(file).read_text() if file else os.environ["PODYARD_MESSAGE"]


def _run(message: Message, text: str, *, limits: int | None) -> outcome.Outcome:
    """Runs the body once and returns how it ended; whatever the body raises becomes an outcome."""
    started_mono_s = time.monotonic()
    try:
        app_path = os.environ.get("PODYARD_APP", "")
        include = tuple(filter(None, os.environ.get(app_process.INCLUDE_ENV, "").split(",")))
        app = app_process.prepare(app_path, include=include)
        task = app_process.task(app, message.name, app_path=app_path)
        message = Message.decode(text)  # again: the application may have types of its own in the arguments
        started_mono_s = time.monotonic()
        asked_limits = time_limits.Limits.of(message.headers, task)
        # The termination message of a body that runs out of time is made beforehand: when the limit passes, this
        # process may be stuck in C code and is killed (ADR 11).
        with time_limits.enforced(asked_limits, writer=limits, termination_message=_out_of_time(message, asked_limits)):
            is_tracer = os.environ.get("PODYARD_CREDENTIALS") == "inherit"
            ended = _traced(task, message) if is_tracer else _run_body(task, message)
    # It is a SystemExit, and a deletion is no failure of the author's: the dispatcher knows who asked for it.
    except _Terminated:
        raise
    except BaseException as error:  # the one place where a body's errors, SystemExit too, become data
        ended = _outcome(message, "FAILURE", failure=failures.of(error))
    return replace(ended, runtime_s=round(time.monotonic() - started_mono_s, 6))


def _out_of_time(message: Message, limits: time_limits.Limits) -> bytes:
    """The termination message of a body whose hard limit passes."""
    if not limits.hard_s:
        return b""
    hard_s = int(limits.hard_s) if limits.hard_s == int(limits.hard_s) else limits.hard_s
    failure = failures.of(TimeLimitExceeded(hard_s))
    ended = _outcome(message, "FAILURE", failure=failure, runtime_s=float(hard_s))
    return outcome.encode(ended, limit_bytes=_termination_bytes()).message


def _run_body(task: Any, message: Message) -> outcome.Outcome:
    credentials.withhold(task.app, queue=message.queue)
    asked = _record_retries(task)
    context = Context({**message.request, "hostname": app_process.hostname(), "called_directly": False})
    # Before the signal, as in Celery's tracer: handlers of `task_prerun` read `task.request` and `current_task`.
    task.request_stack.push(context)
    _task_stack.push(task)
    about: dict[str, Any] = {"task_id": message.id, "task": task, "args": message.args, "kwargs": message.kwargs}
    signals.task_prerun.send(sender=task, **about)
    ended, value = None, None
    try:
        # Inside of the `try`: an error in it is the task's, as in Celery's tracer.
        task.before_start(message.id, message.args, message.kwargs)
        value = _body(task)(*message.args, **message.kwargs)
        ended = _outcome(message, "SUCCESS", value=bounds.plain(value))
    except Retry as error:
        value = error
        cause = failures.of(error.exc) if isinstance(error.exc, BaseException) else None
        ended = _outcome(message, "RETRY", retry={**asked, "reason": str(error)}, failure=cause)
    except Ignore as error:
        value, ended = error, _outcome(message, "IGNORED", failure=failures.of(error))
    except Reject as error:
        value, ended = error, _outcome(message, "REJECTED", failure=failures.of(error))
    except Exception as error:  # an author's error is data
        value, ended = error, _outcome(message, "FAILURE", failure=failures.of(error))
    finally:
        # Also where SystemExit or our SIGTERM passes through: handlers close what `task_prerun` has opened.
        signals.task_postrun.send(sender=task, **about, retval=value, state=ended.state if ended else "FAILURE")
        _task_stack.pop()
        task.request_stack.pop()
    return ended


def _traced(task: Any, message: Message) -> outcome.Outcome:
    """The same by Celery's own tracer, which stores the result and sends what follows: this pod may."""
    # Here alone: its import would cost every pod time that only those with credentials need.
    from celery.app import trace

    request = {**message.request, "hostname": app_process.hostname()}
    _, info, _, text = trace.trace_task(
        task, message.id, message.args, message.kwargs, request, app=task.app, hostname=request["hostname"]
    )
    if info is None:
        return _outcome(message, "SUCCESS", value=text, is_stored=True)
    error = info.retval.exc if isinstance(info.retval, Retry) else info.retval
    failure = failures.of(error) if isinstance(error, BaseException) else None
    return _outcome(message, info.state, failure=failure, is_stored=True)


def _body(task: Any) -> Callable[..., Any]:
    """What Celery's tracer would call: `run`, or the task itself where its class has a `__call__` of its own."""
    if type(task).__call__ is Task.__call__:
        run: Callable[..., Any] = task.run
        return run
    from celery.app import trace

    trace._install_stack_protection()  # noqa: SLF001 - as Celery's worker does before it calls tasks of this kind
    return task  # type: ignore[no-any-return]


def _record_retries(task: Any) -> dict[str, Any]:
    """Makes `task.retry` remember what it was asked and publish nothing: publishing is the dispatcher's part.

    The task object is changed in place: `self` in a bound task, and the closure of `autoretry_for`, are this object.
    """
    asked: dict[str, Any] = {}
    retry, signature_from_request = task.retry, task.signature_from_request

    def recording(args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        given = {"args": args, "kwargs": kwargs, **options}
        # `exc` travels as the failure; `throw` decides only whether this call raises.
        asked.update({key: value for key, value in given.items() if value is not None and key not in ("exc", "throw")})
        return retry(args, kwargs, **options)

    def unpublished(*args: Any, **kwargs: Any) -> Any:
        signature = signature_from_request(*args, **kwargs)
        signature.apply_async = lambda *_, **__: None
        return signature

    task.retry, task.signature_from_request = recording, unpublished
    return asked


def _outcome(message: Message, state: str, **fields: Any) -> outcome.Outcome:
    return outcome.Outcome(id=message.id, retries=message.retries, state=state, **fields)


def _termination_bytes() -> int:
    return int(os.environ.get("PODYARD_TERMINATION_BYTES", outcome.MESSAGE_LIMIT_BYTES))


def _leave(result: outcome.Outcome) -> None:
    encoded = outcome.encode(result, limit_bytes=_termination_bytes())
    # Before the frame: the outcome must be the last that the container prints, where the tail of its log is read.
    if result.failure is not None and result.failure.traceback:
        with _perhaps_closed():
            sys.stderr.write(f"{result.failure.traceback}\n")
    _flush()
    out = sys.__stdout__ or sys.stdout  # the author's code may have put something else in its place
    try:
        for line in encoded.lines:
            out.write(f"{line}\n")
        if encoded.lines:
            out.flush()
    except (OSError, ValueError) as error:
        why = f"the outcome is too large for the termination message, and standard output takes no log: {error}"
        lost = replace(
            result, state="FAILURE", value=None, retry=None, failure=failures.ours(why, reason="ResultUnusable")
        )
        encoded = outcome.encode(lost, limit_bytes=_termination_bytes())
    # After the log: a pod that is killed in between has left no outcome, not one whose lines are missing.
    Path(init.termination_file()).write_bytes(encoded.message)


def _perhaps_closed() -> contextlib.AbstractContextManager[None]:
    """Around a use of the standard files: the body may have closed them, as daemons do, and its outcome stands."""
    return contextlib.suppress(OSError, ValueError)


def _flush() -> None:
    for file in (sys.stderr, sys.stdout):
        with _perhaps_closed():
            file.flush()


class _Terminated(SystemExit):
    """The pod was asked to end; it leaves no outcome, so that the deletion counts."""


def _on_term(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated(128 + number)


def run_and_exit(limits: int | None = None) -> NoReturn:
    """Runs the body and ends the process with its exit code."""
    code = main(limits)
    _flush()
    # The first one is this thread.
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        sys.exit(code)  # the author's threads are waited for, as Python does
    os._exit(code)  # nothing of ours needs the interpreter's slow shutdown
