"""No processes at all: containers end at once, after a while, or are held. For benchmarks of the API's clients."""

import asyncio
from datetime import datetime

from dispatcher.localcluster.kubelet import runtime
from dispatcher.localcluster.objects import container_log, manifest, times


class _Pretended:
    """A container that never was."""

    def __init__(self, *, lasts_s: float | None, message: str) -> None:
        self.started_at: datetime = times.now()
        self.ended: asyncio.Future[runtime.ContainerEnd] = asyncio.get_running_loop().create_future()
        self._message = message
        if lasts_s == 0:
            self._end(0)
        elif lasts_s is not None:
            asyncio.get_running_loop().call_later(lasts_s, self._end, 0)

    def terminate(self) -> None:
        self._end(143)

    def kill(self) -> None:
        self._end(137)

    def _end(self, exit_code: int) -> None:
        if not self.ended.done():
            message = "" if exit_code else self._message
            self.ended.set_result(runtime.ContainerEnd(exit_code=exit_code, at=times.now(), message=message))


class InstantRuntime:
    """Containers end with 0 after `lasts_s` seconds (None: when they are deleted); `message` is their last one."""

    def __init__(self, *, lasts_s: float | None = 0.0, message: str = "") -> None:
        self._lasts_s = lasts_s
        self._message = message
        self.notes = (
            runtime.Note("NotStarted", "nothing is run: this local cluster only pretends (--instant, --hold)"),
        )

    def sandbox(self, pod: manifest.Pod) -> "InstantRuntime":
        return self

    def mount(self) -> None:
        """Nothing to mount."""

    def start(self, container: manifest.Container) -> runtime.RunningContainer:
        return _Pretended(lasts_s=None if container.is_sidecar else self._lasts_s, message=self._message)

    def log(self, container: str, *, previous: bool = False) -> container_log.ContainerLog | None:
        return None

    async def remove(self) -> None:
        """No files."""

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""
