"""An outage: says once that something is away and once that it is back, and how long to wait before the next try."""

import logging
import time

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 2.0
REMIND_S = 60.0


class Outage:
    """What is known of one outside system."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: float | None = None
        self._told_at = 0.0
        self._failures = 0

    @property
    def is_on(self) -> bool:
        """Whether it is away, as far as was seen."""
        return self._since is not None

    def fail(self, error: Exception) -> float:
        """A call failed; returns how many seconds to wait."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if not self._failures or now - self._told_at >= REMIND_S:
            log.warning("%s is away, waiting for it: %s", self._what, str(error).partition("\n")[0])
            self._told_at = now
        wait_s = min(FIRST_WAIT_S * 2.0 ** min(self._failures, 10), MAX_WAIT_S)
        self._failures += 1
        return wait_s

    def end(self) -> bool:
        """A call succeeded; returns whether that ended an outage."""
        if self._since is None:
            return False
        log.warning("%s is back after %.0f s", self._what, time.monotonic() - self._since)
        self._since = None
        self._failures = 0
        return True
