"""The first process of a task pod: it starts a second one for the body, forwards signals, and keeps the time limits.

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
# Not SIGUSR1: that is our own soft limit, and the body could not tell the two apart.
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)
_HANDLED = (*_FORWARDED, signal.SIGCHLD)
SOFT_SIGNAL = signal.SIGUSR1
"""Interrupts the body at its soft time limit, as Celery's prefork pool does."""
BODY_ENDED = b"over\n"
"""What the second process sends when its body has ended: no limit holds any more."""


def limits_line(*, soft_s: float | None, hard_s: float | None, termination_message: bytes) -> bytes:
    """What the second process sends when its body begins. The message is left when the hard limit passes."""
    return b"%r %r %b\n" % (soft_s or 0.0, hard_s or 0.0, termination_message)


def start() -> int:
    """Goes on in a second process, whose file descriptor for `limits_line` and `BODY_ENDED` is returned.

    The first one stays behind until the second has ended, and ends with its exit code.
    """
    # Blocked over the fork: the kernel drops a SIGTERM for a first process without
    # a handler, but keeps a blocked one until `_signal_pipe` has its handlers.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    limits_reader, limits_writer = os.pipe()
    child = os.fork()
    if child:
        os.close(limits_writer)
        code = _Init(child, limits_reader).run()
        # Nothing to clean up: what Python would do at its end belongs to the second process.
        os._exit(code)
    os.close(limits_reader)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    return limits_writer


def termination_file() -> str:
    """Where the kubelet finds the termination message of a container."""
    return os.environ.get("PODYARD_TERMINATION_PATH") or TERMINATION_FILE


class _Init:
    """The first process, from the fork on."""

    def __init__(self, child: int, limits_reader: int) -> None:
        self._child = child
        self._limits_reader = limits_reader
        self._text = b""
        self._soft_mono_s: float | None = None
        self._hard_mono_s: float | None = None
        self._hard_s = 0.0
        self._termination_message = b""
        self._is_out_of_time = False

    def run(self) -> int:
        """Returns the exit code of the pod."""
        signals = _signal_pipe()
        sources = [signals, self._limits_reader]
        while (code := self._exit_code()) is None:
            ready, _, _ = select.select(sources, [], [], self._left_s(time.monotonic()))
            # A closed pipe is always readable: kept among the sources it would
            # make this a busy loop. Bodies that become daemons close all files.
            if self._limits_reader in ready and not self._read_limits():
                sources.remove(self._limits_reader)
            if signals in ready:
                for number in os.read(signals, 1024):
                    # SIGCHLD only wakes us: the loop asks next whether the second process has ended.
                    if number != signal.SIGCHLD:
                        self._send(number)
            # After the pipe was read: a body that has ended at the same moment as its limit passes has kept it.
            self._keep_limits(time.monotonic())
        # Before the exit code, which is our own SIGKILL.
        if self._is_out_of_time:
            return self._out_of_time()
        return code if code >= 0 else 128 - code

    def _exit_code(self) -> int | None:
        """That of the second process, negative for a signal; None while it runs. Reaps all others."""
        while True:
            # -1: orphans of the container are given to its first process, and would
            # stay as zombies. WNOHANG, since one SIGCHLD may stand for several ends.
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == self._child:
                return os.waitstatus_to_exitcode(status)
            if pid == 0:
                return None

    def _read_limits(self) -> bool:
        """Takes the limits that the second process sends; False once its end of the pipe is closed."""
        # The capacity of a pipe: the line with a termination message of 4 KiB comes whole or in parts, both are fine.
        data = os.read(self._limits_reader, 65536)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            if line + b"\n" == BODY_ENDED:
                self._soft_mono_s = self._hard_mono_s = None
                continue
            # The message is JSON: blanks are possible in it, line feeds are not.
            soft, hard, self._termination_message = line.split(b" ", 2)
            # Counted from here, in this process: the body may hold its own interpreter for minutes.
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
            # Once only: a body may catch the exception and go on, up to its hard limit.
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
        with open(termination_file(), "wb") as file:  # pathlib would cost this process a megabyte
            file.write(self._termination_message)
        return 1


def _signal_pipe() -> int:
    """A file descriptor on which the numbers of signals arrive, also of those that came before."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    # `set_wakeup_fd` refuses a blocking one: a handler that waits for room in the pipe would hang the process.
    os.set_blocking(writer, False)
    # Python writes to the pipe for signals that have a handler of its own, not for ignored ones.
    for number in _HANDLED:
        signal.signal(number, _ignore)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # Last: what came since the start is delivered now, and finds handler and pipe.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    return reader


def _ignore(number: int, frame: FrameType | None) -> None:
    """The number is read from the file descriptor."""
