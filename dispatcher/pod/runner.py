"""The entry point inside a task pod: runs the body of one task message and leaves its outcome.

`python -m dispatcher.pod` needs `PODYARD_APP` (the Celery app, as `celery -A` names it) and `PODYARD_MESSAGE`
(the JSON of `message.Message`) or a `PODYARD_MESSAGE_FILE`. By default it holds no broker or database credential:
retries, results, links and chords are carried out by the dispatcher, which replays the outcome. With
`PODYARD_CREDENTIALS=inherit` Celery's own tracer does all that in the pod, and the outcome only says so. The exit code
is 0 for a success and 1 for anything else, so that `kubectl get pods` tells the truth. Its start is paid by every pod,
so it imports little.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from celery import signals
from celery._state import _task_stack
from celery.app.task import Context, Task
from celery.app.utils import find_app
from celery.exceptions import Ignore, NotRegistered, Reject, Retry, TimeLimitExceeded
from kombu.utils import json

from dispatcher.pod import credentials, time_limits
from dispatcher.protocol import outcome
from dispatcher.protocol.message import Message

TERMINATION_FILE = Path("/dev/termination-log")
DEFAULT_MAX_BYTES = 1_048_576
MAX_DEPTH = 200
"""Levels of lists and mappings in a result. The dispatcher decodes and stores it in a deeper stack than this one, and
Python's own limit is 1,000 for both together: what fits here by a hair could not be stored there, at any try."""
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main() -> int:
    """Runs the message of the environment. Returns the exit code: 0 success, 1 anything else, 2 no message."""
    signal.signal(signal.SIGTERM, _on_term)
    try:
        message = Message.decode(_message_text())
    except (KeyError, ValueError, OSError) as error:
        sys.stderr.write(f"podrun: no task message: {error}. The dispatcher passes it; see docs/architecture.md\n")
        return 2
    limit = int(os.environ.get("PODYARD_RESULT_MAX_BYTES", DEFAULT_MAX_BYTES))
    is_tracer = os.environ.get("PODYARD_CREDENTIALS") == "inherit"
    result = bounded(run(message, os.environ.get("PODYARD_APP", ""), is_tracer=is_tracer), max_bytes=limit)
    _leave(result)
    signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=int(result.state != "SUCCESS"))
    return 0 if result.state == "SUCCESS" else 1


def _message_text() -> str:
    file = os.environ.get("PODYARD_MESSAGE_FILE")
    return Path(file).read_text() if file else os.environ["PODYARD_MESSAGE"]


def run(message: Message, app_path: str, *, is_tracer: bool = False) -> outcome.Outcome:
    """Runs the body once and returns how it ended; whatever the body raises becomes an outcome."""
    started = time.monotonic()
    try:
        task = _task(app_path, message.name)
        with time_limits.kept(
            time_limits.Limits.of(message.headers, task), on_hard=lambda limit_s: _end(message, limit_s)
        ):
            ended = _traced(task, message) if is_tracer else _run_body(task, message)
    except _Terminated:
        raise
    except BaseException as error:  # noqa: BLE001 - the one place where a body's errors, SystemExit too, become data
        ended = _outcome(message, "FAILURE", failure=_failure(error))
    return replace(ended, runtime_s=round(time.monotonic() - started, 6))


def _end(message: Message, limit_s: float) -> NoReturn:
    """Ends this pod in the middle of its body: the hard limit passed, and nobody came to end it."""
    _leave(_outcome(message, "FAILURE", failure=_failure(TimeLimitExceeded(limit_s))))
    os._exit(1)


def bounded(result: outcome.Outcome, *, max_bytes: int) -> outcome.Outcome:
    """The outcome itself, or a failure that says why its value cannot travel."""
    if result.state != "SUCCESS" or result.is_stored:
        return result
    try:
        size = len(str(json.dumps(result.value)).encode())
    except Exception as error:  # noqa: BLE001 - encoding calls into the author's own objects
        return _unusable(result, f"the result has no JSON form: {error}; return plain JSON values")
    if _depth(result.value) > MAX_DEPTH:
        return _unusable(result, f"the result is nested deeper than {MAX_DEPTH} levels; return a flatter value")
    if size > max_bytes:
        limit = f"the limit of {max_bytes} (results.max_bytes)"
        return _unusable(result, f"the result has {size} bytes, more than {limit}; store it and return its address")
    return result


def _depth(value: Any) -> int:
    """Levels of lists and mappings in what json.dumps takes, counted without recursion; stops above the limit."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inside = [one for one in level if isinstance(one, dict | list | tuple)]
        depth += bool(inside)
        level = [part for one in inside for part in (one.values() if isinstance(one, dict) else one)]
    return depth


def _task(app_path: str, name: str) -> Any:
    """The task, from its app, in a process prepared as Celery prepares those of its workers."""
    if not app_path:
        raise LookupError("PODYARD_APP is not set: the pod does not know which Celery app has the task")
    app = find_app(app_path)  # as `celery -A` does
    app.set_current()
    app.loader.import_default_modules()
    app.finalize()
    if name not in app.tasks:
        raise NotRegistered(
            f"{name!r} is not a task of {app_path} in this pod's image; is the image older than the task?"
        )
    if not signals.setup_logging.send(
        sender=None, loglevel=logging.INFO, logfile=None, format=LOG_FORMAT, colorize=False
    ):
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    signals.worker_process_init.send(sender=None)
    return app.tasks[name]


def _run_body(task: Any, message: Message) -> outcome.Outcome:
    credentials.withhold(task.app, queue=message.queue)
    asked = _record_retries(task)
    context = Context({**message.request, "hostname": os.environ.get("HOSTNAME", ""), "called_directly": False})
    task.request_stack.push(context)
    _task_stack.push(task)
    about: dict[str, Any] = {"task_id": message.id, "task": task, "args": message.args, "kwargs": message.kwargs}
    signals.task_prerun.send(sender=task, **about)
    ended, value = None, None
    try:
        task.before_start(message.id, message.args, message.kwargs)
        value = _body(task)(*message.args, **message.kwargs)
        ended = _outcome(message, "SUCCESS", value=value)
    except Retry as error:
        value = error
        cause = _failure(error.exc) if isinstance(error.exc, BaseException) else None
        ended = _outcome(message, "RETRY", retry={**asked, "reason": str(error)}, failure=cause)
    except Ignore as error:
        value, ended = error, _outcome(message, "IGNORED", failure=_failure(error))
    except Reject as error:
        value, ended = error, _outcome(message, "REJECTED", failure=_failure(error))
    except Exception as error:  # noqa: BLE001 - an author's error is data
        value, ended = error, _outcome(message, "FAILURE", failure=_failure(error))
    finally:
        signals.task_postrun.send(sender=task, **about, retval=value, state=ended.state if ended else "FAILURE")
        _task_stack.pop()
        task.request_stack.pop()
    return ended


def _traced(task: Any, message: Message) -> outcome.Outcome:
    """The same by Celery's own tracer, which stores the result and sends what follows: this pod may."""
    from celery.app import trace

    request = {**message.request, "hostname": os.environ.get("HOSTNAME", "")}
    _, info, _, text = trace.trace_task(
        task, message.id, message.args, message.kwargs, request, app=task.app, hostname=request["hostname"]
    )
    if info is None:
        return _outcome(message, "SUCCESS", value=text, is_stored=True)
    error = info.retval.exc if isinstance(info.retval, Retry) else info.retval
    failure = _failure(error) if isinstance(error, BaseException) else None
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


def _failure(error: BaseException) -> outcome.Failure:
    text = "".join(traceback.format_exception(type(error), error, _authors_part(error)))
    if isinstance(error, SystemExit):
        return _ours(
            f"the body called sys.exit({error.code!r})", reason="Error", text=text, exit_code=_exit_code(error)
        )
    return outcome.Failure(
        type=type(error).__qualname__,
        module=type(error).__module__,
        args=[_plain(value) for value in error.args],
        traceback=outcome.shortened(text),
    )


def _unusable(result: outcome.Outcome, why: str) -> outcome.Outcome:
    return replace(result, state="FAILURE", value=None, failure=_ours(why, reason="ResultUnusable"))


def _ours(message: str, *, reason: str, text: str = "", **details: Any) -> outcome.Failure:
    facts = {"reason": reason, "cause": "application", **details}
    return outcome.Failure(
        type="PodFailed", module="dispatcher.errors", args=[message, facts], traceback=outcome.shortened(text)
    )


def _authors_part(error: BaseException) -> Any:
    """The traceback without our own and Celery's frames at its start."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith((__name__, "celery.")):
        trace = trace.tb_next
    return trace or error.__traceback__


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def _plain(value: Any) -> Any:
    try:
        json.dumps(value)
    except Exception:  # noqa: BLE001 - encoding calls into the author's own objects
        return repr(value)[:500]
    return value


def _leave(result: outcome.Outcome) -> None:
    encoded = outcome.encode(
        result, limit_bytes=int(os.environ.get("PODYARD_TERMINATION_BYTES", outcome.MESSAGE_LIMIT_BYTES))
    )
    if result.failure is not None and result.failure.traceback:
        sys.stderr.write(f"{result.failure.traceback}\n")
    sys.stderr.flush()
    for line in encoded.lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    Path(os.environ.get("PODYARD_TERMINATION_PATH") or TERMINATION_FILE).write_bytes(encoded.message)


class _Terminated(SystemExit):
    """The pod was asked to end; it leaves no outcome, so that the deletion counts."""


def _on_term(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature is Python's
    raise _Terminated(128 + number)


def run_and_exit() -> NoReturn:
    """Runs the body and ends the process with its exit code."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        sys.exit(code)  # the author's threads are waited for, as Python does
    os._exit(code)  # nothing of ours needs the interpreter's slow farewell
