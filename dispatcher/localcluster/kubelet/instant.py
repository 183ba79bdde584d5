"""No processes at all: containers end at once with 0, or are held. For benchmarks of what talks to the API server."""

import asyncio
from datetime import datetime

from dispatcher.localcluster.kubelet import runtime
from dispatcher.localcluster.objects import container_log, manifest, times


class _Pretended:
    """A container that never was."""

    def __init__(self, *, hold: bool, message: str) -> None:
        self.started_at: datetime = times.now()
        self.ended: asyncio.Future[runtime.ContainerEnd] = asyncio.get_running_loop().create_future()
        if not hold:
            self.ended.set_result(runtime.ContainerEnd(exit_code=0, at=self.started_at, message=message))

    def terminate(self) -> None:
        self._end(143)

    def kill(self) -> None:
        self._end(137)

    def _end(self, exit_code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(runtime.ContainerEnd(exit_code=exit_code, at=times.now()))


class InstantRuntime:
    """`hold` keeps containers Running until they are deleted; `message` is their termination message."""

    def __init__(self, *, hold: bool = False, message: str = "") -> None:
        self._hold = hold
        self._message = message
        self.notes = (
            runtime.Note("NotStarted", "nothing is run: this local cluster only pretends (--instant, --hold)"),
        )

    def sandbox(self, pod: manifest.Pod) -> "InstantRuntime":  # noqa: ARG002 - the interface's signature
        return self

    def mount(self) -> None:
        """Nothing to mount."""

    def start(self, container: manifest.Container) -> runtime.RunningContainer:
        return _Pretended(hold=self._hold or container.is_sidecar, message=self._message)

    def log(self, container: str, *, previous: bool = False) -> container_log.ContainerLog | None:  # noqa: ARG002 - as above
        return None

    async def remove(self) -> None:
        """No files."""

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""
