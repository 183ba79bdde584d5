"""Missing permissions are told by name, asked of an API server over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from aiohttp import web

from dispatcher.kubeapi import access_review, client, server_access
from tests import parts


@asynccontextmanager
async def server(*, denied: Collection[tuple[str, str]] = (), code: int = 201) -> AsyncIterator[client.KubeClient]:
    """An API server that knows one role: what is in `denied` is not in it."""

    async def review(request: web.BaseRequest) -> web.Response:
        asked = json.loads(await request.read())["spec"]["resourceAttributes"]
        what = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        if code != 201:
            status = {"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "no", "code": code}
            return web.json_response(status, status=code)
        answer = {"kind": "SelfSubjectAccessReview", "status": {"allowed": (asked["verb"], what) not in denied}}
        return web.json_response(answer, status=code)

    runner = web.ServerRunner(web.Server(review))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    access = server_access.Access(host=f"http://{host}:{port}", token=lambda: None, tls=True)
    try:
        async with client.KubeClient(access) as api:
            yield api
    finally:
        await runner.cleanup()


def missing(*, namespaces: Collection[str] = ("tasks",), **role: object) -> list[str]:
    async def ask() -> list[str]:
        async with server(**role) as api:  # type: ignore[arg-type]
            return await access_review.missing(api, namespaces=namespaces)

    return asyncio.run(ask())


def test_exactly_what_is_missing_is_listed() -> None:
    """A line for each verb and namespace."""
    denied = {("patch", "pods"), ("get", "pods/log")}
    assert missing(namespaces=("a", "b"), denied=denied) == [
        "a: patch pods",
        "a: get pods/log",
        "b: patch pods",
        "b: get pods/log",
    ]


def test_nothing_is_missing_where_all_is_allowed() -> None:
    assert missing() == []


def test_a_server_that_cannot_be_asked_says_nothing() -> None:
    """Old servers, and accounts that may not even ask."""
    assert missing(code=403) == missing(code=404) == []


def test_the_local_cluster_allows_everything(local_cluster: parts.LocalCluster) -> None:
    async def ask() -> list[str]:
        async with client.KubeClient(server_access.connect(kubeconfig=local_cluster.kubeconfig)) as api:
            assert not await api.may("create", "unicorns", namespace="default")
            return await access_review.missing(api, namespaces=("default",))

    assert asyncio.run(ask()) == []
