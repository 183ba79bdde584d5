"""The HTTP side: each request is let in by its token, understood, counted, and answered in Kubernetes' words."""

import asyncio
import functools
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from dispatcher.localcluster.apiserver import access, answers, calls, discovery, stats, verbs
from dispatcher.localcluster.objects import connection, fault_points, refusal, resources

log = logging.getLogger(__name__)
Json = dict[str, Any]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
OWN = "/podyard/"
"""What is below this is no address of Kubernetes, and answered by `own`: faults, counters."""
_COUNTED = web.RequestKey("podyard-counted", bool)
"""A request that is one of `stats`, so that its answer is counted, too."""
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


class Api:
    """All addresses of one cluster."""

    def __init__(
        self, does: verbs.Verbs, *, token: str, faults: fault_points.OfCalls, counted: stats.Stats, own: Handler
    ) -> None:
        self.address = ""
        self._does = does
        self._faults = faults
        self._stats = counted
        self._own = own
        self._authorization = f"Bearer {token}".encode()

    def close(self) -> None:
        """Ends all watches; a stopping server waits for nothing else."""
        self._faults.close()
        self._does.live.close()
        # Watches look at `closing` when they wake.
        for collection in self._does.rules.store.collections.values():
            collection.changed.notify()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        try:
            self._let_in(request)
            response = await self._answer(request)
        except refusal.Refusal as error:
            response = answers.refused(error)
        # The caller is gone, or we stop: there is nobody to answer.
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("request failed", extra={"path": request.path})
            response = answers.refused(
                refusal.Refusal(500, "InternalError", "Internal error occurred: the local cluster's log says more")
            )
        if _COUNTED in request:
            self._stats.answered(response.status if connection.is_open(request) else "cut")
        return response

    def _let_in(self, request: web.BaseRequest) -> None:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        # In constant time, so that the token cannot be guessed letter by letter from the loopback.
        if not hmac.compare_digest(given, self._authorization):
            raise refusal.unauthorized()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith(OWN):  # before all faults: whoever asked for them must be able to end them
            return await self._own(request)
        at = calls.target(path)
        if at is not None:
            return await self._on_target(request, at)
        if path.startswith("/api/v1/"):
            raise refusal.no_such_path()
        if path == access.PATH and request.method == "POST":
            call = fault_points.Call(verb="create", resource=fault_points.REVIEWS)
            return await self._faults.answer(request, call, lambda: self._review(request))
        call = fault_points.Call(verb=request.method.lower(), resource=path)
        # Also `/version`: a server that is away answers no health check either.
        return await self._faults.answer(request, call, lambda: self._about_itself(request))

    async def _review(self, request: web.BaseRequest) -> web.Response:
        reviewed = access.review(await calls.mapping(request), denies=self._faults.denies)
        return answers.plain(reviewed, status=201)

    async def _about_itself(self, request: web.BaseRequest) -> web.Response:
        if request.path in _HEALTH:
            return web.Response(text="ok")
        said: dict[str, Callable[[], Json]] = {
            "/version": discovery.version,
            "/api": lambda: discovery.core_versions(self.address),
            "/apis": discovery.groups,
            "/apis/authorization.k8s.io/v1": discovery.authorization_resources,
            "/openapi/v3": discovery.openapi,
        }
        for version in resources.BY_VERSION:
            said |= {
                discovery.root(version): functools.partial(discovery.listed, version),
                f"/openapi/v3{discovery.root(version)}": functools.partial(discovery.openapi_of, version),
            }
        path = request.path.rstrip("/")
        if path not in said or request.method != "GET":
            raise refusal.no_such_path()
        return answers.plain(said[path]())

    async def _on_target(self, request: web.BaseRequest, at: calls.Target) -> web.StreamResponse:
        name = calls.verb(request, at)
        if name is None:
            raise refusal.method_not_allowed()
        request[_COUNTED] = True
        self._stats.asked(at.resource.plural, name)
        verb = self._does.by_name[name]
        if self._faults.is_idle:  # most often: the body of a create is then read once, where it is needed
            return await verb(request, at)
        right, resource = calls.right(at, verb=name)
        if self._faults.denies(right, resource, at.namespace):
            raise refusal.not_permitted(verb=right, resource=resource, namespace=at.namespace, name=at.name)
        call = await calls.as_seen(request, at, verb=name)
        return await self._faults.answer(request, call, lambda: verb(request, at))
