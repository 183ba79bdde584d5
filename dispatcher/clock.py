"""The clock: pods that take too long to start, or to tell their result, are ended. On the loop's thread.

Looks at every attempt again and again, so nothing needs a timer of its own that a restart would lose.
"""

import asyncio
import time

from dispatcher import podstatus, resultsidecar, startlimits
from dispatcher.attempt import Attempt, Register
from dispatcher.endings import Endings

EVERY_S = 0.5
RESULT_WAIT_S = 60.0
"""How long a result sidecar may take to tell, once the container has ended."""


class Clock:
    """Watches the times of all attempts that have a pod."""

    def __init__(self, *, register: Register, endings: Endings) -> None:
        self._register = register
        self._endings = endings

    async def run(self) -> None:
        """Looks for what is late, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            now_s = time.monotonic()
            for attempt in self._register:
                if attempt.stage == "created":
                    self._check(attempt, now_s)

    def _check(self, attempt: Attempt, now_s: float) -> None:
        seen = attempt.seen or podstatus.Observation(verdict="none")
        if attempt.awaits_result_mono is not None:
            if now_s - attempt.awaits_result_mono > RESULT_WAIT_S:
                self._endings.ended(attempt, seen, resultsidecar.Told(kind="lost"))
            return
        if attempt.started_at is not None or seen.verdict != "none":
            return
        late = startlimits.late(
            created_s=attempt.created_mono,
            scheduled_s=attempt.scheduled_mono,
            now_s=now_s,
            wanted=attempt.wanted,
            profile=attempt.profile,
        )
        if late is not None:
            self._endings.late(attempt, seen, late)
