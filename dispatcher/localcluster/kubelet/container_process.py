"""One container as a process in a session of its own: started, read, ended; its termination message.

Made by the `processes` runtime, which keeps account of process groups so that nothing stays behind.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from dispatcher.localcluster.kubelet import exits, runtime
from dispatcher.localcluster.objects import container_log, manifest, times

log = logging.getLogger(__name__)
MESSAGE_BYTES = 4096
_LOG_MESSAGE_BYTES = 2048
_LOG_MESSAGE_LINES = 80
_READ_BYTES = 64 * 1024
_DRAIN_READS = 64


class ProcessGroups(Protocol):
    """Who keeps account of process groups."""

    def add(self, group: int) -> None:
        """A process group began."""

    def discard(self, group: int) -> None:
        """A process group is about to be reaped."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is started: words, variables, folder."""

    argv: Sequence[str]
    values: Mapping[str, str]
    workdir: str


class TerminationMessage:
    """A container's termination message, by its terminationMessagePolicy."""

    def __init__(self, container: manifest.Container, file: Path, log: container_log.ContainerLog) -> None:
        self._fallback = container.termination_message_policy == "FallbackToLogsOnError"
        self._file = file
        self._log = log

    def read(self, exit_code: int) -> str:
        """The end of the file, at most 4096 bytes; else, after an error and if asked for, the end of the log."""
        with contextlib.suppress(OSError), self._file.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                # The end, not the beginning: the kubelet keeps the last 4096 bytes.
                file.seek(max(0, size - MESSAGE_BYTES))
                return file.read(MESSAGE_BYTES).decode(errors="replace")
        if exit_code and self._fallback:
            tail = self._log.tail(lines=_LOG_MESSAGE_LINES, max_bytes=_LOG_MESSAGE_BYTES)
            return tail.decode(errors="replace")
        return ""


class ContainerProcess:
    """A process in a session of its own, and its output."""

    def __init__(
        self, owner: ProcessGroups, start: Start, *, log: container_log.ContainerLog, message: TerminationMessage
    ) -> None:
        self._owner = owner
        self._log = log
        self._message = message
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[runtime.ContainerEnd] = self._loop.create_future()
        self._is_losing = False
        self._process, self._output = _spawn(start)
        self.started_at: datetime = times.now()
        owner.add(self._process.pid)
        self._loop.add_reader(self._output, self._read)
        exits.watch(self._process, self._exited)

    def terminate(self) -> None:
        """SIGTERM to the container's main process, as a kubelet does."""
        if not self.ended.done():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all of its group."""
        if not self.ended.done():
            # The group and not the process: shells do not pass a kill on to what they started.
            signal_group(self._process.pid, signal.SIGKILL)

    def _read(self) -> bool:
        """Takes over what was printed; False when there is nothing more now."""
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._keep(data)
            return True
        self._loop.remove_reader(self._output)
        return False

    def _keep(self, data: bytes) -> None:
        try:
            self._log.write(data, times.now().timestamp())
        except OSError as error:  # the disk is full: the container goes on, what it prints is lost
            if not self._is_losing:
                log.warning("output of a container is lost: %s", error, extra={"pid": self._process.pid})
            self._is_losing = True

    def _exited(self) -> None:
        """The main process ended: the rest of its group goes with it, as in a container."""
        # Before it is reaped: until then nobody else can get its number, so the right group is hit.
        signal_group(self._process.pid, signal.SIGKILL)
        self._owner.discard(self._process.pid)
        code = self._process.wait()
        for _ in range(_DRAIN_READS):  # a pipe holds less; a process that fled the group may write for ever
            if not self._read():
                break
        self._loop.remove_reader(self._output)
        os.close(self._output)
        # As shells and runtimes count: 128 and the signal's number.
        exit_code = 128 - code if code < 0 else code
        message = self._message.read(exit_code)
        self._log.close()
        self.ended.set_result(runtime.ContainerEnd(exit_code=exit_code, at=times.now(), message=message))


def _spawn(start: Start) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and the reading end of its output; raises StartFailed."""
    if not Path(start.workdir).is_dir():
        raise runtime.StartFailed(f"workingDir {start.workdir} does not exist on this machine")
    output, inlet = os.pipe()
    # The loop reads, and must not wait for a container that prints nothing.
    os.set_blocking(output, False)
    try:
        process = subprocess.Popen(
            start.argv,
            env=start.values,
            cwd=start.workdir,
            stdin=subprocess.DEVNULL,
            stdout=inlet,
            stderr=inlet,
            start_new_session=True,  # a group of its own to kill, and no terminal of ours to read from
        )
    except (OSError, ValueError) as error:
        os.close(output)
        raise runtime.StartFailed(_start_error(start.argv[0], error)) from error
    finally:
        # Ours of the two: while we hold it, the output never ends.
        os.close(inlet)
    return process, output


def _start_error(program: str, error: Exception) -> str:
    """In the words of a container runtime."""
    if isinstance(error, FileNotFoundError):
        why = "no such file or directory" if "/" in program else "executable file not found in $PATH"
    elif isinstance(error, PermissionError):
        why = "permission denied"
    else:
        why = str(error)
    return f'unable to start container process: exec: "{program}": {why}'


def signal_group(group: int, number: int) -> None:
    """Sends a signal to a process group, which may be gone by now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
