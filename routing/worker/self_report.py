"""The self-report of a Celery worker: its broker and result backend checked beside its own work.

As the heartbeat it runs in a thread of the worker's main process, because the worker's event loop stands still while
the broker is away. What is found stands in a file for `podyard health` (`dispatcher.worker.process_health`).
"""

import sys
from pathlib import Path
from typing import Any

from celery import bootsteps

from dispatcher.worker import health_checks, process_health

TURN_S = 2.0


def step_into(folder: Path) -> type[bootsteps.StartStopStep]:
    """The worker's step that reports into `folder`."""

    class SelfReport(bootsteps.StartStopStep):
        requires = ("celery.worker.components:Pool",)  # children are forked before there is a thread

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._health = process_health.HealthReporter(
                kind="worker",
                name=parent.hostname,
                folder=folder,
                checks=[health_checks.BrokerCheck(parent.app), health_checks.ResultBackendCheck(parent.app)],
            )

        def start(self, parent: Any) -> None:
            """Begins to check and to write."""
            # By the worker's own timer: it stands still when the event loop does, and that is what shall be seen.
            parent.timer.call_repeatedly(TURN_S, self._health.turned)
            self._health.start()

        def stop(self, parent: Any) -> None:
            """Takes the file away, unless an error is what ends the worker."""
            self._health.stop(why=process_health.failure(sys.exc_info()[1]))

        terminate = stop

    return SelfReport
