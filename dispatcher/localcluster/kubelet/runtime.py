"""What runs containers: the interface between the kubelet and processes, or nothing at all (for benchmarks).

`processes.ProcessRuntime` starts real processes; `instant.InstantRuntime` only says that it did.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dispatcher.localcluster.objects import container_log, manifest


class NotReady(Exception):
    """Something that the pod names is not there (yet): `reason` as Kubernetes words it; asked again later."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class StartFailed(Exception):
    """The container cannot be started, and never will be."""


@dataclass(frozen=True, kw_only=True)
class ContainerEnd:
    """How a container ended. `exit_code` is 128 + signal where a signal ended it."""

    exit_code: int
    at: datetime
    message: str = ""


class RunningContainer(Protocol):
    """A started container."""

    started_at: datetime
    ended: asyncio.Future[ContainerEnd]

    def terminate(self) -> None:
        """Asks it to end (SIGTERM)."""

    def kill(self) -> None:
        """Ends it (SIGKILL, the whole group)."""


@dataclass(frozen=True)
class Note:
    """Something that people should know of a pod; becomes an event."""

    reason: str
    message: str


class Sandbox(Protocol):
    """Where one pod's containers run."""

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is different here from a real cluster, for this very pod."""

    def mount(self) -> None:
        """Makes the volumes; raises NotReady while something that they name is missing."""

    def start(self, container: manifest.Container) -> RunningContainer:
        """Starts a container; raises NotReady or StartFailed."""

    def log(self, container: str, *, previous: bool = False) -> container_log.ContainerLog | None:
        """What a container has printed, in this run or in the one before; None without such a run."""

    async def remove(self) -> None:
        """Takes away all files."""


class Runtime(Protocol):
    """Opened once, closed once."""

    def sandbox(self, pod: manifest.Pod) -> Sandbox:
        """A place for a pod."""

    async def open(self) -> None:
        """Makes ready."""

    async def close(self) -> None:
        """Ends everything that still runs, within seconds."""
