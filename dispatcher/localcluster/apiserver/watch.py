"""Watches: from a version on, every change that matches, with bookmarks, until a time is over."""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import msgspec

from dispatcher.localcluster.apiserver import calls
from dispatcher.localcluster.objects import refusal, store

_LONGEST_S = 1800.0
_BATCH_EVENTS = 500


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """What a watch asks for. `version` None: begin with all that is there."""

    version: int | None
    bookmarks: bool
    timeout_s: float
    initial_events: bool


def options(query: Mapping[str, str]) -> WatchOptions:
    """Reads the query; raises Refusal 400, or 500 for a version that is none."""
    version = calls.version(query)
    initial = calls.flag(query, "sendInitialEvents")
    bookmarks = calls.flag(query, "allowWatchBookmarks")
    if initial and query.get("resourceVersionMatch") != "NotOlderThan":
        raise refusal.bad_request("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    timeout_s = calls.number(query, "timeoutSeconds")
    return WatchOptions(
        version=version if version and not initial else None,
        bookmarks=bookmarks,
        # Spread, as a real server does it: watches that began together must not all come back together.
        timeout_s=timeout_s or _LONGEST_S * (1 + random.random()),
        initial_events=initial,
    )


async def events(
    objects: store.Store,
    match: store.Match,
    options: WatchOptions,
    *,
    render: store.Render,
    bookmark_s: float,
    closing: asyncio.Event,
) -> AsyncGenerator[list[bytes], None]:
    """Yields lines, many at once where many are due. Falling behind ends with an ERROR event of code 410."""
    loop = asyncio.get_running_loop()
    end = loop.time() + options.timeout_s
    position = objects.version if options.version is None else options.version
    if options.version is None:
        yield [render("ADDED", snapshot.body) for snapshot in objects.list(match)]
        if options.initial_events and options.bookmarks:
            yield [_bookmark(match, position, initial=True)]
    collection = objects.of(match.resource)
    sent_at = loop.time()
    while not closing.is_set() and loop.time() < end:
        try:
            lines, position = _due(objects, match, position, render)
        except refusal.Refusal as error:
            yield [error_line(error)]
            return
        if lines:
            sent_at = loop.time()
            yield lines
            continue
        until = min(end, sent_at + bookmark_s) if options.bookmarks else end
        if not await collection.changed.wait(max(0.0, until - loop.time())) and options.bookmarks:
            sent_at = loop.time()
            yield [_bookmark(match, position)]


def _due(objects: store.Store, match: store.Match, position: int, render: store.Render) -> tuple[list[bytes], int]:
    """Lines of the next changes that match, and the position after them."""
    lines: list[bytes] = []
    for change in objects.of(match.resource).since(position):
        seen = store.watch_event(change, match)
        position = change.after.version
        if seen is not None:
            lines.append(render(*seen))
            if len(lines) >= _BATCH_EVENTS:
                return lines, position
    # Up to the version of the whole store: a bookmark of a quiet resource must not fall behind the busy ones.
    return lines, max(position, objects.version)


def _bookmark(match: store.Match, version: int, *, initial: bool = False) -> bytes:
    metadata: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    thing = {"kind": match.resource.kind, "apiVersion": match.resource.api_version, "metadata": metadata}
    if match.resource.kind == "Pod":
        thing |= {"spec": {"containers": None}, "status": {}}
    return store.render_json("BOOKMARK", msgspec.json.encode(thing))


def error_line(error: refusal.Refusal) -> bytes:
    """An ERROR event."""
    return store.render_json("ERROR", msgspec.json.encode(error.status()))
