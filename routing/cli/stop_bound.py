"""The bound of a stop: a process that was asked to end and has not after a while says what it waits for, and ends.

Whatever hangs at an end (a broker that stands still, a database behind a dead link, a thread that a library joins) is
not worth more: any process of ours may be killed at any moment, and the next one goes on from the record, the broker
and the cluster. A worker's own bodies are waited for as long as they take; ending those is the caller's decision.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

log = logging.getLogger(__name__)

SCHEDULER_S = 4.0
FLOWER_S = 3.0
WORKER_S = 4.0
"""Beside the time in which bodies run."""
DISPATCHER_S = 8.0
"""Calls to the cluster that are under way have five seconds of it (`dispatcher.worker.bridge`)."""
LOOK_S = 0.1


def begin(role: str, *, bound_s: float, is_busy: Callable[[], bool] = lambda: False) -> None:
    """From now on this process has `bound_s` to end, not counting the time in which `is_busy`. Returns at once."""
    watch = threading.Thread(target=_watch, args=(role, bound_s, is_busy), name="stop-bound", daemon=True)
    watch.start()


def _watch(role: str, bound_s: float, is_busy: Callable[[], bool]) -> None:
    left_s = bound_s
    while left_s > 0:
        time.sleep(LOOK_S)
        # Counted in looks and not by the clock: a process that was stopped for a while has not used up its time.
        left_s -= 0.0 if is_busy() else LOOK_S
    log.warning("the %s has not ended %g s after it was asked to and ends now; it waits in %s", role, bound_s, _waits())
    logging.shutdown()
    # Not sys.exit: from a thread that ends the thread alone, and the interpreter joins the very
    # threads that hang. And 0: it was asked to end.
    os._exit(0)


def _waits() -> str:
    """Where the threads stand that keep the process from ending: the main one, and those that are waited for."""
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    found = {
        thread.name: frames[thread.ident]
        for thread in threading.enumerate()
        if thread.ident in frames and (thread is threading.main_thread() or not thread.daemon)
    }
    return "; ".join(f"{name}: {_place(frame)}" for name, frame in found.items())


def _place(frame: FrameType) -> str:
    """The innermost calls, the caller first."""
    calls: list[str] = []
    here: FrameType | None = frame
    while here is not None and len(calls) < 4:
        calls.append(f"{Path(here.f_code.co_filename).name}:{here.f_lineno} {here.f_code.co_name}")
        here = here.f_back
    return " > ".join(reversed(calls))
