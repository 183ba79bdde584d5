"""The one place where the two threads of a dispatcher meet: Celery's hub and the loop that speaks to the cluster.

`to_loop` and `to_hub` pass a call to the other side; nothing else is shared. Calls keep their order. Called by the
pool; knows nothing of pods.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

STOP_BOUND_S = 5.0
"""How long a stop waits for calls to the cluster that are under way."""


T = TypeVar("T")
_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class Bridge:
    """A thread with an asyncio loop, and a way to and fro."""

    def __init__(self, *, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._calls: deque[_Call] = deque()
        self._loop_calls: deque[_Call] = deque()
        self._is_hub_woken = self._is_loop_woken = False
        """Whether a wake-up is under way, which carries out what was put in line before it arrives."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._main: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Starts the loop's thread with `main`, which is cancelled by `stop`."""
        self._main = main
        self._thread.start()

    def stop(self) -> None:
        """Cancels `main`, after its end everything else, and waits for the thread, for at most `STOP_BOUND_S`."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(lambda: self._running and self._running.cancel())
        self._thread.join(STOP_BOUND_S)
        if self._thread.is_alive():
            logger.warning("the cluster thread did not end in %s s; it ends with the process", STOP_BOUND_S)

    def to_loop(self, call: Callable[..., Any], *args: Any) -> None:
        """Runs `call` on the loop's thread, soon. After the stop it does nothing."""
        if self._loop.is_closed():
            return
        self._loop_calls.append((call, args))
        if not self._is_loop_woken:
            self._is_loop_woken = True
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._on_called)

    def ask(self, question: Callable[[], Coroutine[Any, Any, Any]], *, timeout_s: float) -> Any:
        """The answer of a coroutine on the loop, from a thread that is neither; TimeoutError after `timeout_s`."""
        asked = asyncio.run_coroutine_threadsafe(question(), self._loop)
        try:
            return asked.result(timeout_s)
        finally:
            asked.cancel()

    def start_asking(self, question: Callable[[], Coroutine[Any, Any, T]]) -> "concurrent.futures.Future[T]":
        """As `ask`, for a thread that must not wait: the answer is looked for later."""
        return asyncio.run_coroutine_threadsafe(question(), self._loop)

    def to_hub(self, call: Callable[..., Any], *args: Any) -> None:
        """Runs `call` on the hub's thread, soon."""
        self._calls.append((call, args))
        if self._is_hub_woken:
            return
        self._is_hub_woken = True
        with contextlib.suppress(BlockingIOError):  # the pipe is full of wake-ups already
            os.write(self._writer, b"\0")

    def register(self, hub: Any) -> None:
        """Lets the hub carry out what `to_hub` brings. Called again after each reconnect to the broker."""
        hub.add_reader(self._reader, self._on_readable)

    def _on_readable(self) -> None:
        try:
            os.read(self._reader, 65536)
        except BlockingIOError:
            return
        self._is_hub_woken = False  # before the calls are counted: one that comes now is counted, or wakes us again
        _carry_out(self._calls, "hub")

    def _on_called(self) -> None:
        self._is_loop_woken = False  # as above
        _carry_out(self._loop_calls, "loop")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            assert self._main is not None  # noqa: S101 - start() has set it
            self._running = self._loop.create_task(self._main())
            self._loop.run_until_complete(self._running)
        except asyncio.CancelledError:
            pass
        except Exception:
            logger.exception("the cluster thread ended; no pod is launched or watched any more")
        finally:
            rest = asyncio.all_tasks(self._loop)
            for task in rest:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def _carry_out(calls: deque[_Call], side: str) -> None:
    """All calls that wait now."""
    for _ in range(len(calls)):
        call, args = calls.popleft()
        try:
            call(*args)
        except Exception:
            logger.exception("a call on the %s failed: %s", side, getattr(call, "__qualname__", call))
