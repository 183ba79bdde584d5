"""An application whose tasks show what a pod's process is like. Imported by pods and by tests."""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from datetime import date
from typing import Any

from celery import Celery, signals
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.result import AsyncResult, GroupResult
from celery.utils.log import get_task_logger

from tests.apps import pod_types
from tests.apps.pod_types import Money

app = Celery("pods", broker="redis://nowhere.invalid", backend="redis://nowhere.invalid", set_as_current=False)
app.conf.update(
    worker_task_log_format="TASK %(task_name)s[%(task_id)s] %(message)s", worker_log_format="ROOT %(message)s"
)


@signals.after_setup_task_logger.connect
def _more(logger: logging.Logger, **_: Any) -> None:
    logger.addHandler(logging.StreamHandler(sys.stdout))


@app.task
def value(name: str) -> Any:
    return {"date": date(2030, 1, 2), "set": {1}, "long": "x" * 100_000}[name]


@app.task
def closes_its_files(how: str, size: int) -> str:
    """As a daemon does."""
    if how == "objects":
        sys.stdout.close()
        sys.stderr.close()
    else:
        os.close(1)
        os.close(2)
    return "x" * size


@app.task
def cents(money: Money) -> int:
    return money.cents


@app.task
def says() -> None:
    get_task_logger("mine").warning("of the task")
    logging.getLogger("theirs").warning("of a library")
    print("printed")


@app.task
def kills_itself(number: int) -> None:
    print("before", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(30)


@app.task
def sleeps(seconds: float) -> str:
    print("sleeping", flush=True)
    time.sleep(seconds)
    return "slept"


@app.task
def swallows(seconds: float) -> str:
    end, said = time.monotonic() + seconds, "slept"
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except SoftTimeLimitExceeded:
            said = "swallowed"
    return said


@app.task
def holds_the_interpreter(seconds: int) -> None:
    """As a body in C code does that never lets go."""
    ctypes.PyDLL(None).sleep(seconds)


@app.task
def goes_on_in_a_thread(seconds: float) -> str:
    """Its thread outlives it."""

    def work() -> None:
        time.sleep(seconds)
        print("the thread has ended", flush=True)

    threading.Thread(target=work).start()
    return "returned"


@app.task
def results() -> list[Any]:
    one = AsyncResult("one", app=app, parent=AsyncResult("zero", app=app))
    many = GroupResult("many", [one], app=app)
    held = app.AsyncResult("two")
    del held
    return [one.as_tuple(), many.as_tuple(), one == AsyncResult("one", app=app)]


@app.task
def a_result() -> Any:
    return AsyncResult("one", app=app)


@app.task
def on_the_spot() -> Any:
    return cents.apply((Money(5),)).get(disable_sync_subtasks=False)


@app.task
def asks(how: str) -> Any:
    result = AsyncResult("one", app=app)
    return {"state": lambda: result.state, "get": result.get, "delay": lambda: cents.delay(1)}[how]()


@app.task
def raises(kind: str) -> None:
    pod_types.raises(kind)


@app.task(bind=True)
def retries_with(self: Any) -> None:
    self.retry(args=(object(),))


@app.task
def rejects() -> None:
    raise Reject("no", requeue=False)


@app.task
def waits_for_sigterm() -> None:
    print("waiting", flush=True)
    signal.pause()
