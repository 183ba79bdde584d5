"""The first process of a task pod: it starts a second one for the body, passes signals on, and keeps the time limits.

Linux shields the first process of a container: a signal without a handler does nothing to it, not even SIGKILL from
inside, and a SIGTERM before Python has its handler is lost. So the body is never that process, and a body that kills
itself is dead as in a Celery worker. Being another process, this one also keeps a hard time limit that a body in C code
does not look at, and reaps what the body leaves behind. It lives as long as the pod: nothing is imported here that
costs memory, neither Celery nor other modules of ours. docs/adr/0011-the-body-is-a-second-process.md
"""

import os
import select
import signal
import sys
import time
from types import FrameType

TERMINATION_FILE = "/dev/termination-log"
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)
_HEARD = (*_PASSED_ON, signal.SIGCHLD)
SOFT_SIGNAL = signal.SIGUSR1
"""Tells the body of its soft time limit, as Celery's prefork pool does."""
OVER = b"over\n"
"""What the second process says when its body has ended: no limit holds any more."""


def limits_line(*, soft_s: float | None, hard_s: float | None, last_words: bytes) -> bytes:
    """What the second process says when its body begins. `last_words` are the termination message of the hard limit."""
    return b"%r %r %b\n" % (soft_s or 0.0, hard_s or 0.0, last_words)


def start() -> int:
    """Goes on in a second process, whose file descriptor for what `limits_line` and `OVER` say is returned.

    The first one stays behind until the second has ended, and ends with its exit code.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    told, tells = os.pipe()
    child = os.fork()
    if child:
        os.close(tells)
        code = _Init(child, told).run()
        os._exit(code)
    os.close(told)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    return tells


def termination_file() -> str:
    """Where the last words of a container are found by the kubelet."""
    return os.environ.get("PODYARD_TERMINATION_PATH") or TERMINATION_FILE


class _Init:
    """The first process, from the fork on."""

    def __init__(self, child: int, told: int) -> None:
        self._child = child
        self._told = told
        self._text = b""
        self._soft_mono_s: float | None = None
        self._hard_mono_s: float | None = None
        self._hard_s = 0.0
        self._last_words = b""
        self._is_out_of_time = False

    def run(self) -> int:
        """Returns the exit code of the pod."""
        heard = _hear()
        sources = [heard, self._told]
        while (code := self._exit_code()) is None:
            ready, _, _ = select.select(sources, [], [], self._left_s(time.monotonic()))
            if self._told in ready and not self._listen():
                sources.remove(self._told)
            if heard in ready:
                for number in os.read(heard, 1024):
                    if number != signal.SIGCHLD:
                        self._send(number)
            self._keep_limits(time.monotonic())
        if self._is_out_of_time:
            return self._out_of_time()
        return code if code >= 0 else 128 - code

    def _exit_code(self) -> int | None:
        """That of the second process, negative for a signal; None while it runs. Reaps all others."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == self._child:
                return os.waitstatus_to_exitcode(status)
            if pid == 0:
                return None

    def _listen(self) -> bool:
        """Takes what the second process says; False where it cannot say any more."""
        data = os.read(self._told, 65536)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            if line + b"\n" == OVER:
                self._soft_mono_s = self._hard_mono_s = None
                continue
            soft, hard, self._last_words = line.split(b" ", 2)
            now_mono_s = time.monotonic()
            self._hard_s = float(hard)
            self._soft_mono_s = now_mono_s + float(soft) if float(soft) else None
            self._hard_mono_s = now_mono_s + float(hard) if float(hard) else None
        return bool(data)

    def _left_s(self, now_mono_s: float) -> float | None:
        """Until the next limit."""
        due = [at for at in (self._soft_mono_s, self._hard_mono_s) if at is not None]
        return max(0.0, min(due) - now_mono_s) if due else None

    def _keep_limits(self, now_mono_s: float) -> None:
        if self._soft_mono_s is not None and now_mono_s >= self._soft_mono_s:
            self._soft_mono_s = None
            self._send(SOFT_SIGNAL)
        if self._hard_mono_s is not None and now_mono_s >= self._hard_mono_s:
            self._hard_mono_s = None
            self._is_out_of_time = True
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        """A signal to the second process, which is not reaped yet: its number is no other's."""
        os.kill(self._child, number)

    def _out_of_time(self) -> int:
        sys.stderr.write(f"podyard: hard time limit ({self._hard_s:g}s) exceeded\n")
        sys.stderr.flush()
        with open(termination_file(), "wb") as file:  # noqa: PTH123 - pathlib would cost this process a megabyte
            file.write(self._last_words)
        return 1


def _hear() -> int:
    """A file descriptor on which the numbers of signals arrive, also of those that came before."""
    heard, hears = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(hears, False)
    for number in _HEARD:
        signal.signal(number, _nothing)
    signal.set_wakeup_fd(hears, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    return heard


def _nothing(number: int, frame: FrameType | None) -> None:
    """The number is read from the file descriptor."""
