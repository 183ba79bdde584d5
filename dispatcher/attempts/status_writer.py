"""The recorder: brings what people may know of pods into the pods' table, in batches, off the hot path.

A message is acknowledged when the row of its pod is written (`when_stored`): whatever is killed or deleted from then
on, there is somebody who can tell that there was a pod. Rows are whole and replace each other, so only the newest of a
batch is written. A database that is away costs nothing but freshness: rows are kept (one per launch) and written when
it is back. Runs on the loop's thread; the write itself in a helper thread.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from dispatcher import errors
from dispatcher.attempts.status_store import PodRow, PodStore

logger = logging.getLogger(__name__)

EVERY_S = 0.2
SOON_S = 0.03
"""Where somebody waits for a row to be written, so much is gathered into one write."""
KEPT_ROWS = 20_000
"""Rows kept while the database is away; the oldest are dropped first: their launches are reported elsewhere too."""


class Recorder:
    """Collects rows and writes them. With no `open_store` it does nothing."""

    def __init__(self, open_store: Callable[[], PodStore] | None) -> None:
        self._open_store = open_store
        self._store: PodStore | None = None
        self._rows: dict[tuple[str, int], PodRow] = {}
        self._is_away = False
        self._waiting: list[Callable[[], None]] = []
        self._wanted = asyncio.Event()

    def when_stored(self, call: Callable[[], None]) -> None:
        """Calls back once all rows so far are written; at once where nothing is stored, or the database is away."""
        if self._open_store is None or self._is_away:
            call()
            return
        self._waiting.append(call)
        self._wanted.set()

    def record(self, row: PodRow) -> None:
        """Takes a row in; it is written within a moment."""
        if self._open_store is None:
            return
        key = (row.attempt_id, row.retries)
        self._rows.pop(key, None)
        self._rows[key] = row
        while len(self._rows) > KEPT_ROWS:
            del self._rows[next(iter(self._rows))]

    async def run(self) -> None:
        """Writes for ever; at cancellation it writes what is left, once."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), EVERY_S)
                    await asyncio.sleep(SOON_S)
                await self.flush()
        except asyncio.CancelledError:
            await self.flush()
            raise

    async def flush(self) -> None:
        """Writes what was collected, or keeps it for the next time."""
        rows, self._rows = self._rows, {}
        waiting, self._waiting = self._waiting, []
        self._wanted.clear()
        try:
            if rows:
                await asyncio.to_thread(self._write, list(rows.values()))
        except errors.StoreUnavailable as error:
            self._rows = {**rows, **self._rows}
            if not self._is_away:
                logger.warning("pod status is not stored for now: %s", error)
            self._is_away = True
        else:
            if self._is_away:
                logger.info("pod status is stored again")
            self._is_away = False
        for call in waiting:
            call()

    def _write(self, rows: list[PodRow]) -> None:
        if self._store is None and self._open_store is not None:
            self._store = self._open_store()
        if self._store is not None:
            self._store.save(rows)
