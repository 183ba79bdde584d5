"""The connection of one request: whether it is open, and how to end it without an answer."""

import asyncio

from aiohttp import web


def is_open(request: web.BaseRequest) -> bool:
    """Whether the caller can still be answered."""
    return request.transport is not None and not request.transport.is_closing()


def abort(request: web.BaseRequest) -> None:
    """Ends the connection without an answer."""
    transport = request.transport
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
