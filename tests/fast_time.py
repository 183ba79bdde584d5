"""Fast time: runs a coroutine on an event loop that waits for nothing but threads; its clock jumps instead.

For unit tests of what sleeps, backs off or has a time-out: an hour of back-off passes at once, in the right order.
`time.monotonic` is that clock meanwhile, so times that are compared with it fit. Wall-clock time is the real one.

    fast_time.run(launcher.close())
    fast_time.skip(5)                       # inside: as if the process had been stopped for so long

A loop that nothing could wake any more raises instead of hanging.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")

AT_MOST_S = 24 * 3600.0
"""What waits longer, by the clock that jumps, waits for ever."""
_real = time.monotonic


TICK_S = 1e-6


class _Clock:
    """Goes by what is waited for, and by a tick at each look, so that no two moments are the same."""

    def __init__(self) -> None:
        self._now_s = _real()
        self.threads = 0
        """Calls in threads that are under way: they take real time."""

    def __call__(self) -> float:
        self.skip(TICK_S)
        return self._now_s

    def skip(self, seconds: float) -> None:
        self._now_s += seconds


class _Selector(selectors.DefaultSelector):
    """Where a loop waits."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Sequence[Any]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if self._clock.threads:
            found = super().select(timeout)
        elif timeout is None:
            raise RuntimeError("nothing is left that could wake this loop")
        if not found and timeout is not None:
            self._clock.skip(timeout)
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self.clock()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        answer = super().run_in_executor(executor, func, *args)
        self.clock.threads += 1
        answer.add_done_callback(self._answered)
        return answer

    async def shutdown_default_executor(self, *args: Any) -> None:
        self.clock.threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.clock.threads -= 1

    def _answered(self, _: Any) -> None:
        self.clock.threads -= 1


def skip(seconds: float) -> None:
    """So much time passes at once, as while a process is stopped. Of the loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    loop.clock.skip(seconds)


async def until(is_so: Callable[[], Any]) -> None:
    """Returns as soon as it is so, without time passing; TimeoutError where it is not within ten real seconds."""
    end_s = _real() + 10
    while not is_so():
        if _real() > end_s:
            raise TimeoutError
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` gives; all that it leaves behind is cancelled."""
    clock = _Clock()

    async def bounded() -> T:
        return await asyncio.wait_for(main, AT_MOST_S)

    with mock.patch("time.monotonic", clock), asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(bounded())
