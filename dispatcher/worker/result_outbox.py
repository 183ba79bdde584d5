"""What the result backend did not take is kept, in order, and comes again when it answers. On Celery's thread.

A call to a backend that is away blocks Celery's hub for as long as its time-out. So after the first failure nothing
more is tried there: one probe asks, in a helper thread and with back-off, and everything that was kept follows its
first answer. What fails although the backend answers has a trouble of its own; it waits alone and delays nobody. No
time is read here: the pool passes it in with each turn.
"""

import logging
import random
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dispatcher import retry
from dispatcher.worker.process_health import PartCheck

logger = logging.getLogger(__name__)

FIRST_S = 0.5
LAST_S = 5.0
ALONE_LAST_S = 30.0
AT_ONCE = 100
"""Entries that come again in one turn, before the hub may do something else."""


@dataclass(frozen=True)
class OutboxEntry:
    """Something to be done again: a value that the pool understands, and how often it failed before."""

    what: Any
    failures: int = 0


class ResultOutbox:
    """The entries that wait. The check raises while the backend is away; it may block, for a bounded time."""

    def __init__(self, check: PartCheck) -> None:
        self._check = check
        # One: a probe that hangs for its time-out must not have others behind it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podyard-result-probe")
        self._kept: deque[OutboxEntry] = deque()
        self._alone: list[tuple[float, OutboxEntry]] = []
        self._since_mono_s: float | None = None
        self._probing: Future[Any] | None = None
        self._probe_mono_s = 0.0
        self._failed_probes = 0
        self._is_fresh = False
        """A probe was answered, and nothing was tried since."""

    @property
    def is_away(self) -> bool:
        """Whether the backend is away, as far as is known: then nothing is tried on the hub."""
        return self._since_mono_s is not None

    @property
    def is_idle(self) -> bool:
        """Whether no turn is needed."""
        return not (self._kept or self._alone or self.is_away)

    def __len__(self) -> int:
        return len(self._kept) + len(self._alone)

    def keep(self, what: Any, *, failures: int = 0) -> None:
        """Keeps something without trying it: the backend is away."""
        self._kept.append(OutboxEntry(what, failures))

    def failed(self, what: Any, *, failures: int, error: Exception, now_mono_s: float) -> None:
        """Something that was tried failed: it comes again, with one failure more."""
        if self._is_fresh:
            self._is_fresh = False
            delay_s = retry.backoff_s(failures + 1, jitter=0, first_s=FIRST_S, last_s=ALONE_LAST_S)
            logger.warning(
                "not stored although the result backend answers, tried again in seconds=%.1f: %r", delay_s, error
            )
            # The probe was answered a moment ago, so the trouble is this
            # entry's own: kept with the others it would stop them all.
            self._alone.append((now_mono_s + delay_s, OutboxEntry(what, failures + 1)))
            return
        self.keep(what, failures=failures + 1)
        self.noticed(error, now_mono_s=now_mono_s)

    def noticed(self, error: Exception, *, now_mono_s: float) -> None:
        """A call to the backend failed of which nothing need come again: nothing more is tried for now."""
        if self._since_mono_s is None:
            self._since_mono_s, self._failed_probes = now_mono_s, 0
            self._probe_mono_s = now_mono_s + self._pause_s()
            logger.warning("outcomes cannot be stored now and are kept until they can: %r", error)

    def turn(self, *, now_mono_s: float) -> list[OutboxEntry]:
        """What may be tried again now; to be called a few times a second."""
        if self.is_away:
            self._ask(now_mono_s)
            return []
        due = [entry for at, entry in self._alone if at <= now_mono_s]
        self._alone = [(at, entry) for at, entry in self._alone if at > now_mono_s]
        due += [self._kept.popleft() for _ in range(min(AT_ONCE, len(self._kept)))]
        return due

    def requeue(self, entries: list[OutboxEntry]) -> None:
        """What a turn gave and was not tried, since the backend is away again."""
        # To the front and in their order, from which they were taken.
        self._kept.extendleft(reversed(entries))

    def tried(self) -> None:
        """Something of the last turn was stored, or failed."""
        self._is_fresh = False

    def _ask(self, now_mono_s: float) -> None:
        if self._probing is None:
            if now_mono_s >= self._probe_mono_s:
                # By a connection of its own, in another thread: the hub's client may hang in the very call that failed.
                self._probing = self._thread.submit(self._check.run)
        elif self._probing.done():
            error, self._probing = self._probing.exception(), None
            if error is None:
                self._answered(now_mono_s)
            else:
                self._failed_probes += 1
                self._probe_mono_s = now_mono_s + self._pause_s()
                logger.debug("the result backend does not answer: %r", error)

    def _pause_s(self) -> float:
        return retry.backoff_s(self._failed_probes + 1, jitter=random.random(), first_s=FIRST_S, last_s=LAST_S)

    def _answered(self, now_mono_s: float) -> None:
        away_s = now_mono_s - (self._since_mono_s or now_mono_s)
        logger.warning("the result backend answers after seconds=%.0f, kept=%d", away_s, len(self._kept))
        self._since_mono_s = None
        self._is_fresh = True
