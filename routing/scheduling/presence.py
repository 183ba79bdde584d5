"""Presence: which workers are there and which queues they consume, by Celery's own inspection.

A thread of the scheduler asks every few seconds, never on the path of a task, and writes it into the record.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from celery import Celery
from kombu import exceptions

from routing.store import rows, store_errors
from routing.store.store import Store

log = logging.getLogger(__name__)

EVERY_S = 1.5
EARLY_S = 0.25
"""While nobody is there, or somebody did not answer: parts that start together find each other soon, and who is gone
is missed soon."""
ANSWER_S = 1.0
NUMBERS_S = 10.0
"""How often workers are asked for their numbers; one that is new, at once."""
MISSES = 2
"""A worker that did not answer so many looks in a row consumes nothing any more: it may have been busy once."""
# A process that has not been seen for so long leaves the record's list of processes.
FORGET_S = 20.0


@dataclass(frozen=True, kw_only=True)
class SeenProcesses:
    """One look around."""

    consumers: tuple[rows.ConsumerRow, ...]
    processes: tuple[rows.ProcessRow, ...]

    @property
    def queues(self) -> frozenset[str]:
        """The queues that somebody consumes."""
        return frozenset(consumer.queue for consumer in self.consumers)

    @property
    def workers(self) -> frozenset[str]:
        """Who answered."""
        return frozenset(consumer.worker for consumer in self.consumers)


class Presence(threading.Thread):
    """Looks around until `stop`; `queues` is None until a look has succeeded."""

    def __init__(self, app: Celery, store: Store, *, stop: threading.Event) -> None:
        super().__init__(name="presence", daemon=True)
        self._app = app
        self._store = store
        self._stop_event = stop
        self._started_at = datetime.now(UTC)
        self.queues: frozenset[str] | None = None
        self._looks: list[SeenProcesses] = []
        """The last ones, the newest last."""
        self._stats: dict[str, Any] = {}
        self._asked_mono_s = 0.0

    def run(self) -> None:
        """The loop."""
        while not self._stop_event.is_set():
            try:
                self._look()
            except (exceptions.KombuError, redis.RedisError, OSError, store_errors.RecordError) as error:
                log.debug("queues were not looked at: %s", error)  # the scheduler's loop reports what is away
            # The thread lives as long as the scheduler: without it every queue would count as it was last seen.
            except Exception:
                log.exception("looking at queues failed")
            self._stop_event.wait(EVERY_S if self.queues and not self._is_somebody_missing() else EARLY_S)

    def _look(self) -> None:
        # A broadcast: it takes the whole time-out whoever answers, since nobody knows
        # how many will. Hence a thread of its own.
        inspect = self._app.control.inspect(timeout=ANSWER_S)
        queues = inspect.active_queues() or {}
        # Each look would be two broadcasts otherwise, and a worker's numbers hardly change.
        if queues.keys() - self._stats.keys() or (queues and time.monotonic() - self._asked_mono_s > NUMBERS_S):
            self._stats, self._asked_mono_s = inspect.stats() or {}, time.monotonic()
        now = datetime.now(UTC)
        seen = read(queues, {name: self._stats[name] for name in queues if name in self._stats}, now=now)
        me = rows.ProcessRow(
            name=f"scheduler@{socket.gethostname()}",
            kind="scheduler",
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            seen_at=now,
        )
        self._looks = [*self._looks, seen][-MISSES:]
        consumers = tuple({(one.queue, one.worker): one for look in self._looks for one in look.consumers}.values())
        self._store.save_presence(
            consumers=consumers, processes=(me, *seen.processes), since=now - timedelta(seconds=FORGET_S)
        )
        self.queues = frozenset(consumer.queue for consumer in consumers)

    def _is_somebody_missing(self) -> bool:
        """Whether somebody who answered lately did not answer now."""
        before, now = (self._looks[0], self._looks[-1]) if self._looks else (None, None)
        return before is not None and now is not None and bool(before.workers - now.workers)


def read(queues: Mapping[str, Any], stats: Mapping[str, Any], *, now: datetime) -> SeenProcesses:
    """What the answers of workers say: worker -> its queues, worker -> its numbers."""
    consumers = [
        rows.ConsumerRow(queue=str(queue["name"]), worker=worker, pool=_pool(stats.get(worker, {})), seen_at=now)
        for worker, consumed in queues.items()
        for queue in consumed
        if "name" in queue
    ]
    processes = [
        rows.ProcessRow(
            name=worker,
            kind="dispatcher" if "KubernetesPool" in _pool(numbers) else "worker",
            host=worker.partition("@")[2] or worker,
            pid=int(numbers.get("pid") or 0),
            # By our clock: that of the worker's host may be another.
            started_at=now - timedelta(seconds=float(numbers.get("uptime") or 0)),
            seen_at=now,
        )
        for worker, numbers in stats.items()
    ]
    return SeenProcesses(consumers=tuple(consumers), processes=tuple(processes))


def _pool(numbers: Mapping[str, Any]) -> str:
    pool = numbers.get("pool")
    return str(pool.get("implementation", "")) if isinstance(pool, Mapping) else ""
