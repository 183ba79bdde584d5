"""A shell command: run to its end, its output passed on line by line, and nothing of it left behind.

The command gets a process group of its own. Whatever ends the body (SIGTERM, a time limit, an error) ends the group;
a guard inside the group ends it when this process is gone without a word (SIGKILL, out of memory).
"""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import TextIO

GRACE_S = 3.0
"""Between SIGTERM and SIGKILL for the command's process group."""
MAX_LINE_BYTES = 64 * 1024 * 1024
"""A last line beyond this is cut: results of that size are refused anyway."""
# The kernel's parent-death signal would reach the shell alone, and only on Linux.
_GUARDED = """exec 3<&0 </dev/null
{ read -r _ <&3; kill -s KILL -- -$$; } >/dev/null 2>&1 &
exec "$0" -c "$1" 3<&-"""
"""The guard waits for the end of a pipe that only this process holds open. The shell that the author's command sees has
replaced the one that started the guard, so its `wait` does not wait for the guard."""
_POLL_S = 0.2
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ShellExit:
    """How a command ended: its exit code (128 + number for a signal) and the last line of its standard output."""

    exit_code: int
    last_line: str


def run(command: str, *, env: Mapping[str, str], cwd: str, out: TextIO, err: TextIO) -> ShellExit:
    """Runs the command in bash (sh where there is none). Its output goes to `out` and `err` as it comes."""
    shell = shutil.which("bash") or shutil.which("sh") or "/bin/sh"
    process = subprocess.Popen(
        ["/bin/sh", "-c", _GUARDED, shell, command],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    last = _LastLine()
    with _ended_by_sigterm(process):
        try:
            _pass_on(process, out=out, err=err, last=last)
        finally:
            _end_group(process)
    code = process.returncode
    # As a shell reports it to its caller: 128 + the number of the signal.
    return ShellExit(exit_code=128 - code if code < 0 else code, last_line=last.text())


def _pass_on(process: "subprocess.Popen[bytes]", *, out: TextIO, err: TextIO, last: "_LastLine") -> None:
    """Until the shell has ended and its output is read; programs that it left in the background are not waited for."""
    if process.stdout is None or process.stderr is None:
        return
    with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
        for pipe, sink in ((process.stdout, _Sink(out, last.add)), (process.stderr, _Sink(err))):
            # Ready may turn out to be nothing: a read that blocks would keep the other pipe from being emptied.
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, sink)
        while selector.get_map():
            ready = selector.select(_POLL_S)
            # The pipes stay open for as long as a program in the background has them.
            if not ready and process.poll() is not None:
                break
            for key, _ in ready:
                if not key.data.take(key.fd):
                    selector.unregister(key.fileobj)
        for key in list(selector.get_map().values()):
            key.data.flush()
    process.wait()


@dataclass(slots=True)
class _Sink:
    """Where one pipe's bytes go, as text in whole lines, so that both pipes may share a log."""

    stream: TextIO
    also: Callable[[bytes], None] | None = None
    _rest: bytes = b""

    def take(self, fd: int) -> bool:
        """Reads what is there; False at the end of the pipe."""
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        if self.also:
            self.also(chunk)
        # Bytes until a line is whole: a character may be cut between two reads.
        lines, newline, rest = (self._rest + chunk).rpartition(b"\n")
        self._rest = rest
        self._write(lines + newline)
        if not chunk or len(self._rest) > _CHUNK_BYTES:
            self.flush()
        return bool(chunk)

    def flush(self) -> None:
        """Passes on a line that has no end yet."""
        self._write(self._rest)
        self._rest = b""

    def _write(self, data: bytes) -> None:
        if data:
            self.stream.write(data.decode(errors="backslashreplace"))
            self.stream.flush()


@dataclass(slots=True)
class _LastLine:
    """Remembers the last line of a stream of bytes that is not empty at its end."""

    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _complete: bool = False

    def add(self, chunk: bytes) -> None:
        """More bytes of the stream."""
        if not chunk:
            return
        body = chunk[:-1] if chunk.endswith(b"\n") else chunk
        _, newline, tail = body.rpartition(b"\n")
        if newline or self._complete:
            self._parts, self._size = [], 0
        if self._size < MAX_LINE_BYTES:
            self._parts.append(tail)
            self._size += len(tail)
        self._complete = chunk.endswith(b"\n")

    def text(self) -> str:
        """The line, without its line end."""
        return b"".join(self._parts).decode(errors="backslashreplace").rstrip("\r\n")


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends what is left of the command: politely if the shell still runs, at once what it left in the background."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@contextlib.contextmanager
def _ended_by_sigterm(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Inside, SIGTERM to this process first ends the command, then does what it would have done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)

    def on_term(number: int, frame: FrameType | None) -> None:
        _signal_group(process, signal.SIGTERM)
        deadline_mono_s = time.monotonic() + GRACE_S
        # Not `wait`, which takes a lock that the interrupted code may hold.
        while process.poll() is None and time.monotonic() < deadline_mono_s:
            time.sleep(0.02)
        _signal_group(process, signal.SIGKILL)
        signal.signal(signal.SIGTERM, before)
        if callable(before):
            before(number, frame)
        elif before != signal.SIG_IGN:
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_term)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
