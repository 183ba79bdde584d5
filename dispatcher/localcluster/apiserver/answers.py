"""Answers in Kubernetes' form: bodies, refusals, tables, streams."""

import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from dispatcher.localcluster.apiserver import tables
from dispatcher.localcluster.objects import refusal, resources, store, times

Json = dict[str, Any]
encode = msgspec.json.Encoder().encode


def raw(body: bytes, *, status: int = 200, warnings: Iterable[str] = ()) -> web.Response:
    """Encoded JSON; each warning is a header, which kubectl shows."""
    response = web.Response(body=body, status=status, content_type="application/json")
    for warning in warnings:
        response.headers.add("Warning", warning)
    return response


def plain(thing: Json, *, status: int = 200) -> web.Response:
    """A JSON object."""
    return raw(encode(thing), status=status)


def success(*, code: int = 200, details: Json | None = None) -> web.Response:
    """A `Status` that all went well."""
    said: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        said["details"] = details
    return plain(said if code == 200 else said | {"code": code}, status=code)


def refused(error: refusal.Refusal) -> web.Response:
    """A `Status` that says why not."""
    response = plain(error.status(), status=error.code)
    if "retryAfterSeconds" in error.details:
        response.headers["Retry-After"] = str(error.details["retryAfterSeconds"])
    return response


def listed(resource: resources.Resource, found: list[store.Snapshot], metadata: Json) -> web.Response:
    """A list of objects, whose bytes are not decoded."""
    head = encode({"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata})
    return raw(b'%s,"items":[%s]}' % (head[:-1], b",".join(snapshot.body for snapshot in found)))


async def send_all(response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]) -> None:
    """Sends a stream; a client that goes away ends it, and is no error."""
    async with contextlib.aclosing(pieces):
        with contextlib.suppress(ConnectionError):
            async for piece in pieces:
                if piece:
                    await response.write(piece)


def wants_table(request: web.BaseRequest) -> bool:
    """Whether rows are asked for, as `kubectl get` does."""
    return "as=Table" in request.headers.get("Accept", "")


def table(
    resource: resources.Resource, found: list[store.Snapshot], metadata: Json, query: Mapping[str, str]
) -> web.Response:
    """Objects as rows."""
    things = [snapshot.read() for snapshot in found]
    include = query.get("includeObject", "Metadata")
    return plain(tables.table(resource.plural, things, now=times.now(), metadata=metadata, include=include))


def render(request: web.BaseRequest, resource: resources.Resource) -> store.Render:
    """How the events of a watch are written: plain, or as tables of which the first names the columns."""
    if not wants_table(request):
        return store.render_json
    first = True
    include = request.query.get("includeObject", "Metadata")

    def as_table(kind: str, body: bytes) -> bytes:
        nonlocal first
        thing = msgspec.json.decode(body)
        metadata = {"resourceVersion": thing["metadata"]["resourceVersion"]}
        row = tables.table(resource.plural, [thing], now=times.now(), metadata=metadata, include=include, header=first)
        first = False
        return store.render_json(kind, encode(row))

    return as_table
