"""How loops are woken: a flag that is level-triggered, and a set of attempts to look at. On the loop's thread."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.attempts.attempt import Attempt


class Signal:
    """Says that there may be something to do; saying it twice is the same as once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wakes who waits, or the next one who does."""
        self._event.set()

    async def wait(self, at_most_s: float | None) -> bool:
        """Returns when it was set, at the latest after `at_most_s` (None: never), and clears it. Says if it was set."""
        if not self._event.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    await self._event.wait()
        # Asked once more: it may have been set in the turn of the loop in which the time ran out.
        was_set = self._event.is_set()
        self._event.clear()
        return was_set


class WorkQueue:
    """Attempts of which something has changed, each once, in the order of their first change."""

    def __init__(self) -> None:
        self._attempts: dict[Attempt, None] = {}
        self._signal = Signal()

    def __len__(self) -> int:
        return len(self._attempts)

    def __contains__(self, attempt: object) -> bool:
        return attempt in self._attempts

    def add(self, attempt: "Attempt") -> None:
        """Has an attempt looked at soon."""
        self._attempts[attempt] = None
        self._signal.set()

    async def take(self) -> "list[Attempt]":
        """All that changed, as soon as there is any."""
        # The flag may be left from what `take_now` has taken already.
        while not self._attempts:
            await self._signal.wait(None)
        return self.take_now()

    def take_now(self) -> "list[Attempt]":
        """All that changed so far, none where nothing did."""
        # A new dict: what changes while these are looked at is taken the next time.
        found, self._attempts = list(self._attempts), {}
        return found
