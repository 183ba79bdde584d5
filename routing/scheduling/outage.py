"""An outage: says once that something is away and once that it is back, and how long to wait before the next try."""

import logging
import time

from dispatcher import retry

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 2.0
REMIND_S = 60.0


class Outage:
    """What is known of one outside system."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since_mono_s: float | None = None
        self._logged_mono_s = 0.0
        self._failures = 0

    @property
    def is_on(self) -> bool:
        """Whether it is away, as far as was seen."""
        return self._since_mono_s is not None

    def fail(self, error: Exception) -> float:
        """A call failed; returns how many seconds to wait."""
        now_mono_s = time.monotonic()
        if self._since_mono_s is None:
            self._since_mono_s = now_mono_s
        if not self._failures or now_mono_s - self._logged_mono_s >= REMIND_S:
            log.warning("%s is away, waiting for it: %s", self._what, str(error).partition("\n")[0])
            self._logged_mono_s = now_mono_s
        self._failures += 1
        # No jitter: one scheduler acts at a time, so nobody comes back together with it.
        return retry.backoff_s(self._failures, jitter=0, first_s=FIRST_WAIT_S, last_s=MAX_WAIT_S)

    def end(self) -> bool:
        """A call succeeded; returns whether that ended an outage."""
        if self._since_mono_s is None:
            return False
        log.warning("%s is back after %.0f s", self._what, time.monotonic() - self._since_mono_s)
        self._since_mono_s = None
        self._failures = 0
        return True
