"""Writes rows of the table of pods in batches, off the hot path.

A message is acknowledged when the row of its pod is written (`post_when_stored`): whatever is killed or deleted from
then on, there is a record that there was a pod. Rows are whole and replace each other, so only the newest
of a batch is written. A database that is away costs nothing but freshness: rows are kept (one per launch) and written
when it is back. Runs on the loop's thread; the write itself in a helper thread.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime

from dispatcher import errors
from dispatcher.attempts import current_wait, status_row
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.celery_side import CelerySide, Event
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.signals import Signal
from dispatcher.attempts.status_store import PodRow, PodStore
from dispatcher.options import Options

logger = logging.getLogger(__name__)

EVERY_S = 0.2
SOON_S = 0.03
"""Where somebody waits for a row to be written, so much is gathered into one write."""
KEPT_ROWS = 20_000
"""Rows kept while the database is away; the oldest are dropped first: their launches are reported elsewhere too."""


class StatusWriter:
    """Collects rows and writes them; where the options name no database it writes none."""

    def __init__(self, options: Options, *, owner: str, attempts: Attempts, celery: CelerySide) -> None:
        self._deployment = options.deployment
        self._owner = owner
        self._url = options.database_url
        self._attempts = attempts
        self._celery = celery
        self._store: PodStore | None = None
        self._rows: dict[tuple[str, int], PodRow] = {}
        self._is_away = False
        self._events: list[Event] = []
        """What is posted once all rows so far are written."""
        self._wanted = Signal()

    def write(self, attempt: Attempt) -> None:
        """Looks at what an attempt waits for, and has its row written within a moment."""
        now = status_row.Instant(datetime.now(UTC), time.monotonic())
        self._attempts.waits(attempt, current_wait.look(attempt, now_mono_s=now.mono_s))
        if self._url is not None:
            self._keep(status_row.row(attempt, deployment=self._deployment, owner=self._owner, now=now))

    def post_when_stored(self, event: Event) -> None:
        """Posts an event once all rows so far are written; at once where none is stored, or the database is away."""
        # Nobody waits for a table that is for people (D13); `flush` does not keep events of a write that failed either.
        if self._url is None or self._is_away:
            self._celery.post(event)
            return
        self._events.append(event)
        self._wanted.set()

    async def run(self) -> None:
        """Writes for ever; at cancellation it writes what is left, once."""
        try:
            while True:
                if await self._wanted.wait(EVERY_S):
                    # Not at once: where many pods are created their rows travel in one transaction.
                    await asyncio.sleep(SOON_S)
                await self.flush()
        except asyncio.CancelledError:
            await self.flush()
            raise

    async def flush(self) -> None:
        """Writes what was collected, or keeps it for the next time."""
        # Both in one step, without an await: the row of each event is among these rows, or was written before.
        rows, self._rows = self._rows, {}
        events, self._events = self._events, []
        try:
            if rows:
                await asyncio.to_thread(self._save, list(rows.values()))
        except asyncio.CancelledError:
            self._rows = {**rows, **self._rows}  # its thread may write them yet: rows may be written twice
            self._events = [*events, *self._events]
            raise
        except errors.StoreUnavailable as error:
            if not self._is_away:
                logger.warning("pod status is not stored for now: %s", error)
            # What came meanwhile is newer and wins: rows are whole.
            self._rows, self._is_away = {**rows, **self._rows}, True
        except Exception:  # a driver that is not installed, a fault of ours: nobody waits for ever for a row
            if not self._is_away:
                logger.exception("pod status is not stored for now")
            self._rows, self._is_away = {**rows, **self._rows}, True
        else:
            if self._is_away:
                logger.info("pod status is stored again")
            self._is_away = False
        # After the write: `Launched` acknowledges the message, and from then on the row is what is left of it (ADR 9).
        for event in events:
            self._celery.post(event)

    def _keep(self, row: PodRow) -> None:
        key = (row.attempt_id, row.retries)
        # Out and in again, so that the first in the dict is the one that has not changed for the longest.
        self._rows.pop(key, None)
        self._rows[key] = row
        while len(self._rows) > KEPT_ROWS:
            del self._rows[next(iter(self._rows))]

    def _save(self, rows: list[PodRow]) -> None:
        if self._store is None:
            assert self._url is not None  # no row is kept without it
            self._store = PodStore(self._url)
        self._store.save(rows)
