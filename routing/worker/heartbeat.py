"""The heartbeat of a worker: keys that live as long as the worker and its bodies do, and children that die with it.

The sweeper declares attempts of a worker without a heartbeat lost. So that "lost" means "dead", a child process is
killed by the kernel when its worker dies (Linux); elsewhere it ends after its task.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
from typing import Any

from celery import bootsteps
from celery.worker import WorkController, state

from routing.results import backend

log = logging.getLogger(__name__)

# Three beats may fail before the key is gone.
PULSE_S = 5.0
# Soon: when the server is back, two sweeps without a beat are all that a worker has.
RETRY_S = 1.0
LEASE_S = 20
# Of linux/prctl.h: Python has no name for it.
PR_SET_PDEATHSIG = 1


class Pulse(bootsteps.StartStopStep):
    """Beats from a thread of the worker's main process, over a connection of its own.

    Not from the worker's event loop: that one stands still while the broker is away, though the children work on.
    """

    requires = ("celery.worker.components:Pool",)  # children are forked before there is a thread

    def __init__(self, parent: WorkController, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._stopped = threading.Event()

    def start(self, parent: WorkController) -> None:
        """Begin to beat."""
        # The app's own client would share its lock with the children that are forked later.
        source = parent.app.backend
        beating = backend.Heart(source.new_client(), keys=source.keys, instance=source.instance, lease_s=LEASE_S)
        # A daemon: a worker that ends must not wait for a server that does not answer.
        threading.Thread(target=_beat, args=(beating, self._stopped), name="heartbeat", daemon=True).start()

    def stop(self, parent: WorkController) -> None:
        """Stop beating; the last beat runs out by itself, after the children have stored what they did."""
        self._stopped.set()

    def terminate(self, parent: WorkController) -> None:
        """As `stop`."""
        self.stop(parent)


def _beat(beating: backend.Heart, stopped: threading.Event) -> None:
    while not stopped.is_set():
        wait_s = PULSE_S
        try:
            beating.beat(_running())
        except backend.UNAVAILABLE as error:
            log.debug("no heartbeat: the result backend is away: %s", error)
            wait_s = RETRY_S
        stopped.wait(wait_s)


def _running() -> list[str]:
    """The attempts whose bodies run. Celery's set is changed by another thread meanwhile."""
    while True:
        try:
            return [request.id for request in state.active_requests]
        except RuntimeError:  # changed while it was read
            continue


def die_with_worker(**kwargs: Any) -> None:
    """Ask the kernel to kill this child when its worker dies; called in each new child."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # it died before we could ask (a worker that is PID 1 itself has its pid namespace die)
            log.debug("this child has no worker")
