"""Containers as processes of this user: a session each, a clean environment, output through a pipe into files.

No isolation whatever: whoever may create pods here runs programs as this user. A guardian process (see `guardian`)
sees to it that nothing stays behind when the local cluster is killed.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from dispatcher.localcluster import (
    environment,
    exits,
    guardian,
    limits,
    logs,
    manifest,
    mounts,
    runtime,
    times,
    volumes,
)

log = logging.getLogger(__name__)
TERMINATION_VARIABLE = "PODYARD_TERMINATION_PATH"
MESSAGE_BYTES = 4096
_LOG_MESSAGE_BYTES = 2048
_LOG_MESSAGE_LINES = 80
_READ_BYTES = 64 * 1024
_DRAIN_READS = 64
_STOP_S = 2.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IMAGE = re.compile(
    r"^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::\d+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][\w+.-]*:[0-9a-fA-F]{32,})?$"
)

LookupIn = Callable[[str, str, str], Mapping[str, str] | None]
"""(namespace, `configmap` or `secret`, name) -> its data as text, or None."""


class ProcessRuntime:
    """Runs containers as processes with their files under `folder`."""

    def __init__(self, folder: Path, *, place: environment.Place, lookup: LookupIn) -> None:
        self.folder = folder
        self.place = place
        self.lookup = lookup
        self.alive: set[int] = set()
        """Process groups that run now."""
        self._guardian: subprocess.Popen[bytes] | None = None
        self._closing = False

    @property
    def _mark(self) -> bytes:
        return f"{TERMINATION_VARIABLE}={self.folder}/".encode()

    async def open(self) -> None:
        """Ends what an earlier life left, and starts the guardian."""
        guardian.sweep(self._mark)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        _allow_many_files()
        self._start_guardian()

    def sandbox(self, pod: manifest.Pod) -> "ProcessSandbox":
        """A folder for a pod."""
        return ProcessSandbox(self, pod)

    async def close(self) -> None:
        """Kills what still runs; the guardian has the last look."""
        self._closing = True
        for group in tuple(self.alive):
            _signal_group(group, signal.SIGKILL)
        process = self._guardian
        if process is not None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, _STOP_S)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def _start_guardian(self) -> None:
        program = str(Path(guardian.__file__).resolve())
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", program, self._mark.decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={},
        )
        for group in self.alive:
            self._tell("+", group)
        exits.watch(self._guardian, self._guardian_ended)

    def _guardian_ended(self) -> None:
        if self._guardian is not None:
            self._guardian.poll()
        if not self._closing:
            self._start_guardian()

    def _tell(self, sign: str, group: int) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it died just now: the next one is told all groups
                os.write(self._guardian.stdin.fileno(), f"{sign}{group}\n".encode())

    def born(self, group: int) -> None:
        """A process group began."""
        self.alive.add(group)
        self._tell("+", group)

    def died(self, group: int) -> None:
        """A process group is about to be reaped."""
        self.alive.discard(group)
        self._tell("-", group)


class ProcessSandbox:
    """One pod's folder: its volumes, and per container a home, a termination file and a log."""

    def __init__(self, owner: ProcessRuntime, pod: manifest.Pod) -> None:
        self._owner = owner
        self._pod = pod
        self._folder = owner.folder / (pod.metadata.uid or "")
        self._volumes: dict[str, Path] = {}
        self._logs: dict[str, list[logs.ContainerLog]] = {}
        """The log of each container's last two runs."""
        self._runs: Counter[str] = Counter()
        self._lookup: environment.Lookup = functools.partial(owner.lookup, pod.metadata.namespace or "")
        self.notes = limits.notes(pod, self._folder / "volumes")

    def mount(self) -> None:
        """Makes the volumes; raises NotReady `FailedMount`."""
        if self._pod.spec.volumes:
            self._volumes = volumes.make(
                self._pod.spec.volumes,
                folder=self._folder / "volumes",
                claims=self._owner.folder.with_name("claims") / (self._pod.metadata.namespace or ""),
                lookup=self._lookup,
            )

    def start(self, container: manifest.Container) -> "ContainerProcess":
        """Starts a container; raises NotReady for what is missing, StartFailed where its command cannot run."""
        _check_image(container.image or "")
        folder = self._folder / container.name
        home, termination = folder / "home", folder / "termination-log"
        paths = volumes.mounted(container, self._volumes)
        declared = container.termination_message_path or "/dev/termination-log"
        paths.setdefault(declared, str(termination))
        base = self._base_environment(home, termination)
        values = environment.build(container, self._pod, place=self._owner.place, lookup=self._lookup, base=base)
        command = _command(container, values)
        values = {key: _plain(mounts.rewrite(value, paths)) for key, value in values.items()}
        values["PATH"] = f"{Path(sys.executable).parent}:{values['PATH']}"
        for made in (self._folder, folder, home):  # one by one: cheaper than parents=True
            made.mkdir(mode=0o700, exist_ok=True)
        termination.touch(mode=0o600)
        output = self._new_log(container.name, folder)
        workdir = mounts.rewrite(container.working_dir, paths) if container.working_dir else str(home)
        argv = [_plain(mounts.rewrite(word, paths)) for word in command]
        with _closing_log_on_failure(output):
            return ContainerProcess(
                self._owner, _Start(argv, values, workdir), log=output, message=_Message(container, termination, output)
            )

    def _base_environment(self, home: Path, termination: Path) -> dict[str, str]:
        name = self._pod.spec.hostname or (self._pod.metadata.name or "")[:63]
        return {
            "PATH": _SYSTEM_PATH,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "HOSTNAME": name,
            TERMINATION_VARIABLE: str(termination),
        }

    def _new_log(self, container: str, folder: Path) -> logs.ContainerLog:
        """A log for the next run; of the runs before only the last one is kept."""
        kept = self._logs.setdefault(container, [])
        if kept:
            (folder / "termination-log").write_bytes(b"")
            folder = folder / str(self._runs[container])
            folder.mkdir(mode=0o700)
            if len(kept) > 1:
                kept.pop(0).remove()
        self._runs[container] += 1
        kept.append(logs.ContainerLog(folder))
        return kept[-1]

    def log(self, container: str, *, previous: bool = False) -> logs.ContainerLog | None:
        """What a container has printed, in this run or in the one before."""
        kept = self._logs.get(container, [])
        if previous:
            return kept[-2] if len(kept) > 1 else None
        return kept[-1] if kept else None

    async def remove(self) -> None:
        """Takes the folder away."""
        for log in itertools.chain(*self._logs.values()):
            log.close()
        if self._folder.exists():
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


class _Start:
    """What is started: words, variables, folder."""

    def __init__(self, argv: list[str], values: dict[str, str], workdir: str) -> None:
        self.argv = argv
        self.values = values
        self.workdir = workdir


class _Message:
    """A container's last words, by its terminationMessagePolicy."""

    def __init__(self, container: manifest.Container, file: Path, log: logs.ContainerLog) -> None:
        self._fallback = container.termination_message_policy == "FallbackToLogsOnError"
        self._file = file
        self._log = log

    def read(self, exit_code: int) -> str:
        """The end of the file, at most 4096 bytes; else, after an error and if asked for, the end of the log."""
        with contextlib.suppress(OSError), self._file.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                file.seek(max(0, size - MESSAGE_BYTES))
                return file.read(MESSAGE_BYTES).decode(errors="replace")
        if exit_code and self._fallback:
            tail = self._log.tail(lines=_LOG_MESSAGE_LINES, max_bytes=_LOG_MESSAGE_BYTES)
            return tail.decode(errors="replace")
        return ""


class ContainerProcess:
    """A process in a session of its own, and its output."""

    def __init__(self, owner: ProcessRuntime, start: _Start, *, log: logs.ContainerLog, message: _Message) -> None:
        self._owner = owner
        self._log = log
        self._message = message
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[runtime.Ended] = self._loop.create_future()
        self._is_losing = False
        self._process, self._output = _spawn(start)
        self.started_at: datetime = times.now()
        owner.born(self._process.pid)
        self._loop.add_reader(self._output, self._read)
        exits.watch(self._process, self._exited)

    def terminate(self) -> None:
        """SIGTERM to the container's main process, as a kubelet does."""
        if not self.ended.done():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all of its group."""
        if not self.ended.done():
            _signal_group(self._process.pid, signal.SIGKILL)

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
        _signal_group(self._process.pid, signal.SIGKILL)
        self._owner.died(self._process.pid)
        code = self._process.wait()
        for _ in range(_DRAIN_READS):  # a pipe holds less; a process that fled the group may write for ever
            if not self._read():
                break
        self._loop.remove_reader(self._output)
        os.close(self._output)
        exit_code = 128 - code if code < 0 else code
        message = self._message.read(exit_code)
        self._log.close()
        self.ended.set_result(runtime.Ended(exit_code=exit_code, at=times.now(), message=message))


@contextlib.contextmanager
def _closing_log_on_failure(output: logs.ContainerLog) -> Iterator[None]:
    try:
        yield
    except (runtime.StartFailed, OSError):
        output.close()
        raise


def _spawn(start: _Start) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and the reading end of its output; raises StartFailed."""
    if not Path(start.workdir).is_dir():
        raise runtime.StartFailed(f"workingDir {start.workdir} does not exist on this machine")
    output, inlet = os.pipe()
    os.set_blocking(output, False)
    try:
        process = subprocess.Popen(
            start.argv,
            env=start.values,
            cwd=start.workdir,
            stdin=subprocess.DEVNULL,
            stdout=inlet,
            stderr=inlet,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        os.close(output)
        raise runtime.StartFailed(_start_error(start.argv[0], error)) from error
    finally:
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


def _command(container: manifest.Container, values: Mapping[str, str]) -> list[str]:
    if not container.command:
        raise runtime.StartFailed(
            f"container {container.name} has no command: the local cluster pulls no image, so it does not know the "
            f"entrypoint of {container.image}; say `command` in the pod"
        )
    return [environment.expand(word, values) for word in [*container.command, *(container.args or [])]]


def _plain(text: str) -> str:
    """A process takes no NUL."""
    return text.replace("\0", "")


def _check_image(image: str) -> None:
    if not _IMAGE.match(image):
        words = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": '
        words += "invalid reference format"
        if _IMAGE.match(image.lower()):
            words += ": repository name must be lowercase"
        raise runtime.NotReady("InvalidImageName", words)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _allow_many_files() -> None:
    """Three descriptors per container: the soft limit of 1024 would end at some 300."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
