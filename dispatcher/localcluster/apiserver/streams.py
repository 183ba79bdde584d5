"""The watches that are open now: who listens to what, and how to cut or silence them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from dispatcher.localcluster.objects import notifier


@dataclass(eq=False, kw_only=True)
class Stream:
    """One open watch. `closing` ends it cleanly, `abort` resets its connection."""

    resource: str
    abort: Callable[[], None]
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    silent_until: float = 0.0


class Streams:
    """All open watches."""

    def __init__(self, *, gone_as_status: bool = False) -> None:
        self.gone_as_status = gone_as_status
        """Whether a watch from a forgotten version is HTTP 410 instead of an ERROR event."""
        self.open: set[Stream] = set()
        self.is_over = False
        self._changed = notifier.Notifier()

    @contextmanager
    def opened(self, resource: str, abort: Callable[[], None]) -> Iterator[Stream]:
        """A watch, as long as it is open."""
        stream = Stream(resource=resource, abort=abort)
        # A watch that is opened while the server stops would keep it from stopping.
        if self.is_over:
            stream.closing.set()
        self.open.add(stream)
        try:
            yield stream
        finally:
            self.open.discard(stream)

    def of(self, pattern: str = "*") -> list[Stream]:
        """Those on resources that match."""
        return [stream for stream in self.open if fnmatchcase(stream.resource, pattern)]

    def abort(self, pattern: str = "*") -> int:
        """Resets connections; gives their number."""
        found = self.of(pattern)
        for stream in found:
            stream.abort()
        return len(found)

    def end(self, pattern: str = "*") -> int:
        """Ends streams cleanly, once they look up (notify what they wait for); gives their number."""
        found = self.of(pattern)
        for stream in found:
            stream.closing.set()
        self._changed.notify()
        return len(found)

    def close(self) -> None:
        """Ends all, and those that are opened from now on."""
        self.is_over = True
        self.end()

    def silence(self, pattern: str, until: float) -> int:
        """Holds back all bytes of the streams that are open now until a time of the loop; gives their number."""
        found = self.of(pattern)
        for stream in found:
            stream.silent_until = until
        return len(found)

    async def until_loud(self, stream: Stream) -> None:
        """Returns at once unless the stream is silenced."""
        loop = asyncio.get_running_loop()
        while (left_s := stream.silent_until - loop.time()) > 0 and not stream.closing.is_set():
            # In pieces: a time-out of infinity is none that a loop takes.
            await self._changed.wait(min(left_s, 3600.0))
