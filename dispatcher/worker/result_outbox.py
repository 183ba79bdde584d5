"""Unstored: what the result backend did not take is kept, in order, and comes again when it answers.

A call to a backend that is away blocks Celery's hub for as long as its time-out. So after the first failure nothing
more is tried there: one probe asks, in a helper thread and with back-off, and everything that was kept follows its
first answer. What fails although the backend answers has a trouble of its own; it waits alone and delays nobody.
Lives on the hub's thread, its probe on the loop's; used by the pool and by adoption.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dispatcher import retry
from dispatcher.background import Background
from dispatcher.worker.bridge import Bridge

logger = logging.getLogger(__name__)

Call = Callable[[int], None]
"""Tries to store; gets how often it failed before."""
FIRST_S = 0.5
LAST_S = 5.0
ALONE_LAST_S = 30.0
AT_ONCE = 100
"""Calls that are carried out before the hub may do something else."""


class Unstored:
    """The line of calls that wait. `probe` raises while the backend is away; it may block, for a bounded time."""

    def __init__(self, *, bridge: Bridge, probe: Callable[[], Any]) -> None:
        self._bridge = bridge
        self._probe = probe
        self._line: deque[tuple[Call, int]] = deque()
        self._since: float | None = None
        self._is_fresh = False
        """A probe was answered, and nothing was tried since."""
        self._background = Background()

    @property
    def is_away(self) -> bool:
        """Whether the backend is away, as far as is known: then nothing is tried on the hub."""
        return self._since is not None

    def __len__(self) -> int:
        return len(self._line)

    def keep(self, call: Call, *, failures: int = 0) -> None:
        """Puts a call into the line without trying it: the backend is away."""
        self._line.append((call, failures))

    def failed(self, call: Call, *, failures: int, error: Exception) -> None:
        """A call that was tried failed: it comes again, with one failure more."""
        if self._is_fresh:
            self._is_fresh = False
            delay_s = retry.backoff_s(failures + 1, jitter=0, first_s=FIRST_S, last_s=ALONE_LAST_S)
            logger.warning("not stored although the backend answers, again in seconds=%.1f: %r", delay_s, error)
            self._bridge.to_loop(self._alone, call, failures + 1, delay_s)
            return
        self.keep(call, failures=failures + 1)
        if self._since is None:
            self._since = time.monotonic()
            logger.warning("outcomes cannot be stored, they are kept until they can: %r", error)
            self._bridge.to_loop(self._start_probing)

    def _alone(self, call: Call, failures: int, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._bridge.to_hub, call, failures)

    def _start_probing(self) -> None:
        self._background.spawn(self._ask())

    async def _ask(self) -> None:
        failures = 0
        while True:
            jitter = random.random()
            await asyncio.sleep(retry.backoff_s(failures + 1, jitter=jitter, first_s=FIRST_S, last_s=LAST_S))
            try:
                await asyncio.to_thread(self._probe)
            except Exception as error:  # noqa: BLE001 - any backend, any error: it does not answer
                failures += 1
                logger.debug("the result backend does not answer: %r", error)
            else:
                self._bridge.to_hub(self._answered)
                return

    def _answered(self) -> None:
        if self._since is not None:
            away_s = time.monotonic() - self._since
            logger.warning("the result backend answers after seconds=%.0f, kept=%d", away_s, len(self._line))
        self._since = None
        self._is_fresh = True
        self._go_on()

    def _go_on(self) -> None:
        for _ in range(min(AT_ONCE, len(self._line))):
            call, failures = self._line.popleft()
            call(failures)
            self._is_fresh = False
            if self.is_away:
                return
        self._is_fresh = False
        if self._line:
            self._bridge.to_hub(self._go_on)
