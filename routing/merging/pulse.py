"""The pulse of a worker: a key that lives as long as the worker does, and children that die with it.

The sweeper declares attempts of a worker without a pulse lost. So that "lost" means "dead", a child process is killed
by the kernel when its worker dies (Linux); elsewhere it ends after its task.
"""

import ctypes
import logging
import os
import signal
import sys
from typing import Any

from celery import bootsteps
from celery.worker import WorkController

log = logging.getLogger(__name__)

PULSE_S = 5.0
LEASE_S = 20
PR_SET_PDEATHSIG = 1


class Pulse(bootsteps.StartStopStep):
    """Beats from the worker's own timer: a worker that hangs has no pulse."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: WorkController, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._timer_entry: Any = None

    def start(self, parent: WorkController) -> None:
        """Begin to beat."""
        self._beat(parent)
        self._timer_entry = parent.timer.call_repeatedly(PULSE_S, self._beat, (parent,))

    def stop(self, parent: WorkController) -> None:  # noqa: ARG002 - the signature is Celery's
        """Stop beating; the last beat runs out by itself, after the children have stored what they did."""
        if self._timer_entry is not None:
            self._timer_entry.cancel()

    def terminate(self, parent: WorkController) -> None:
        """As `stop`."""
        self.stop(parent)

    def _beat(self, parent: WorkController) -> None:
        backend = parent.app.backend
        try:
            backend.beat(lease_s=LEASE_S)
        except backend.connection_errors:
            log.warning("no pulse: the result backend is away")


def die_with_worker(**kwargs: Any) -> None:  # noqa: ARG001 - a signal handler of Celery
    """Ask the kernel to kill this child when its worker dies; called in each new child."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # it died before we could ask (a worker that is PID 1 itself has its pid namespace die)
            log.debug("this child has no worker")
