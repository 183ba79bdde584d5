"""A wire: a TCP connection to a part that can be cut or fall silent, while the part itself is not touched.

`cut` refuses new connections and breaks the open ones, as a server does that is away. `silence` lets nothing through
and keeps connections open, as a host does that is gone without a word; what was sent meanwhile arrives at the `mend`.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
HOST = "127.0.0.1"
PIECE = 65_536


class Wire:
    """Passes all that comes to `port` on to another port of this machine. Has a thread with an event loop."""

    def __init__(self, *, to_port: int) -> None:
        self._to_port = to_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._thread.start()
        self._writers: set[asyncio.StreamWriter] = set()
        self._passes = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.mend()

    def cut(self) -> None:
        """Refuse, and break what is open."""
        self._run(self._cut())

    def silence(self) -> None:
        """Let nothing through."""
        self._run(self._silence())

    def mend(self) -> None:
        """Let all through again."""
        self._run(self._mend())

    def close(self) -> None:
        """End it."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._passes.set()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _silence(self) -> None:
        self._passes.clear()

    async def _mend(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(HOST, self._to_port)
            self._writers.add(far_writer)
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
            self._writers.discard(far_writer)
        writer.transport.abort()
        self._writers.discard(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                await self._passes.wait()
                writer.write(piece)
                await writer.drain()
        writer.transport.close()
