"""The HTTP side: each request is let in by its token, understood, counted, and answered in Kubernetes' words."""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from dispatcher.localcluster import access, answers, calls, discovery, refusal, stats, verbs
from dispatcher.localcluster.faults import door, kinds, plan, words

log = logging.getLogger(__name__)
Json = dict[str, Any]
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
_SUCCEEDED_S = 0.2
"""A stream whose caller is to see a failure after it succeeded goes on for so long."""


class Api:
    """All addresses of one cluster."""

    def __init__(
        self, does: verbs.Verbs, *, token: str, faults: plan.Plan, counted: stats.Stats, own: door.Door
    ) -> None:
        self.address = ""
        self._does = does
        self._faults = faults
        self._stats = counted
        self._door = own
        self._authorization = f"Bearer {token}".encode()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Ends all watches; a stopping server waits for nothing else."""
        self._closing.set()
        self._does.live.close()
        for collection in self._does.rules.store.collections.values():
            collection.changed.ring()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        try:
            self._let_in(request)
            response = await self._answer(request)
        except refusal.Refusal as error:
            response = answers.refused(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("request failed", extra={"path": request.path})
            response = answers.refused(
                refusal.Refusal(500, "InternalError", "Internal error occurred: the local cluster's log says more")
            )
        if request.path.startswith("/api/"):
            self._stats.answered(response.status if calls.is_open(request) else "cut")
        return response

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
        if path.startswith(door.PREFIX):
            return await self._door.answer(request)
        if path == access.PATH and request.method == "POST":
            reviewed = access.review(await calls.mapping(request), denies=self._denies)
            return answers.plain(reviewed, status=201)
        if path in _HEALTH:
            return web.Response(text="ok")
        found = self._about_itself(path.rstrip("/"))
        if found is None or request.method != "GET":
            raise refusal.no_such_path()
        return answers.plain(found)

    def _about_itself(self, path: str) -> Json | None:
        said: Mapping[str, Callable[[], Json]] = {
            "/version": discovery.version,
            "/api": lambda: discovery.core_versions(self.address),
            "/api/v1": discovery.core_resources,
            "/apis": discovery.groups,
            "/apis/authorization.k8s.io/v1": discovery.authorization_resources,
            "/openapi/v3": discovery.openapi,
            "/openapi/v3/api/v1": discovery.openapi_core,
        }
        return said[path]() if path in said else None

    # --- objects ---

    async def _on_target(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        name = calls.verb(request, at)
        if name is None:
            raise refusal.method_not_allowed()
        self._stats.asked(at.resource.plural, name)
        verb = self._does.by_name[name]
        if self._faults.is_empty:
            return await verb(request, at)
        right, resource = calls.right(at, verb=name)
        if self._denies(right, resource, at.namespace):
            raise refusal.not_permitted(verb=right, resource=resource, namespace=at.namespace, name=at.name)
        call = await calls.as_seen(request, at, verb=name)
        effect = self._faults.effect(call, at=asyncio.get_running_loop().time())
        if effect.delay_s:
            await asyncio.sleep(effect.delay_s)
        if effect.failure is None:
            return await verb(request, at)
        if effect.failure.done:
            return await self._do_and_fail(verb(request, at), request, call, effect.failure)
        return await self._fail(request, call, effect.failure)

    def _denies(self, verb: str, resource: str, namespace: str) -> bool:
        return self._faults.denies(verb, resource, namespace, at=asyncio.get_running_loop().time())

    async def _do_and_fail(
        self, doing: Any, request: web.BaseRequest, call: plan.Call, failure: kinds.Fail
    ) -> web.StreamResponse:
        """It succeeds, but the caller sees the failure; where it does not succeed the caller is told why."""
        response: web.StreamResponse | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SUCCEEDED_S):  # a watch would go on
                response = await doing
        if response is None or response.prepared:  # a stream has a status already: it can only break off
            return self._cut(request)
        return await self._fail(request, call, failure)

    async def _fail(self, request: web.BaseRequest, call: plan.Call, failure: kinds.Fail) -> web.StreamResponse:
        if failure.how == "answer":
            raise words.answer(failure, call)
        if failure.how == "hang":
            await self._closing.wait()  # or until the caller gives up, which cancels this
        return self._cut(request)

    def _cut(self, request: web.BaseRequest) -> web.StreamResponse:
        calls.abort(request)
        return web.Response(status=500)  # nobody will see it
