"""The verbs on objects, as HTTP answers: create, get, list, watch, update, patch, delete, log, evict. No rules."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

from dispatcher.localcluster.apiserver import answers, calls, pages, patches, streams, watch
from dispatcher.localcluster.objects import connection, container_log, fault_points, refusal, resources, store
from dispatcher.localcluster.registry import registry

Json = dict[str, Any]
Verb = Callable[[web.BaseRequest, calls.Target], Awaitable[web.StreamResponse]]


class PodLogs(Protocol):
    """Who has the containers' output: the node."""

    def log_of(self, uid: str, container: str, *, previous: bool = False) -> container_log.ContainerLog | None:
        """What a container of a pod has printed, in this run or in the one before; None without such a run."""

    def waiting_reason(self, uid: str, container: str) -> str | None:
        """Why a container has not started; None once it has."""


class Verbs:
    """What can be done with objects, by the word for it."""

    def __init__(
        self,
        rules: registry.Registry,
        pods: PodLogs,
        *,
        live: streams.Streams,
        faults: fault_points.OfCalls,
        bookmark_s: float,
    ) -> None:
        self.rules = rules
        self.live = live
        self._pods = pods
        self._faults = faults
        self._bookmark_s = bookmark_s
        self._pages = pages.Pages()
        self.by_name: Mapping[str, Verb] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "log": self._log,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
            "evict": self._evict,
        }

    # --- reading ---

    async def _get(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        found = self.rules.get(at.resource, at.namespace, at.name)
        if answers.wants_table(request):
            return answers.table(at.resource, [found], {"resourceVersion": str(found.version)}, request.query)
        return answers.raw(found.body)

    async def _list(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        query = request.query
        match = calls.match(at, query)
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
            # With a selector a real server does not know how many are left, and leaves it out.
            if not match.labels and not match.fields:
                metadata["remainingItemCount"] = page.remaining
        if answers.wants_table(request):
            return answers.table(at.resource, page.objects, metadata, query)
        return answers.listed(at.resource, page.objects, metadata)

    def _check_version(self, query: Mapping[str, str]) -> None:
        """A list may ask for a version: this cluster only has the latest one."""
        requested = calls.version(query) or 0
        current = self.rules.store.version
        if requested > current:
            # Real servers wait three seconds for the version first; here no cache lags behind.
            raise refusal.version_too_large(requested, current)
        if query.get("resourceVersionMatch") == "Exact" and requested != current:
            raise refusal.expired(requested, current)

    async def _watch(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        match = calls.match(at, request.query)
        asked = watch.options(request.query)
        self._check_start(match, asked)
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        # The headers now: clients wait for them before they believe that they watch.
        await response.prepare(request)
        with self.live.opened(at.resource.plural, lambda: connection.abort(request)) as stream:
            events = watch.events(
                self.rules.store,
                match,
                asked,
                render=answers.render(request, match.resource),
                bookmark_s=self._bookmark_s,
                closing=stream.closing,
            )
            await answers.send_all(response, self._as_sent(events, stream))
        return response

    def _check_start(self, match: store.Match, asked: watch.WatchOptions) -> None:
        objects = self.rules.store
        version = asked.version or 0
        if version > objects.version:
            raise refusal.version_too_large(version, objects.version)
        # Otherwise the 410 comes as an ERROR event in the stream: real servers do both, and clients must know both.
        oldest = objects.of(match.resource).forgotten
        if asked.version is not None and version < oldest and self.live.gone_as_status:
            raise refusal.expired(version, oldest)

    async def _as_sent(
        self, events: AsyncGenerator[list[bytes], None], stream: streams.Stream
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a watch, with what faults make of them."""
        async for lines in events:
            await self.live.until_loud(stream)
            sent = self._faults.as_sent(stream.resource, lines)
            yield b"".join(sent)

    async def _log(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        asked = calls.log_query(request.query)
        pod = self.rules.get(at.resource, at.namespace, at.name)
        container = _log_container(pod.read(), request.query.get("container", ""))
        previous = calls.flag(request.query, "previous")
        found = self._pods.log_of(pod.uid, container, previous=previous)
        if previous and found is None:
            raise refusal.bad_request(f'previous terminated container "{container}" in pod "{at.name}" not found')
        reason = self._pods.waiting_reason(pod.uid, container)
        if reason is not None:
            raise refusal.bad_request(f'container "{container}" in pod "{at.name}" is waiting to start: {reason}')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        if found is not None:
            await answers.send_all(response, found.stream(asked))
        return response

    # --- writing ---

    async def _create(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        if at.resource.namespaced and not at.namespace:
            raise refusal.method_not_allowed()
        thing = await calls.mapping(request)
        unknown = calls.check_fields(request.query, at, thing)
        created = self.rules.create(at.resource, at.namespace, thing, dry_run=calls.dry_run(request.query))
        return answers.raw(created.body, status=201, warnings=unknown)

    async def _update(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        thing = await calls.mapping(request)
        unknown = calls.check_fields(request.query, at, thing)
        dry_run = calls.dry_run(request.query)
        before = self.rules.get(at.resource, at.namespace, at.name)
        changed = self.rules.update(at.resource, before, thing, subresource=at.subresource, dry_run=dry_run)
        return answers.raw(changed.body, warnings=unknown)

    async def _patch(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        apply = patches.APPLY.get(request.content_type)
        if apply is None:
            raise refusal.unsupported_media(request.content_type, supported=tuple(patches.APPLY))
        patch = await calls.thing(request)
        dry_run = calls.dry_run(request.query)
        before = self.rules.get(at.resource, at.namespace, at.name)
        patched = apply(before.read(), patch)
        if not isinstance(patched, dict):
            raise refusal.bad_request("the patch leaves no object")
        unknown = calls.check_fields(request.query, at, patched)
        # The patch is applied and stored without an `await` in between: two patches cannot overtake each other.
        changed = self.rules.update(
            at.resource, before, patched, subresource=at.subresource, is_patch=True, dry_run=dry_run
        )
        return answers.raw(changed.body, warnings=unknown)

    async def _delete(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        options = await calls.delete_options(request)
        last = self.rules.delete(at.resource, self.rules.get(at.resource, at.namespace, at.name), options)
        # Both may stay for a while, so a real server answers with the object.
        if at.resource in {resources.PODS, resources.NAMESPACES}:
            return answers.raw(last.body)
        return answers.success(details={"name": at.name, "kind": at.resource.plural, "uid": last.uid})

    async def _delete_collection(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        if "deletecollection" not in at.resource.verbs or (at.resource.namespaced and not at.namespace):
            raise refusal.method_not_allowed()
        options = await calls.delete_options(request)
        found = self.rules.store.list(calls.match(at, request.query))
        last = [self.rules.delete(at.resource, snapshot, options) for snapshot in found]
        return answers.listed(at.resource, last, {"resourceVersion": str(self.rules.store.version)})

    async def _evict(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        """The eviction API: a delete that says why it came."""
        said = (await calls.mapping(request)).get("deleteOptions") or {}
        dry_run = calls.dry_run(request.query) or bool(said.get("dryRun"))
        options = registry.DeleteOptions(grace_s=said.get("gracePeriodSeconds"))
        pod = self.rules.get(at.resource, at.namespace, at.name)
        if dry_run:
            return answers.success(code=201)
        # First the condition, then the delete: the watch must see why before it sees that.
        marked = self.rules.disrupt(pod, "EvictionByEvictionAPI", "Eviction API: evicting")
        self.rules.delete(at.resource, marked, options)
        return answers.success(code=201)


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
    if len(main) > 1:
        listed = f"[{' '.join(main)}]" + (f" or one of the init containers: [{' '.join(init)}]" if init else "")
        raise refusal.bad_request(f"a container name must be specified for pod {name}, choose one of: {listed}")
    return str(main[0])
