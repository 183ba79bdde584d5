"""A notifier wakes every waiter and remembers nothing. Who waits looks at the state first, so nothing is missed.

Not an `asyncio.Condition`: notifying takes no lock and no `await`, and one waiter may wait for several at once.
"""

import asyncio


class Notifier:
    """Belongs to one event loop. Look at the state, then `wait` without an `await` in between."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wakes all who wait now."""
        # Swapped first: who waits again because of this notification waits for the next one.
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Returns True at the next notification, False when `timeout_s` seconds passed without one."""
        return await any_of(self, timeout_s=timeout_s)

    def join(self, waiter: asyncio.Future[None]) -> None:
        """A waiter that the next notification wakes."""
        self._waiting.add(waiter)

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """It waits no longer."""
        self._waiting.discard(waiter)


async def any_of(*notifiers: Notifier, timeout_s: float | None = None) -> bool:
    """Returns True at the next notification of any of them, False when `timeout_s` seconds passed without one."""
    waiter = asyncio.get_running_loop().create_future()
    for notifier in notifiers:
        notifier.join(waiter)
    try:
        done, _ = await asyncio.wait({waiter}, timeout=timeout_s)
        return bool(done)
    finally:
        for notifier in notifiers:
            notifier.leave(waiter)
        # It may still stand in a set that is being notified.
        waiter.cancel()
