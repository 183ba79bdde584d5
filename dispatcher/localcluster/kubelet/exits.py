"""The end of processes, reported to an event loop: by pidfd on Linux, by a waiting thread elsewhere."""

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Callable


def watch(process: subprocess.Popen[bytes], ended: Callable[[], None]) -> None:
    """Calls `ended` on the running loop once the process has ended; it is not reaped yet where that is possible."""
    loop = asyncio.get_running_loop()
    try:
        # A pidfd becomes readable at the end and reaps nothing, so
        # the number stays taken until we have killed the group.
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        threading.Thread(target=_wait, args=(process, loop, ended), daemon=True).start()
        return

    def readable() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        ended()

    loop.add_reader(descriptor, readable)


def _wait(process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
    with contextlib.suppress(ChildProcessError):
        # WNOWAIT: as above, it is reaped by `ended`.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to notify
        loop.call_soon_threadsafe(ended)
