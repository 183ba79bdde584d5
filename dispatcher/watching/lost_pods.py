"""Lost pods: the record lacks their end, or its report, and they were deleted while no dispatcher watched.

A dispatcher knows the pods of its own time from its watch. What was launched before it started it finds in the cluster
(adoption), unless somebody deleted it meanwhile, or the cluster lost it: then only its row is left. For each row whose
end is not reported and that is nobody's, the API server is asked for the pod; where it is gone, the result backend
decides: an outcome that is stored closes the row, else the attempt is lost, which is stored as its failure (cause:
infrastructure), whatever phase its pod was seen in last: what it left is gone with it. Rows that only waited for a pod
are removed: their message is delivered or sent again. Level-triggered, on the loop's thread.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher import errors
from dispatcher.attempts.celery_side import Questions
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.status_store import PodRow, PodStore
from dispatcher.kubeapi import client
from dispatcher.manifests import labels, names

logger = logging.getLogger(__name__)

FIRST_AFTER_S = 5.0
EVERY_S = 15.0
QUIET_S = 10.0
"""A row that was written more recently may have its end on the way."""
AT_ONCE = 200
"""Rows looked at in one round; those that stay as they are come last in the next one."""


class LostPods:
    """Looks for them, for ever."""

    def __init__(
        self,
        kube: client.KubeClient,
        *,
        database_url: str,
        deployment: str,
        owner: str,
        attempts: Attempts,
        questions: Questions,
    ) -> None:
        self._client = kube
        self._database_url = database_url
        self._store: PodStore | None = None
        self._deployment = deployment
        self._owner = owner
        self._attempts = attempts
        self._questions = questions
        self._looked_mono_s: dict[tuple[str, int], float] = {}
        """(attempt id, retries) of open rows -> when they were looked at last."""

    async def run(self) -> None:
        """Looks, waits, and looks again until it is cancelled."""
        # After the first list, as a rule: what adoption finds is in flight by then, and its rows are not looked at.
        await asyncio.sleep(FIRST_AFTER_S)
        while True:
            try:
                await self._look()
            except (errors.StoreUnavailable, errors.ApiError, errors.ApiUnavailable) as error:
                logger.debug("missing pods were not looked for: %s", error)
            except Exception:
                logger.exception("looking for missing pods failed")
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> None:
        before = datetime.now(UTC) - timedelta(seconds=QUIET_S)
        rows = await asyncio.to_thread(lambda: self._rows().open_rows(deployment=self._deployment, before=before))
        known = self._known()
        rows = [row for row in rows if _key(row) not in known]
        if not rows:
            return
        ownerless = await self._ownerless(rows)
        looked = {key: at for row in ownerless if (at := self._looked_mono_s.get(key := _key(row))) is not None}
        # Those that were looked at the longest ago first: more than AT_ONCE that stay open must not hide the others.
        due = sorted(ownerless, key=lambda row: looked.get(_key(row), float("-inf")))[:AT_ONCE]
        # Only of rows that are open still, so that the memory is bounded by the table.
        self._looked_mono_s = looked | {_key(row): time.monotonic() for row in due}
        for row in due:
            await self._look_at(row)

    async def _look_at(self, row: PodRow) -> None:
        # It never had a pod: its message is the broker's, or the scheduler's,
        # to bring again, and makes a row of its own.
        if row.phase == "Waiting":
            await asyncio.to_thread(self._rows().forget, row)
            return
        try:
            pod = await self._pod_of(row)
        except errors.ApiError as error:
            if error.status == 429:
                raise  # the server wants fewer calls: the rest is for the next round
            logger.debug("a missing pod was not looked for pod=%s: %s", row.name, error)
            return
        # Asked again: it may have been adopted while the API server was asked.
        if _key(row) in self._known():
            return
        if pod is None:
            await self._end(row)
        elif labels.is_done(pod):  # its dispatcher was killed between that mark and the row
            await asyncio.to_thread(self._rows().reported, row, at=datetime.now(UTC))

    def _known(self) -> set[tuple[str, int]]:
        """(attempt id, retries) of what is in flight here."""
        return {(attempt.id, attempt.key.retries) for attempt in self._attempts}

    def _rows(self) -> PodStore:
        if self._store is None:
            # When first needed, in the helper thread: making an engine imports the driver.
            self._store = PodStore(self._database_url)
        return self._store

    async def _ownerless(self, rows: Iterable[PodRow]) -> list[PodRow]:
        """Those of ours, from before we started, and those of dispatchers that do not answer."""
        mine = names.label_value(self._owner)
        owners = {names.label_value(row.owner) for row in rows} - {mine}
        # A ping takes its whole two seconds: it is left out where only rows of our own are open.
        alive = await asyncio.to_thread(self._questions.alive) if owners else set()
        gone = (
            {mine}
            # Not even our own answer came back: the broker says nothing about
            # anybody, and only our own rows are judged.
            if alive is None
            else {mine, *owners} - {names.label_value(name) for name in alive if name != self._owner}
        )
        return [row for row in rows if names.label_value(row.owner) in gone]

    async def _pod_of(self, row: PodRow) -> Mapping[str, Any] | None:
        """The pod of a row; None where it is gone, or its name is another's."""
        pod = await self._client.find_pod(row.namespace, row.name)
        # By uid: a launch that was requeued has the same name, and is not the pod that this row is about.
        return pod if pod is not None and row.uid in (None, pod["metadata"]["uid"]) else None

    async def _end(self, row: PodRow) -> None:
        try:
            state = await asyncio.to_thread(self._questions.store_lost, row)
        except Exception as error:  # the result backend is away: the next round looks again
            logger.debug("a missing pod's outcome is not known pod=%s: %r", row.name, error)
            return
        # What stands in the result backend wins over what the row says: it is the verdict that people got.
        phase = {"SUCCESS": "Succeeded", "LOST": "Lost"}.get(state or "", "Failed")
        if state == "LOST":
            logger.warning("pod lost attempt_id=%s namespace=%s pod=%s", row.attempt_id, row.namespace, row.name)
        await asyncio.to_thread(self._rows().end, row, phase=phase, at=datetime.now(UTC))


def _key(row: PodRow) -> tuple[str, int]:
    return (row.attempt_id, row.retries)
