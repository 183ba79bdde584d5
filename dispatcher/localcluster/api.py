"""The HTTP side: each request is let in by its token, understood, and answered in Kubernetes' words. No rules."""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from dispatcher.localcluster import (
    calls,
    discovery,
    kubelet,
    pages,
    patches,
    refusal,
    registry,
    resources,
    statuses,
    store,
    tables,
    times,
    watching,
)

log = logging.getLogger(__name__)
Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


class Api:
    """All addresses of one cluster."""

    def __init__(
        self,
        rules: registry.Registry,
        pods: kubelet.Kubelet,
        *,
        token: str,
        bookmark_s: float = 10.0,
        gone_as_status: bool = False,
    ) -> None:
        self.rules = rules
        self.pods = pods
        self.address = ""
        self.closing = asyncio.Event()
        self._authorization = f"Bearer {token}".encode()
        self._bookmark_s = bookmark_s
        self._gone_as_status = gone_as_status
        self._pages = pages.Pages()

    def close(self) -> None:
        """Ends all watches; a stopping server waits for nothing else."""
        self.closing.set()
        for collection in self.rules.store.collections.values():
            collection.changed.ring()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        try:
            self._let_in(request)
            return await self._answer(request)
        except refusal.Refusal as error:
            return _refused(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("request failed", extra={"path": request.path})
            return _refused(
                refusal.Refusal(500, "InternalError", "Internal error occurred: the local cluster's log says more")
            )

    def _let_in(self, request: web.BaseRequest) -> None:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            raise refusal.unauthorized()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith("/api/v1/"):
            at = calls.target(path)
            if at is None:
                raise refusal.no_such_path()
            return await self._on_target(request, at)
        if path in _HEALTH:
            return web.Response(text="ok")
        found = self._about_itself(path.rstrip("/"))
        if found is None or request.method != "GET":
            raise refusal.no_such_path()
        return _json(found)

    def _about_itself(self, path: str) -> Json | None:
        said: Mapping[str, Callable[[], Json]] = {
            "/version": discovery.version,
            "/api": lambda: discovery.core_versions(self.address),
            "/api/v1": discovery.core_resources,
            "/apis": discovery.groups,
            "/openapi/v3": discovery.openapi,
            "/openapi/v3/api/v1": discovery.openapi_core,
        }
        return said[path]() if path in said else None

    async def _on_target(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        kind = "subresource" if at.subresource else "object" if at.name else "collection"
        verb = self._verbs()[kind].get(request.method)
        if verb is None:
            raise refusal.method_not_allowed()
        return await verb(request, at)

    def _verbs(
        self,
    ) -> Mapping[str, Mapping[str, Callable[[web.BaseRequest, calls.Target], Awaitable[web.StreamResponse]]]]:
        return {
            "collection": {"GET": self._list, "POST": self._create, "DELETE": self._delete_collection},
            "object": {"GET": self._read, "PUT": self._update, "PATCH": self._patch, "DELETE": self._delete},
            "subresource": {
                "GET": self._read_subresource,
                "PUT": self._update,
                "PATCH": self._patch,
                "POST": self._evict,
            },
        }

    # --- reading ---

    async def _list(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        query = request.query
        match = calls.match(at, query)
        if calls.flag(query, "watch"):
            return await self._watch(request, match)
        limit = calls.number(query, "limit") or 0
        token = query.get("continue", "")
        if token:
            page = self._pages.more(token, limit=limit)
        else:
            self._check_version(query)
            page = self._pages.first(self.rules.store.list(match), version=self.rules.store.version, limit=limit)
        metadata: Json = {"resourceVersion": str(page.version)}
        if page.next_token:
            metadata["continue"] = page.next_token
            if not match.labels and not match.fields:
                metadata["remainingItemCount"] = page.remaining
        if _wants_table(request):
            return _json(_table(at.resource, [snapshot.body for snapshot in page.objects], metadata, query))
        head = _encode({"kind": f"{at.resource.kind}List", "apiVersion": "v1", "metadata": metadata})
        return _raw(b'%s,"items":[%s]}' % (head[:-1], b",".join(snapshot.body for snapshot in page.objects)))

    def _check_version(self, query: Mapping[str, str]) -> None:
        """A list may ask for a version: this cluster only has the latest one."""
        wanted = calls.number(query, "resourceVersion") or 0
        current = self.rules.store.version
        if wanted > current:
            raise refusal.version_too_large(wanted, current)
        if query.get("resourceVersionMatch") == "Exact" and wanted != current:
            raise refusal.expired(wanted, current)

    async def _watch(self, request: web.BaseRequest, match: store.Match) -> web.StreamResponse:
        asked = watching.options(request.query)
        objects = self.rules.store
        version = asked.version or 0
        if version > objects.version:
            raise refusal.version_too_large(version, objects.version)
        oldest = objects.of(match.resource).forgotten
        if asked.version is not None and version < oldest and self._gone_as_status:
            raise refusal.expired(version, oldest)
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        await response.prepare(request)
        render = _table_render(match.resource, request.query) if _wants_table(request) else store.render_json
        stream = watching.events(
            objects, match, asked, render=render, bookmark_s=self._bookmark_s, closing=self.closing
        )
        await _send_all(response, stream)
        return response

    async def _read(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        if calls.flag(request.query, "watch"):
            return await self._watch(request, calls.match(at, request.query))
        found = self.rules.get(at.resource, at.namespace, at.name)
        if _wants_table(request):
            metadata = {"resourceVersion": str(found.version)}
            return _json(_table(at.resource, [found.body], metadata, request.query))
        return _raw(found.body)

    async def _read_subresource(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        if at.subresource == "log":
            return await self._log(request, at)
        return await self._read(request, at)

    async def _log(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        asked = calls.log_query(request.query)
        pod = self.rules.get(at.resource, at.namespace, at.name)
        container = _log_container(pod.read(), request.query.get("container", ""))
        previous = calls.flag(request.query, "previous")
        found = self.pods.log_of(pod.uid, container, previous=previous)
        if previous and found is None:
            raise refusal.bad_request(f'previous terminated container "{container}" in pod "{at.name}" not found')
        state = self.pods.state_of(pod.uid, container)
        if state is None or isinstance(state, statuses.Waiting):
            reason = state.reason if state is not None else "ContainerCreating"
            raise refusal.bad_request(f'container "{container}" in pod "{at.name}" is waiting to start: {reason}')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        if found is not None:
            await _send_all(response, found.stream(asked))
        return response

    # --- writing ---

    async def _create(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        if at.resource.namespaced and not at.namespace:
            raise refusal.method_not_allowed()
        thing = await calls.mapping(request)
        dry_run = request.query.get("dryRun") == "All"
        return _raw(self.rules.create(at.resource, at.namespace, thing, dry_run=dry_run).body, status=201)

    async def _update(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        thing = await calls.mapping(request)
        _no_dry_run(request)
        _only_status(at)
        before = self.rules.get(at.resource, at.namespace, at.name)
        return _raw(self.rules.update(at.resource, before, thing, subresource=at.subresource).body)

    async def _patch(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        apply = patches.APPLY.get(request.content_type)
        if apply is None:
            raise refusal.unsupported_media(request.content_type, supported=tuple(patches.APPLY))
        patch = await calls.thing(request)
        _no_dry_run(request)
        _only_status(at)
        before = self.rules.get(at.resource, at.namespace, at.name)
        change: Callable[[Json], Any] = lambda old: apply(old, patch)  # noqa: E731 - binds the patch
        return _raw(self.rules.patch(at.resource, before, change, subresource=at.subresource).body)

    async def _delete(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        options = await calls.delete_options(request)
        last = self.rules.delete(at.resource, self.rules.get(at.resource, at.namespace, at.name), options)
        if at.resource in {resources.PODS, resources.NAMESPACES}:
            return _raw(last.body)
        details = {"name": at.name, "kind": at.resource.plural, "uid": last.uid}
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    async def _delete_collection(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        if "deletecollection" not in at.resource.verbs or (at.resource.namespaced and not at.namespace):
            raise refusal.method_not_allowed()
        options = await calls.delete_options(request)
        found = self.rules.store.list(calls.match(at, request.query))
        last = [self.rules.delete(at.resource, snapshot, options) for snapshot in found]
        head = _encode(
            {
                "kind": f"{at.resource.kind}List",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": str(self.rules.store.version)},
            }
        )
        return _raw(b'%s,"items":[%s]}' % (head[:-1], b",".join(snapshot.body for snapshot in last)))

    async def _evict(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        """The eviction API: a delete that says why it came."""
        if at.subresource != "eviction":
            raise refusal.method_not_allowed()
        said = (await calls.mapping(request)).get("deleteOptions") or {}
        options = registry.DeleteOptions(grace_s=said.get("gracePeriodSeconds"))
        self.rules.delete(at.resource, self.rules.get(at.resource, at.namespace, at.name), options)
        return _json(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, status=201
        )


async def _send_all(response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]) -> None:
    """Sends a stream; a client that goes away ends it, and is no error."""
    async with contextlib.aclosing(pieces):
        with contextlib.suppress(ConnectionError):
            async for piece in pieces:
                if piece:
                    await response.write(piece)


def _no_dry_run(request: web.BaseRequest) -> None:
    if request.query.get("dryRun"):
        raise refusal.bad_request("the local cluster knows dryRun only for create")


def _only_status(at: calls.Target) -> None:
    if at.subresource not in {"", "status"}:
        raise refusal.method_not_allowed()


def _log_container(pod: Json, asked: str) -> str:
    """The container whose log is meant; raises Refusal 400."""
    spec = pod["spec"]
    main = [container["name"] for container in spec["containers"]]
    init = [container["name"] for container in spec.get("initContainers") or []]
    name = pod["metadata"]["name"]
    if asked:
        if asked not in main + init:
            raise refusal.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(main) > 1 or init:
        listed = f"[{' '.join(main)}]" + (f" or one of the init containers: [{' '.join(init)}]" if init else "")
        if len(main) > 1:
            raise refusal.bad_request(f"a container name must be specified for pod {name}, choose one of: {listed}")
    return str(main[0])


def _raw(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def _json(thing: Json, *, status: int = 200) -> web.Response:
    return _raw(_encode(thing), status=status)


def _refused(error: refusal.Refusal) -> web.Response:
    response = _json(error.status(), status=error.code)
    if "retryAfterSeconds" in error.details:
        response.headers["Retry-After"] = str(error.details["retryAfterSeconds"])
    return response


def _wants_table(request: web.BaseRequest) -> bool:
    return "as=Table" in request.headers.get("Accept", "")


def _table(resource: resources.Resource, bodies: list[bytes], metadata: Json, query: Mapping[str, str]) -> Json:
    include = query.get("includeObject", "Metadata")
    things = [msgspec.json.decode(body) for body in bodies]
    return tables.table(resource.plural, things, now=times.now(), metadata=metadata, include=include)


def _table_render(resource: resources.Resource, query: Mapping[str, str]) -> store.Render:
    """Watch events as tables; the first one names the columns."""
    first = True
    include = query.get("includeObject", "Metadata")

    def render(kind: str, body: bytes) -> bytes:
        nonlocal first
        thing = msgspec.json.decode(body)
        metadata = {"resourceVersion": thing["metadata"]["resourceVersion"]}
        row = tables.table(resource.plural, [thing], now=times.now(), metadata=metadata, include=include, header=first)
        first = False
        return store.render_json(kind, _encode(row))

    return render
