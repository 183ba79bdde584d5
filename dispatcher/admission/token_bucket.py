"""A token bucket: so many at once, and so many a second in the long run. Pure; time is given."""


class TokenBucket:
    """`rate` tokens a second, at most `burst` of them saved up. A rate of 0 is no limit."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._counted_mono_s: float | None = None

    def wait_s(self, now_mono_s: float) -> float:
        """How long until there is a token; 0 where there is one."""
        if self.rate <= 0:
            return 0.0
        self._fill(now_mono_s)
        return max(0.0, (1 - self._tokens) / self.rate)

    def take(self, now_mono_s: float) -> None:
        """Takes one; ask `wait_s` first."""
        if self.rate > 0:
            self._fill(now_mono_s)
            self._tokens -= 1

    def _fill(self, now_mono_s: float) -> None:
        passed_s = now_mono_s - (now_mono_s if self._counted_mono_s is None else self._counted_mono_s)
        self._tokens = min(float(self.burst), self._tokens + max(0.0, passed_s) * self.rate)
        self._counted_mono_s = now_mono_s
