"""Retry: the one loop that does a thing again until it works, and how long it waits between tries.

For whatever waits for an outside system: the API server, the result backend, a file that appears. In short:

    async for one in retry.Tries(errors.ApiUnavailable):
        with one:
            pod = await api.read_pod(namespace, name)
        if one.error is not None:
            logger.debug("not yet pod=%s: %s", name, one.error)

The `with` keeps an error of the kinds that are named, and the loop goes on after a wait; any other error passes
through, as does a cancellation. What else a failure means is written into the loop: it may log, count, note a reason,
or raise, which ends it. `Backoff(tries=6)` bounds the tries: the `with` lets the last error through. An error that
carries `retry_after_s` (`errors.ApiError`: the server's `Retry-After`) is waited for at least so long. `is_endless` is
for work that begins again each time it is done, such as a watch. A plain `for` does the same in a thread.

Not tenacity or stamina: of their loop we would use these forty lines, and write `Retry-After`, the count that begins
anew after steady work, and what is said of each failure as callbacks of theirs.
"""

import asyncio
import math
import random
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Kinds = type[Exception] | tuple[type[Exception], ...]

FIRST_S = 0.5
LAST_S = 30.0
RETRY_AFTER_LAST_S = 300.0
"""A server that asks for more is asked again after this time."""


def backoff_s(failures: int, *, jitter: float, first_s: float = FIRST_S, last_s: float = LAST_S) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, shortened by up to half (`jitter` 0 to 1)."""
    # The exponent is bounded: 2 ** 2000 is no float, and a server may be away for days.
    full = min(last_s, first_s * 2 ** min(failures - 1, 10))
    return float(full * (1 - jitter / 2))


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How often to try, and how long to wait in between; the defaults are for calls to the API server."""

    first_s: float = FIRST_S
    last_s: float = LAST_S
    tries: int | None = None
    """The last failure of so many in a row is raised. None: as long as it takes."""
    steady_s: float = math.inf
    """A try that went well for so long before it failed counts as the first: for work that should never end."""
    has_jitter: bool = True
    """Each wait is shortened at random, so that many who failed together do not come back together."""

    def delay_s(self, failures: int, *, error: Exception) -> float:
        """Seconds to wait after so many failures in a row, the last of which was `error`."""
        # By name, so that this module needs no error of ours.
        asked_s = getattr(error, "retry_after_s", None) or 0.0
        jitter = random.random() if self.has_jitter else 0.0
        own_s = backoff_s(failures, jitter=jitter, first_s=self.first_s, last_s=self.last_s)
        return max(own_s, min(asked_s, RETRY_AFTER_LAST_S))


DEFAULT = Backoff()


class Try:
    """One try. A context manager that keeps an error of the kinds that are tried again."""

    def __init__(self, catch: Kinds, backoff: Backoff, *, failures: int) -> None:
        self._catch = catch
        self._backoff = backoff
        self._begun_mono_s = time.monotonic()
        self.failures = failures
        """How many failed in a row, this one included."""
        self.error: Exception | None = None
        """Why it failed; None where it did not."""
        self.delay_s = 0.0
        """Seconds until the next try."""

    def __enter__(self) -> Self:
        # Anew: the loop's body may have done something before its `with`.
        self._begun_mono_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, self._catch):
            # Also for errors that are not ours to keep: they end the loop.
            self.failures = 0
            return False
        is_steady = time.monotonic() - self._begun_mono_s >= self._backoff.steady_s
        self.failures = 1 if is_steady else self.failures + 1
        self.error = error
        self.delay_s = self._backoff.delay_s(self.failures, error=error)
        # False lets the last error through: Python raises it on behind the `with`.
        return self._backoff.tries is None or self.failures < self._backoff.tries


class Tries:
    """The tries of one thing, to be iterated over once; ends after the first that worked, unless `is_endless`."""

    def __init__(self, catch: Kinds, *, backoff: Backoff = DEFAULT, is_endless: bool = False) -> None:
        self._catch = catch
        self._backoff = backoff
        self._is_endless = is_endless
        self._last: Try | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Try:
        if self._is_over():
            raise StopAsyncIteration
        # The wait belongs to the next try: what the loop's body says about a failure is said before it, not after.
        if self._last is not None and self._last.error is not None:
            await asyncio.sleep(self._last.delay_s)
        return self._next()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Try:
        if self._is_over():
            raise StopIteration
        if self._last is not None and self._last.error is not None:
            time.sleep(self._last.delay_s)
        return self._next()

    def _is_over(self) -> bool:
        return self._last is not None and self._last.error is None and not self._is_endless

    def _next(self) -> Try:
        self._last = Try(self._catch, self._backoff, failures=0 if self._last is None else self._last.failures)
        return self._last
