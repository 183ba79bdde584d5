"""A server that answers each HTTP request with given bytes, whatever they are: for tests of what clients make of it.

async with tiny_server.TinyServer() as server:
    server.answer = tiny_server.json_answer({"kind": "Pod"})
    ...
    server.requests[-1].headers["authorization"]
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Names in small letters; of a name that came twice, values with commas between them."""
    body: bytes


def answer(
    body: bytes, *, status: int = 200, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole answer of HTTP."""
    fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\nConnection: close\r\n{head}\r\n".encode() + body


def json_answer(thing: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """An answer in JSON."""
    return answer(json.dumps(thing).encode(), status=status, headers=headers)


class TinyServer:
    """Listens on a free port of this machine. `answer`: bytes, or what gives them for a request."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.answer: bytes | Callable[[Seen], bytes] = answer(b"{}")
        self.requests: list[Seen] = []
        self.names: list[str | None] = []
        """Host names that clients asked for by TLS (SNI)."""
        self._tls = tls
        if tls is not None:
            tls.sni_callback = lambda socket, name, context: self.names.append(name)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            seen = await _request(reader)
            self.requests.append(seen)
            writer.write(self.answer(seen) if callable(self.answer) else self.answer)
            await writer.drain()
        writer.close()


async def _request(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        known = headers.get(name.lower())
        headers[name.lower()] = f"{known},{value.strip()}" if known else value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(method, target, headers, body)
