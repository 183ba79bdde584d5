"""One-shot timers by action: set for later, or for sooner than before. Belongs to one event loop."""

import asyncio
from collections.abc import Callable

Action = Callable[[], None]


class Timers:
    """Each action is due at most once."""

    def __init__(self) -> None:
        self._due: dict[Action, asyncio.TimerHandle] = {}

    def later(self, delay_s: float, action: Action) -> None:
        """Runs `action` once after `delay_s` seconds, or sooner if it was set for sooner."""
        loop = asyncio.get_running_loop()
        old = self._due.get(action)
        if old is not None and old.when() <= loop.time() + delay_s:
            return
        if old is not None:
            old.cancel()
        # By the action: the same one asked for twice is due once, at the earlier time.
        self._due[action] = loop.call_later(delay_s, self._run, action)

    def cancel(self) -> None:
        """Nothing is due any more."""
        for timer in self._due.values():
            timer.cancel()
        self._due.clear()

    def _run(self, action: Action) -> None:
        # First, so that the action may set itself again.
        self._due.pop(action, None)
        action()
