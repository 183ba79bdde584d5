"""Retry: the one loop that does a thing again until it works, and how long it waits between tries.

For whatever waits for an outside system: the API server, the result backend, a file that appears. In short:

    pod = await retry.until_done(lambda: api.read_pod(namespace, name), catch=kubeapi_errors)

`catch` says which errors are tried again; all others pass through at once, as does a cancellation. What else a failure
means stands in `on_failure`: it is told each of them and may log, count, note a reason, or raise, which ends the loop:

    def note(failure: retry.Failure) -> None:
        if getattr(failure.error, "status", None) == 404:
            raise failure.error                        # nothing to wait for
        logger.debug("not yet pod=%s: %s", name, failure.error)

`Backoff(tries=6)` bounds the tries: the last error is raised. An error that carries `retry_after_s` (`errors.ApiError`:
the server's `Retry-After`) is waited for at least so long. `forever` does the same for work that begins again each time
it is done, such as a watch. Tests give `sleep` and `Backoff(jitter=...)` and need no clock.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

T = TypeVar("T")

FIRST_S = 0.5
LAST_S = 30.0
RETRY_AFTER_LAST_S = 300.0
"""A server that asks for more is asked again after this time."""


def backoff_s(failures: int, *, jitter: float, first_s: float = FIRST_S, last_s: float = LAST_S) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, shortened by up to half (`jitter` 0 to 1)."""
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
    jitter: Callable[[], float] = random.random
    """0 to 1, drawn anew for each wait, so that many who failed together do not come back together."""

    def delay_s(self, failures: int, *, error: Exception) -> float:
        """Seconds to wait after so many failures in a row, the last of which was `error`."""
        asked_s = getattr(error, "retry_after_s", None) or 0.0
        own_s = backoff_s(failures, jitter=self.jitter(), first_s=self.first_s, last_s=self.last_s)
        return max(own_s, min(asked_s, RETRY_AFTER_LAST_S))


DEFAULT = Backoff()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A try that failed, and what follows unless `on_failure` raises."""

    error: Exception
    failures: int
    """How many in a row, this one included."""
    delay_s: float | None
    """Seconds until the next try; None: there is none, the error is raised."""


def _ignore(failure: Failure) -> None:
    del failure


async def until_done(
    call: Callable[[], Awaitable[T]],
    *,
    catch: type[Exception] | tuple[type[Exception], ...],
    backoff: Backoff = DEFAULT,
    on_failure: Callable[[Failure], None] = _ignore,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """What `call` gives, the first time that it does not raise one of `catch`.

    Raises the last error once `backoff.tries` are used up, any other at once, and what `on_failure` raises.
    """
    failures = 0
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            return await call()
        except catch as error:
            failures = 1 if clock() - began >= backoff.steady_s else failures + 1
            is_last = backoff.tries is not None and failures >= backoff.tries
            delay_s = None if is_last else backoff.delay_s(failures, error=error)
            on_failure(Failure(error=error, failures=failures, delay_s=delay_s))
            if delay_s is None:
                raise
        await sleep(delay_s)


async def forever(
    work: Callable[[], Awaitable[object]],
    *,
    catch: type[Exception] | tuple[type[Exception], ...],
    backoff: Backoff = DEFAULT,
    on_failure: Callable[[Failure], None] = _ignore,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Does `work` again each time it is done, at once after a success, else as `until_done` does."""
    while True:
        await until_done(work, catch=catch, backoff=backoff, on_failure=on_failure, sleep=sleep)
