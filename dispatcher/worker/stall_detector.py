"""Stalls: this dispatcher did not turn for a while, so others may have taken its pods over and reported their outcomes.

SIGSTOP, a paused machine, a hub that hangs: whatever the cause, pings were not answered meanwhile (`takeover`). What
was read before is acted on afterwards as if no time had passed; that is what this says. The detector
reads no clock; times are passed in, in seconds.
"""

import time
from dataclasses import dataclass
from typing import Self

LIMIT_S = 3.0
"""Shorter than it takes others to find out that we are silent."""
EVERY_S = 1.0
"""How often the hub says that it turns."""


@dataclass(frozen=True)
class Moment:
    """One moment by two clocks: `mono_s` may stand still while the machine is suspended, `boot_mono_s` does not."""

    mono_s: float
    boot_mono_s: float

    @classmethod
    def now(cls) -> Self:
        """This moment."""
        clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux; elsewhere a suspended machine may go unnoticed
        mono_s = time.monotonic()
        return cls(mono_s=mono_s, boot_mono_s=mono_s if clock is None else time.clock_gettime(clock))


class StallDetector:
    """Knows when the hub turned last, and when the last stall ended."""

    def __init__(self, now: Moment) -> None:
        self._turned = now
        self._ended_mono_s: float | None = None

    def turned(self, now: Moment) -> None:
        """The hub turns."""
        # Its end is what is kept: whatever was certain before that moment may have changed.
        if self._is_too_long(now):
            self._ended_mono_s = now.mono_s
        self._turned = now

    def was_since(self, since_mono_s: float, now: Moment) -> bool:
        """Whether there was a stall after `since_mono_s` on the monotonic clock; one that ends just now counts."""
        return self._is_too_long(now) or (self._ended_mono_s is not None and since_mono_s < self._ended_mono_s)

    def _is_too_long(self, now: Moment) -> bool:
        # By both clocks: a suspended machine stops the monotonic one, and its pods were taken over all the same.
        return max(now.mono_s - self._turned.mono_s, now.boot_mono_s - self._turned.boot_mono_s) > LIMIT_S
