"""`podyard_log`: a control command of Celery that reads the log of an attempt, of any dispatcher that has it.

Who asks needs the broker alone. The command is answered on the hub's thread, which never waits: the first question
starts to read and is answered "reading", a later one has the page. Registered with Celery when this module is imported,
which the pool does; in a worker with another pool it says that it has no logs.
"""

import concurrent.futures
import logging
import time
from collections.abc import Mapping
from typing import Any

from celery.worker.control import inspect_command

from dispatcher.finishing.log_page import Page
from dispatcher.watching.controller import Controller
from dispatcher.worker.bridge import Bridge

logger = logging.getLogger(__name__)

NAME = "podyard_log"
AT_ONCE = 16
"""Readings under way or not yet fetched; more of them wait for their turn."""
FORGOTTEN_S = 10.0
"""A page that nobody came back for is given up."""

_Future = concurrent.futures.Future[Page | None]


class LogReader:
    """Starts readings on the loop and hands out what they brought. On the hub's thread."""

    def __init__(self, bridge: Bridge, controller: Controller) -> None:
        self._bridge = bridge
        self._controller = controller
        self._readings: dict[tuple[str, int], tuple[_Future, float]] = {}

    def answer(self, task_id: str, offset: int) -> dict[str, Any]:
        """What is replied to one question: `state` is `reading`, `ready`, `unknown` or `failed`."""
        self._forget_old()
        key = (task_id, offset)
        found = self._readings.get(key)
        if found is None:
            # Anybody who reaches the broker may ask: more than these would be memory of pages that nobody fetches.
            if len(self._readings) < AT_ONCE:
                reading = self._bridge.start_asking(self._controller.log_page(task_id, offset))
                self._readings[key] = (reading, time.monotonic())
            return {"state": "reading"}
        # Never waited for: `inspect` is answered on the hub's thread, which serves everything else, too.
        if not found[0].done():
            return {"state": "reading"}
        del self._readings[key]
        return _reply(found[0])

    def _forget_old(self) -> None:
        limit_mono_s = time.monotonic() - FORGOTTEN_S
        for key, (future, since_mono_s) in list(self._readings.items()):
            if since_mono_s < limit_mono_s:
                future.cancel()
                del self._readings[key]


def _reply(future: _Future) -> dict[str, Any]:
    if future.cancelled():
        return {"state": "failed", "text": "the dispatcher stops"}
    error = future.exception()
    if error is not None:
        logger.info("a log that was asked for could not be read: %s", error)
        return {"state": "failed", "text": str(error)}
    page = future.result()
    if page is None:
        return {"state": "unknown"}
    return {"state": "ready", "source": page.source, "text": page.text, "next": page.next_offset}


@inspect_command(name=NAME, args=[("task_id", str), ("offset", int)], signature="TASK_ID [OFFSET]")
def podyard_log(state: Any, task_id: str = "", offset: int = 0, **kwargs: Any) -> Mapping[str, Any]:
    """The log of an attempt's pod, as far as it is here."""
    reader: LogReader | None = getattr(state.consumer.pool, "log_reader", None)
    return {"state": "unknown"} if reader is None else reader.answer(str(task_id), int(offset or 0))
