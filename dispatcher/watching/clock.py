"""The clock: waits that reach their deadline, and pods that take too long to tell their result. On the loop's thread.

Looks at every attempt again and again, so nothing needs a timer of its own that a restart would lose.
"""

import asyncio
import time

from dispatcher.attempts import current_wait
from dispatcher.attempts.attempt import Attempt, Register
from dispatcher.finishing.completion import Endings
from dispatcher.manifests import result_sidecar
from dispatcher.watching.deadlines import Deadlines
from dispatcher.watching.event_hints import Clues

EVERY_S = 0.5
RESULT_WAIT_S = 60.0
"""How long a result sidecar may take to tell, once the container has ended."""


class Clock:
    """Watches the times of all attempts."""

    def __init__(self, *, register: Register, endings: Endings, deadlines: Deadlines, clues: Clues) -> None:
        self._register = register
        self._endings = endings
        self._deadlines = deadlines
        self._clues = clues

    async def run(self) -> None:
        """Looks for what is late, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            now_s = time.monotonic()
            for attempt in self._register:
                if attempt.stage != "ended":
                    self._check(attempt, now_s)
            self._clues.keep({attempt.uid for attempt in self._register if attempt.uid is not None})

    def _check(self, attempt: Attempt, now_s: float) -> None:
        if attempt.awaits_result_mono is not None:
            if now_s - attempt.awaits_result_mono > RESULT_WAIT_S:
                self._endings.ended(attempt, attempt.seen or current_wait.NOTHING, result_sidecar.Told(kind="lost"))
            return
        wait = attempt.wait
        if wait is None or attempt.started_at is not None:
            return
        if wait.is_over(now_s):
            self._deadlines.act(attempt, wait, now_s=now_s)
        elif attempt.stage == "created":
            self._clues.look(attempt, now_s=now_s)
