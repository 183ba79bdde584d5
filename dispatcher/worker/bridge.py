"""The one place where the two threads of a dispatcher meet: Celery's hub and the loop that speaks to the cluster.

Events go up and commands come down, as values, each in its order; nothing else is shared. One wake-up carries all that
waits. Made by the pool; knows neither pods nor Celery.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from dispatcher.attempts.celery_side import Command, Event

T = TypeVar("T")

logger = logging.getLogger(__name__)

STOP_BOUND_S = 5.0
"""How long a stop waits for calls to the cluster that are under way."""


class Bridge:
    """A thread with an asyncio loop, and a way to and fro."""

    def __init__(self, *, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # Daemon: a call to the cluster that does not end must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        # No lock: append and popleft of a deque are atomic. Any thread may write, one alone reads.
        self._events: deque[Event] = deque()
        self._commands: deque[Command] = deque()
        # Set on the loop's thread alone (`call_soon_threadsafe`): an asyncio.Event is not made for two threads.
        self._commanded = asyncio.Event()
        self._is_hub_woken = self._is_loop_woken = False
        """Whether a wake-up is under way, which finds what was put there before it arrives."""
        # kombu's hub has no call that another thread may make; a file descriptor that becomes readable wakes it.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._main: Coroutine[Any, Any, None] | None = None
        self._running: asyncio.Task[None] | None = None

    # Celery's side

    def start(self, main: Coroutine[Any, Any, None]) -> None:
        """Starts the loop's thread with `main`, which is cancelled by `stop`."""
        self._main = main
        self._thread.start()

    def stop(self) -> None:
        """Cancels `main`, after its end everything else, and waits for the thread, for at most `STOP_BOUND_S`."""
        if not self._thread.is_alive():
            return
        # Cancelled and not stopped: its `finally`s give back claims and slots, in their order.
        self._loop.call_soon_threadsafe(lambda: self._running and self._running.cancel())
        self._thread.join(STOP_BOUND_S)
        if self._thread.is_alive():
            logger.warning("the cluster thread did not end in %s s; it ends with the process", STOP_BOUND_S)

    def send(self, command: Command) -> None:
        """Hands a command to the loop's thread; returns at once. After the stop it does nothing."""
        if self._loop.is_closed():
            return
        self._commands.append(command)
        if not self._is_loop_woken:
            self._is_loop_woken = True
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._commanded.set)

    def fileno(self) -> int:
        """Readable when there are events."""
        return self._reader

    def events(self) -> list[Event]:
        """The events that came since the last call."""
        with contextlib.suppress(BlockingIOError):
            # The bytes say nothing: all that waits is taken, however many wake-ups there were.
            os.read(self._reader, 65536)
        self._is_hub_woken = False  # before they are counted: one that comes now is counted, or wakes us again
        return [self._events.popleft() for _ in range(len(self._events))]

    def ask(self, question: Coroutine[Any, Any, T], *, timeout_s: float) -> T:
        """The answer of a coroutine on the loop, from a thread that is neither; TimeoutError after `timeout_s`."""
        asked = self.start_asking(question)
        try:
            return asked.result(timeout_s)
        finally:
            # Also at a time-out: what nobody waits for must not go on asking the API server.
            asked.cancel()

    def start_asking(self, question: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """As `ask`, for a thread that must not wait: the answer is looked for later."""
        return asyncio.run_coroutine_threadsafe(question, self._loop)

    # The cluster's side: `attempts.celery_side.CelerySide`

    def post(self, event: Event) -> None:
        """Hands an event to Celery's thread; returns at once."""
        self._events.append(event)
        if self._is_hub_woken:
            return
        # The append came first: the hub clears this mark before it counts, so it counts this event or is woken again.
        self._is_hub_woken = True
        with contextlib.suppress(BlockingIOError):  # the pipe is full of wake-ups already
            os.write(self._writer, b"\0")

    async def commands(self) -> list[Command]:
        """The commands that came since the last call, as soon as there are any."""
        while not self._commands:
            self._commanded.clear()
            self._is_loop_woken = False  # before they are counted, as above
            if not self._commands:
                await self._commanded.wait()
        return [self._commands.popleft() for _ in range(len(self._commands))]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            assert self._main is not None  # start() has set it
            self._running = self._loop.create_task(self._main)
            self._loop.run_until_complete(self._running)
        except asyncio.CancelledError:
            pass
        finally:
            # Questions and background tasks, which are no children of `main`.
            rest = asyncio.all_tasks(self._loop)
            for task in rest:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            # A watch is a generator: closed here, on its own loop, it closes its connection.
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
