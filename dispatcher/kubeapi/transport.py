"""The transport: one HTTP request to the API server, with our credentials, within a bound; the only user of aiohttp.

Plain aiohttp, because a create costs a fifth and a watch event a tenth of the official client's CPU
(docs/benchmarks.md). Nothing of aiohttp escapes: `http_errors` maps what goes wrong. Called by `client` alone.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from dispatcher import errors
from dispatcher.kubeapi import http_errors
from dispatcher.kubeapi.server_access import Access

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
CREDENTIALS_AGE_S = 10.0
"""Credentials are asked for at most so often: asking costs as much as sending a create. At once after a 401."""
SUCCESS = (200, 201, 202)
"""What an API server answers with to calls that did what they should."""
WARNINGS = 100
"""Different warnings of the server that are logged at most."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call: `verb` is Kubernetes' word for it, for the counters."""

    verb: str
    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str = "application/json"
    accept: str = "application/json"

    def __str__(self) -> str:
        """As errors name it."""
        return f"{self.method} {self.path}"


class Transport:
    """An open connection to one API server. An async context manager; all calls belong to one event loop."""

    def __init__(self, access: Access, *, connections: int) -> None:
        self._access = access
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._credentials: Sequence[tuple[str, str]] = ()
        # Not 0: the monotonic clock of a machine that has just
        # booted may be below the age, and we would go in without.
        self._credentials_mono_s = -CREDENTIALS_AGE_S
        # Many calls find the credentials old at the same moment;
        # one runs the program or reads the file, all others wait.
        self._renewing = asyncio.Lock()
        self._was_refused = False
        self._warned: set[str] = set()
        self.counts: Counter[tuple[str, str]] = Counter()
        """(verb, HTTP status or `none`) -> requests."""

    async def __aenter__(self) -> Self:
        access = self._access
        self._session = aiohttp.ClientSession(
            # 60 s: longer than aiohttp's 15, so that a quiet dispatcher
            # keeps its TLS session; shorter than an API server's 90.
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=access.tls, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
            proxy=access.proxy,
            trust_env=False,  # `server_access` has looked at the environment
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, request: Request) -> bytes:
        """The body of a success. Raises ApiError and ApiUnavailable."""
        async with self._answer(request, bound=None) as answer:
            return await answer.read()

    @asynccontextmanager
    async def stream(self, request: Request, *, silence_s: float | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a success in pieces as they come; raises as `send`, also when `silence_s` pass without one."""
        bound = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        async with self._answer(request, bound=bound) as answer:
            yield answer.content.iter_any()

    @asynccontextmanager
    async def _answer(
        self, request: Request, *, bound: aiohttp.ClientTimeout | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        form = (("Accept", request.accept), ("Content-Type", request.content_type))
        headers = (*await self._authorized(), *form)
        if self._session is None:
            raise RuntimeError("the client is used outside its `async with`")
        is_counted = False
        try:
            async with self._session.request(
                request.method,
                self._access.host + request.path,
                params=request.query,
                data=request.body,
                headers=headers,
                # A watch has no total: the server ends it, or silence does.
                timeout=bound or self._session.timeout,
                server_hostname=self._access.tls_server_name,
                allow_redirects=False,  # a login page that we are sent to is no API server
            ) as answer:
                is_counted = True
                self.counts[request.verb, str(answer.status)] += 1
                if answer.status == 401:
                    # The next call renews, not this one: a call that creates is
                    # repeated by its caller alone, who knows what to expect.
                    self._was_refused, self._credentials_mono_s = True, -CREDENTIALS_AGE_S
                # A login page of a proxy comes with 200. The body is read
                # within the bound, or the connection could not be reused.
                if answer.status not in SUCCESS or answer.content_type == "text/html":
                    raise http_errors.refused(answer.status, await answer.read(), answer.headers, what=str(request))
                self._log_warnings(answer.headers.getall("Warning", ()))
                yield answer
        except http_errors.CAUGHT as error:
            # A body that breaks off after its status was counted is no second request.
            self.counts[request.verb, "none"] += not is_counted
            raise http_errors.unavailable(error, what=str(request)) from error

    async def _authorized(self) -> Sequence[tuple[str, str]]:
        """The headers that let us in, renewed from time to time and after a 401."""
        if time.monotonic() - self._credentials_mono_s > CREDENTIALS_AGE_S:
            async with self._renewing:
                # Asked again inside the lock: whoever held it has renewed for us.
                if time.monotonic() - self._credentials_mono_s > CREDENTIALS_AGE_S:
                    await self._renew()
        return self._credentials

    async def _renew(self) -> None:
        access = self._access
        try:
            if access.renew is not None:
                # The thread cannot be ended and runs on; its program has
                # a shorter bound of its own (`exec_plugin.TIMEOUT_S`).
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await asyncio.to_thread(access.renew, is_refused=self._was_refused)
            # After `renew`, which may have changed it.
            token = access.token()
        except (errors.DispatcherError, TimeoutError) as error:
            message = f"no credentials for the API server: {error or 'not in time'}"
            # Nothing has left us, so a create may be repeated without asking whether it worked.
            raise errors.ApiUnavailable(message, was_sent=False) from error
        authorization = [("Authorization", token)] if token else []
        self._credentials = (("User-Agent", "podyard"), *access.headers, *authorization)
        self._credentials_mono_s, self._was_refused = time.monotonic(), False

    def _log_warnings(self, warnings: Sequence[str]) -> None:
        """What the server did otherwise than asked, such as a field that it does not know and dropped; each once."""
        for warning in warnings:
            if warning not in self._warned and len(self._warned) < WARNINGS:
                self._warned.add(warning)
                # `299 - "text"` is the form of RFC 7234 that API servers use; the code and agent say nothing.
                logger.warning("the API server warns: %s", warning.removeprefix("299 - "))
