"""routing.run: the Celery task behind every DAG task with a body, on a prefork worker and in a pod alike.

It finds the DAG file and the operator, puts results of upstreams into the arguments, runs the body and checks its
result. The dispatcher knows nothing of it; the scheduler only sends its message. Light: every pod imports it, and
Celery is imported only where it is needed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from routing.authoring import context as contexts
from routing.authoring import dagfile, jsonvalue
from routing.authoring.dag import DAG
from routing.authoring.operator import Operator
from routing.errors import TaskFailed

if TYPE_CHECKING:
    from types import FrameType

    from celery import Celery

    from routing.worker.task_log import Place

    pod_app: Celery

TASK_NAME = "routing.run"
MAX_RESULT_BYTES = 1_048_576
FOLDER_VARIABLE = "PODYARD_DAGS__FOLDER"

Claim = Callable[[str, str], bool]
"""(attempt id, holder) -> whether this process may run the attempt: False means that another one does or did."""


def execute(
    message: Mapping[str, Any], *, folder: Path, max_bytes: int = MAX_RESULT_BYTES, attempt_id: str | None = None
) -> Any:
    """Runs the body that a message asks for, once, and returns its result, which JSON can hold in `max_bytes`.

    `message` holds the arguments of the task `routing.run`: dag_file, dag_id, task_id, run_id, map_index, try_number,
    logical_date, conf, inputs. Raises what the body raises; TaskFailed where the body ended the interpreter, a command
    failed, the result cannot travel, the time limit passed, or the DAG file does not have the task.
    """
    dag, task = _find(message, folder)
    context = contexts.build(message, params=dag.params, attempt_id=attempt_id)
    with contexts.active(context), _time_limit(task.options.execution_timeout_s):
        try:
            value = task.execute(context, message.get("inputs") or {})
        # Let through, it would end the process of the pool, and Celery would report that its worker was lost.
        except SystemExit as error:
            # Celery's WorkerShutdown and WorkerTerminate are kinds of SystemExit.
            if type(error) is not SystemExit or _is_terminating():
                raise  # this process is asked to end; the body is not to blame
            raise _exited(error) from error
    return _checked(value, max_bytes)


def register(
    app: Celery,
    *,
    folder: Path,
    claim: Claim | None = None,
    logs: Place | None = None,
    max_bytes: int = MAX_RESULT_BYTES,
) -> Any:
    """Registers the task `routing.run` with an app, and returns it.

    `claim` is asked before the body runs; if it says no, the delivery is dropped (`celery.exceptions.Ignore`) and
    nothing is stored. `logs` (a folder and a cap, as `settings.logs`) makes a log file per attempt; without it the body
    writes to this process's own output.
    """

    # Not shared: it belongs to this app with its folder and claim, and must not enter every other app of the process.
    @app.task(name=TASK_NAME, bind=True, typing=False, shared=False)
    def run(self: Any, **message: Any) -> Any:
        request = self.request
        if claim is not None and not claim(request.id, f"{request.hostname}:{os.getpid()}"):
            from celery.exceptions import Ignore

            raise Ignore(f"attempt {request.id} runs or ran elsewhere")
        try:
            if logs is None:
                return execute(message, folder=folder, max_bytes=max_bytes, attempt_id=request.id)
            return _logged(message, folder=folder, max_bytes=max_bytes, attempt_id=request.id, logs=logs)
        # Kept with the exception: Celery stores the traceback as it finds it, which begins in its own tracer.
        except Exception as error:
            from dispatcher.protocol import tracebacks

            tracebacks.keep(error)
            raise

    return run


def __getattr__(name: str) -> Any:
    """`pod_app`, made when it is first asked for: only a pod needs it."""
    if name != "pod_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = globals()["pod_app"] = _build_pod_app(os.environ)
    return app


def _build_pod_app(environ: Mapping[str, str]) -> Celery:
    """The app inside a pod: no broker and no result backend, so no credential; the outcome travels with the pod."""
    from celery import Celery

    from routing.worker import task_log

    task_log.plain()
    # Said outright: else Celery takes both from its own variables, which an image may set for something else.
    app = Celery("podyard", broker="memory://", backend="disabled://", set_as_current=False, fixups=())
    app.conf.update(accept_content=["json"], task_serializer="json", result_serializer="json")
    folder = Path(environ.get(FOLDER_VARIABLE) or "dags").absolute()
    register(app, folder=folder, max_bytes=int(environ.get("PODYARD_RESULT_MAX_BYTES") or MAX_RESULT_BYTES))
    return app


def _find(message: Mapping[str, Any], folder: Path) -> tuple[DAG, Operator]:
    file, dag_id, task_id = message["dag_file"], message["dag_id"], message["task_id"]
    try:
        loaded = dagfile.load(folder, file)
    except FileNotFoundError as error:
        # A pod whose volume is missing has another remedy than a DAG file that opens a file of its own.
        if error.filename is not None and not str(error.filename).endswith(file):
            raise _unusable(file, error) from error  # the file's own code looked for another one
        raise TaskFailed(
            f"the DAG file {file} is not in {folder} here; give workers and pods the same DAG folder as the scheduler",
            {"reason": "DagFileMissing", "cause": "application"},
        ) from error
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and (type(error) is not SystemExit or _is_terminating()):
            raise
        raise _unusable(file, error) from error
    # By name, whatever the scheduler loaded: the file here may be another version.
    dag = loaded.dags.get(dag_id)
    task = dag.tasks.get(task_id) if dag else None
    if dag is None or not isinstance(task, Operator):
        missing = f"task {task_id!r} in DAG {dag_id!r}" if dag else f"DAG {dag_id!r}"
        raise TaskFailed(
            f"the DAG file {file} does not define {missing} here: it was changed after the run began, or this machine "
            "has another version of it",
            {"reason": "TaskMissing", "cause": "application"},
        )
    return dag, task


def _unusable(file: str, error: BaseException) -> TaskFailed:
    return TaskFailed(
        f"the DAG file {file} cannot be loaded here: {type(error).__name__}: {error}",
        {"reason": "DagImportError", "cause": "application"},
    )


def _logged(message: Mapping[str, Any], *, folder: Path, max_bytes: int, attempt_id: str, logs: Place) -> Any:
    from routing.worker import task_log

    with task_log.captured(logs, attempt_id) as stream:
        try:
            return execute(message, folder=folder, max_bytes=max_bytes, attempt_id=attempt_id)
        except Exception as error:
            from dispatcher.protocol import tracebacks

            # The result has it, too, but `podyard tasks logs` shows the log alone.
            stream.write(tracebacks.of_author(error))
            raise


def _checked(value: Any, max_bytes: int) -> Any:
    if value is None or value is True or value is False:
        return value
    refusal = jsonvalue.refusal(value)
    if refusal:
        raise TaskFailed(f"the result cannot be stored: {refusal}", _RESULT_UNUSABLE)
    from json import dumps

    try:
        # In ASCII, as it is stored: characters are bytes then.
        size = len(dumps(value))
    except ValueError as error:  # an integer of thousands of digits
        raise TaskFailed(f"the result cannot be stored: {error}", _RESULT_UNUSABLE) from error
    if size > max_bytes:
        raise TaskFailed(
            f"the result has {size:,} bytes as JSON, more than the limit of {max_bytes:,} (results.max_bytes); "
            "write it to a file, a bucket or a database and return where it is",
            {"reason": "ResultTooLarge", "cause": "application"},
        )
    return value


_RESULT_UNUSABLE = {"reason": "ResultUnusable", "cause": "application"}


def _exited(error: SystemExit) -> TaskFailed:
    code = error.code if isinstance(error.code, int) else int(error.code is not None)
    said = f": {error.code}" if isinstance(error.code, str) else ""
    return TaskFailed(
        f"the body called sys.exit, exit code {code}{said}",
        {"reason": "Error", "exit_code": code, "cause": "application"},
    )


def _is_terminating() -> bool:
    """Whether a pool process is unwinding because it got SIGTERM: billiard raises SystemExit for that."""
    billiard = sys.modules.get("billiard.common")
    return billiard is not None and billiard.terminate_handler_fired()


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Inside, the body is interrupted with TaskFailed after so many seconds; one that goes on nonetheless has failed
    when it ends. Only the main thread can be interrupted. What never ends is ended by its message's hard limit."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    import signal

    late: list[TaskFailed] = []

    def on_alarm(_number: int, _frame: FrameType | None) -> NoReturn:
        late.append(
            TaskFailed(
                f"the task ran longer than its execution_timeout of {seconds:g} s",
                {"reason": "ExecutionTimeout", "cause": "application"},
            )
        )
        raise late[0]

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # `except Exception` in the body is enough to swallow what was raised in it.
    if late:
        raise late[0]  # the body caught it
