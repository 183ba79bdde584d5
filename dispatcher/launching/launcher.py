"""The launcher: takes attempts in and launches those that admission lets through, as many at once as the server may
get.

Steps ③ to ⑤ of the flow. One loop, woken whenever there may be more room: which attempt comes next is `admission`'s to
say, how one is launched `creation`'s. On the loop's thread.
"""

import asyncio
import logging
import time
from dataclasses import replace

from dispatcher.admission.admission import Admission
from dispatcher.attempts import endings
from dispatcher.attempts.attempt import Attempt, Launch
from dispatcher.attempts.registry import Attempts
from dispatcher.launching import blocked_reasons, intake
from dispatcher.launching.creation import Creation
from dispatcher.options import Options

logger = logging.getLogger(__name__)

CLOSE_S = 2.0
LOOK_S = 1.0
"""How often the wait queues and their reasons are looked at, whatever happened."""


class Launcher:
    """The launches under way."""

    def __init__(
        self,
        creation: Creation,
        *,
        attempts: Attempts,
        admission: Admission,
        options: Options,
        owner: str,
    ) -> None:
        self._creation = creation
        self._attempts = attempts
        self._admission = admission
        self._options = options
        self._owner = owner
        self._reasons = blocked_reasons.BlockedReasons()
        self._launches: set[asyncio.Task[None]] = set()
        self._fresh: list[Attempt] = []
        """Taken in since the last look: they have no reason yet for their wait."""
        self._sends = asyncio.Semaphore(options.create_concurrency)
        """Of the launches under way those that are at the API server: others are being claimed meanwhile."""

    async def run(self) -> None:
        """Launches while limits allow, until it is cancelled: no event is needed for it to go on."""
        looked_mono_s = 0.0
        while True:
            again_s = None
            try:
                now_mono_s = time.monotonic()
                self._launch_next(now_mono_s)
                # After the launches: what was launched at once needs no reason, and no row that says so.
                self._explain_fresh(now_mono_s)
                if now_mono_s - looked_mono_s >= LOOK_S:
                    looked_mono_s = now_mono_s
                    self._reasons.explain(self._admission, self._attempts, now_mono_s=now_mono_s)
                again_s = self._admission.again_in_s(time.monotonic())
            except Exception:
                logger.exception("the wait queues could not be looked at")
            # Never 0: a token that is due by less than the clock shows would make this a loop without a pause.
            await self._admission.room.wait(LOOK_S if again_s is None else min(LOOK_S, max(again_s, 0.001)))

    def submit(self, attempt: Attempt) -> None:
        """Takes an attempt in. Its manifest is built at once: what cannot be launched fails before it waits."""
        try:
            pod, launch = intake.prepare(attempt, options=self._options, owner=self._owner)
        except Exception as error:  # whatever a template, an override or a value does fails this attempt alone
            self._attempts.end(attempt, endings.refused(attempt, error))
            return
        # Its name is known before it waits: a pod of it that is there already (a message that came again) finds it.
        self._attempts.name_pod(attempt, pod)
        # With what came of creates before: taken up again after the loops had
        # ended it may have a pod, and its deadline must look for it.
        self._attempts.prepare(attempt, _with_past(launch, attempt.launch))
        attempt.blocked = None
        self._fresh.append(attempt)
        self._admission.add(attempt)

    async def close(self) -> None:
        """Begins no launches any more, and gives those under way a moment to be answered."""
        # Before the wait: launches that still wait for their turn see it and send nothing.
        self._creation.is_closing = True
        if self._launches:
            _, late = await asyncio.wait(self._launches, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _launch_next(self, now_mono_s: float) -> None:
        while not self._creation.is_closing and (attempt := self._admission.take(now_mono_s)) is not None:
            # A task for each: a launch may wait long for the result backend, and the next one need not.
            task = asyncio.get_running_loop().create_task(self._creation.launch(attempt, self._sends))
            self._launches.add(task)
            task.add_done_callback(self._launches.discard)

    def _explain_fresh(self, now_mono_s: float) -> None:
        fresh, self._fresh = self._fresh, []
        for attempt in fresh:
            blocked_reasons.explain(attempt, self._admission, self._attempts, now_mono_s=now_mono_s)


def _with_past(launch: Launch, before: Launch) -> Launch:
    """What is needed for the next create, with what came of those before: one that is taken up again may have a pod."""
    return replace(
        launch, failures=before.failures, is_in_doubt=before.is_in_doubt, doubted_mono_s=before.doubted_mono_s
    )
