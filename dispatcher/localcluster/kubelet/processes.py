"""Containers as processes of this user: a session each, a clean environment, output through a pipe into files.

No isolation whatever: whoever may create pods here runs programs as this user. A guardian process (see `guardian`)
sees to it that nothing stays behind when the local cluster is killed.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dispatcher.localcluster.kubelet import (
    container_process,
    environment,
    exits,
    guardian,
    mount_paths,
    runtime,
    unenforced,
    volumes,
)
from dispatcher.localcluster.objects import container_log, manifest

TERMINATION_VARIABLE = "PODYARD_TERMINATION_PATH"
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

    def __init__(
        self, folder: Path, *, place: environment.Place, lookup: LookupIn, python: Path = Path(sys.executable)
    ) -> None:
        self.folder = folder
        self.programs = python.parent
        """The folder that comes first in every `PATH`: there `python` is."""
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
        # Before the folder goes: processes of an earlier life would write into the new one.
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
            container_process.signal_group(group, signal.SIGKILL)
        process = self._guardian
        if process is not None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, _STOP_S)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def _start_guardian(self) -> None:
        program = str(Path(guardian.__file__).resolve())
        self._guardian = subprocess.Popen(
            # -I and -S: no site packages and no PYTHON variables,
            # so that it starts at once and imports nothing of ours.
            [sys.executable, "-I", "-S", program, self._mark.decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # So that it holds no folder that somebody wants to remove.
            cwd="/",
            env={},
        )
        # A guardian that was killed is replaced, and the new one knows of none.
        for group in self.alive:
            self._send("+", group)
        exits.watch(self._guardian, self._guardian_ended)

    def _guardian_ended(self) -> None:
        if self._guardian is not None:
            self._guardian.poll()
        if not self._closing:
            self._start_guardian()

    def _send(self, sign: str, group: int) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it ended just now: the next one gets all groups
                os.write(self._guardian.stdin.fileno(), f"{sign}{group}\n".encode())

    def add(self, group: int) -> None:
        """A process group began."""
        self.alive.add(group)
        self._send("+", group)

    def discard(self, group: int) -> None:
        """A process group is about to be reaped."""
        self.alive.discard(group)
        self._send("-", group)


class ProcessSandbox:
    """One pod's folder: its volumes, and per container a home, a termination file and a log."""

    def __init__(self, owner: ProcessRuntime, pod: manifest.Pod) -> None:
        self._owner = owner
        self._pod = pod
        self._folder = owner.folder / (pod.metadata.uid or "")
        self._volumes: dict[str, Path] = {}
        self._logs: dict[str, list[container_log.ContainerLog]] = {}
        """The log of each container's last two runs."""
        self._runs: Counter[str] = Counter()
        self._lookup: environment.Lookup = functools.partial(owner.lookup, pod.metadata.namespace or "")
        self.notes = unenforced.notes(pod, self._folder / "volumes")

    def mount(self) -> None:
        """Makes the volumes that a container mounts; raises NotReady `FailedMount`.

        As a kubelet: what nobody mounts is not looked at, and its source need not be there.
        """
        mounted = volumes.in_use(self._pod)
        if mounted:
            self._volumes = volumes.make(
                mounted,
                folder=self._folder / "volumes",
                claims=self._owner.folder.with_name("claims") / (self._pod.metadata.namespace or ""),
                lookup=self._lookup,
            )

    def start(self, container: manifest.Container) -> container_process.ContainerProcess:
        """Starts a container; raises NotReady for what is missing, StartFailed where its command cannot run."""
        _check_image(container.image or "")
        folder = self._folder / container.name
        home, termination = folder / "home", folder / "termination-log"
        paths = volumes.mounted(container, self._volumes)
        declared = container.termination_message_path or "/dev/termination-log"
        # A volume that is mounted at this path wins, as in a container.
        paths.setdefault(declared, str(termination))
        base = self._base_environment(home, termination)
        values = environment.build(container, self._pod, place=self._owner.place, lookup=self._lookup, base=base)
        # Expanded before paths are rewritten: a variable may hold a path of a mount.
        command = _command(container, values)
        values = {key: _plain(mount_paths.rewrite(value, paths)) for key, value in values.items()}
        values["PATH"] = f"{self._owner.programs}:{values['PATH']}"
        for made in (self._folder, folder, home):  # one by one: cheaper than parents=True
            made.mkdir(mode=0o700, exist_ok=True)
        termination.touch(mode=0o600)
        output = self._new_log(container.name, folder)
        workdir = mount_paths.rewrite(container.working_dir, paths) if container.working_dir else str(home)
        argv = [_plain(mount_paths.rewrite(word, paths)) for word in command]
        with _closing_log_on_failure(output):
            start = container_process.Start(argv=argv, values=values, workdir=workdir)
            words = container_process.TerminationMessage(container, termination, output)
            return container_process.ContainerProcess(self._owner, start, log=output, message=words)

    def _base_environment(self, home: Path, termination: Path) -> dict[str, str]:
        name = self._pod.spec.hostname or (self._pod.metadata.name or "")[:63]
        return {
            "PATH": _SYSTEM_PATH,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "HOSTNAME": name,
            TERMINATION_VARIABLE: str(termination),
        }

    def _new_log(self, container: str, folder: Path) -> container_log.ContainerLog:
        """A log for the next run; of the runs before only the last one is kept."""
        kept = self._logs.setdefault(container, [])
        if kept:
            (folder / "termination-log").write_bytes(b"")
            folder = folder / str(self._runs[container])
            folder.mkdir(mode=0o700)
            if len(kept) > 1:
                kept.pop(0).remove()
        self._runs[container] += 1
        kept.append(container_log.ContainerLog(folder))
        return kept[-1]

    def log(self, container: str, *, previous: bool = False) -> container_log.ContainerLog | None:
        """What a container has printed, in this run or in the one before."""
        kept = self._logs.get(container, [])
        if previous:
            return kept[-2] if len(kept) > 1 else None
        return kept[-1] if kept else None

    async def remove(self) -> None:
        """Takes the folder away."""
        # Closed first: a reader that follows ends instead of waiting for output that cannot come.
        for log in itertools.chain(*self._logs.values()):
            log.close()
        if self._folder.exists():
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


@contextlib.contextmanager
def _closing_log_on_failure(output: container_log.ContainerLog) -> Iterator[None]:
    try:
        yield
    except (runtime.StartFailed, OSError):
        output.close()
        raise


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


def _allow_many_files() -> None:
    """Three descriptors per container: the soft limit of 1024 would end at some 300."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
