"""The client: the calls to the API server that the dispatcher makes, and what each promises.

Raises `errors.ApiError` for an answer that is an error and `errors.ApiUnavailable` where there was none, or none that
is what its kind says (`answers`). Every call has a bound. Called by launching, watching, admission and finishing, and
by the command line; decides nothing. `tests/fake_api.py` has the same methods, for unit tests.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import msgspec

from dispatcher import errors
from dispatcher.kubeapi import answers, http_errors, transport, watch_stream
from dispatcher.kubeapi.server_access import Access
from dispatcher.kubeapi.transport import Request

T = TypeVar("T")

WATCH_SERVER_TIMEOUT_S = 290
"""The server is asked to end a watch after this time; proxies and garbage collection like streams that end."""
PAGE_SIZE = 500
EVENTS = 100
"""Events of one pod that are read at most."""
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_MERGE_PATCH = "application/merge-patch+json"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@dataclass(frozen=True, kw_only=True)
class PodList:
    """All pods that a selector matched, and the version from which a watch goes on."""

    pods: list[dict[str, Any]]
    resource_version: str


class KubeClient:
    """An open connection to one API server. An async context manager; all calls belong to one event loop."""

    def __init__(self, access: Access, *, connections: int = 64) -> None:
        self._transport = transport.Transport(access, connections=connections)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, traceback)

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """Requests so far by Kubernetes' verb and HTTP status; `none` where there was no answer."""
        return self._transport.counts

    async def create_pod(self, namespace: str, manifest: bytes, *, dry_run: bool = False) -> dict[str, Any]:
        """Creates a pod from its JSON, or with `dry_run` asks whether it could; returns the pod as the server has it.

        Raises ApiError, with reason `AlreadyExists` where a pod of that name is there.
        """
        request = Request(
            verb="create",
            method="POST",
            path=_path("pods", namespace),
            body=manifest,
            query={"dryRun": "All"} if dry_run else None,
        )
        if dry_run:
            return await self._call(request, lambda body: answers.dry_pod(body, namespace=namespace))
        return await self._call(request, lambda body: answers.pod(body, namespace=namespace))

    async def read_pod(self, namespace: str, name: str) -> dict[str, Any]:
        """One pod. Raises ApiError 404 where there is none."""
        request = Request(verb="get", method="GET", path=_path("pods", namespace, name))
        return await self._call(request, lambda body: answers.pod(body, namespace=namespace, name=name))

    async def find_pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """One pod, or None where there is none. Raises ApiError as `read_pod` does, but for 404."""
        try:
            return await self.read_pod(namespace, name)
        except errors.ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list_pods(self, namespace: str | None, *, selector: str) -> PodList:
        """All pods that match, read in pages; `namespace` None reads the whole cluster."""
        pods: list[dict[str, Any]] = []
        # No `resourceVersion`: the newest state. With "0" the server answers from its cache, perhaps older than what
        # the watch has already shown, and an attempt would look lost.
        query = {"labelSelector": selector, "limit": str(PAGE_SIZE)}
        while True:
            request = Request(verb="list", method="GET", path=_path("pods", namespace), query=query)
            # A token that has expired (410) goes up: half a list must not pass for the whole (K22).
            page, version, token = await self._call(request, answers.pods)
            pods += page
            if not token:
                # All pages have the version of the first, so a watch
                # from it misses nothing that happened while we paged.
                return PodList(pods=pods, resource_version=version)
            query = {**query, "continue": token}

    async def list_words(self, namespace: str, *, selector: str) -> dict[str, str]:
        """Pod -> its status in one word, as `kubectl get pods` shows it, of all pods that match.

        The cheapest list there is: a table without the objects, from the server's cache, so it may be a little old.
        """
        query = {"labelSelector": selector, "resourceVersion": "0", "includeObject": "None"}
        request = Request(verb="list", method="GET", path=_path("pods", namespace), query=query, accept=_TABLE)
        return await self._call(request, answers.words)

    async def watch_pods(
        self, namespace: str | None, *, selector: str, resource_version: str, silence_s: float
    ) -> AsyncIterator[dict[str, Any]]:
        """Yields watch events (`type`, `object`) from that version on, bookmarks included, until the server ends.

        Raises ApiError for an HTTP error (410: the version is too old) and ApiUnavailable when nothing at all came
        for `silence_s` seconds or the stream broke. A line that is no event yields one of the type `UNREADABLE`.
        """
        # Bookmarks move the version on where none of our pods change;
        # without them the next watch from it would get a 410.
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SERVER_TIMEOUT_S),
        }
        request = Request(verb="watch", method="GET", path=_path("pods", namespace), query=query)
        async with self._transport.stream(request, silence_s=silence_s) as pieces:
            async for event in watch_stream.events(pieces):
                yield event

    async def patch_pod(self, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merges `patch` into a pod; with a `metadata.resourceVersion` in it, only if the pod is still that one."""
        request = _patch("pods", namespace, name, patch)
        return await self._call(request, lambda body: answers.pod(body, namespace=namespace, name=name))

    async def delete_pod(self, namespace: str, name: str, *, uid: str | None, grace_s: int | None = None) -> None:
        """Deletes a pod, only the one with this `uid` where it is given. A pod that is gone is a success."""
        options: dict[str, Any] = {}
        # By name alone the delete could meet the next pod of that name, which a message that was requeued has.
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        # Left out, the pod's own `terminationGracePeriodSeconds` holds.
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._call(_delete(namespace, name, options), answers.deleted)
        except errors.ApiError as error:
            # 409: the name belongs to a pod with another uid, so the one that was meant is gone.
            if error.status != 404 and not (error.status == 409 and uid is not None):
                raise

    async def delete_unchanged(self, pod: Mapping[str, Any]) -> bool:
        """Deletes a pod if it still is as it was read; says whether the server did, or the pod is gone.

        The server compares the resourceVersion, so that a pod which has started meanwhile is left alone.
        """
        metadata = pod["metadata"]
        options = {"preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}}
        try:
            await self._call(_delete(metadata["namespace"], metadata["name"], options), answers.deleted)
        except errors.ApiError as error:
            # It has changed, or is another pod: the caller looks again.
            if error.status == 409:
                return False
            if error.status != 404:
                raise
        return True

    async def put_secret(self, secret: Mapping[str, Any]) -> None:
        """Creates a Secret, or overwrites the one of its name."""
        namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
        body = msgspec.json.encode(secret)
        request = Request(verb="create", method="POST", path=_path("secrets", namespace), body=body)

        def checked(answer: bytes) -> dict[str, Any]:
            return answers.secret(answer, namespace=namespace, name=name)

        try:
            await self._call(request, checked)
        except errors.ApiError as error:
            if error.status != 409:
                raise
            # It is there, as after a create whose answer was lost.
            # A patch and no PUT: the role needs no `update` then.
            await self._call(_patch("secrets", namespace, name, secret), checked)

    async def read_secret(self, namespace: str, name: str) -> dict[str, Any]:
        """One Secret. Raises ApiError 404 where there is none."""
        request = Request(verb="get", method="GET", path=_path("secrets", namespace, name))
        return await self._call(request, lambda body: answers.secret(body, namespace=namespace, name=name))

    async def read_config_map(self, namespace: str, name: str) -> dict[str, Any]:
        """One ConfigMap. Raises ApiError 404 where there is none."""
        request = Request(verb="get", method="GET", path=_path("configmaps", namespace, name))
        return await self._call(request, lambda body: answers.config_map(body, namespace=namespace, name=name))

    async def create_config_map(self, namespace: str, config_map: Mapping[str, Any]) -> dict[str, Any]:
        """Creates a ConfigMap. Raises ApiError, with reason `AlreadyExists` where one of that name is there."""
        body = msgspec.json.encode(config_map)
        request = Request(verb="create", method="POST", path=_path("configmaps", namespace), body=body)
        return await self._call(request, lambda answer: answers.config_map(answer, namespace=namespace))

    async def patch_config_map(self, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """As `patch_pod`, for a ConfigMap."""
        request = _patch("configmaps", namespace, name, patch)
        return await self._call(request, lambda body: answers.config_map(body, namespace=namespace, name=name))

    async def read_log(
        self,
        namespace: str,
        name: str,
        *,
        container: str = "base",
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
    ) -> bytes:
        """A container's log. Raises ApiError 400 where the container has not started."""
        # Always named: without it the server answers 400 where a pod has sidecars, also those that a webhook added.
        query = {"container": container}
        if tail_lines is not None:
            query["tailLines"] = str(tail_lines)
        if limit_bytes is not None:
            query["limitBytes"] = str(limit_bytes)
        return await self._call(_log(namespace, name, query), lambda body: body)

    async def follow_log(self, namespace: str, name: str, *, container: str = "base") -> AsyncIterator[bytes]:
        """Yields pieces of a container's log until the container ends."""
        request = _log(namespace, name, {"container": container, "follow": "true"})
        # A body may print nothing for hours, and a log has no bookmarks: silence says nothing here.
        async with self._transport.stream(request, silence_s=None) as pieces:
            async for piece in pieces:
                yield piece

    async def list_events(self, namespace: str, *, uid: str) -> list[dict[str, Any]]:
        """The newest events about the object of this uid, as far as the server still has them."""
        # By uid, not by name: a name may have had another pod before, whose events live for an hour.
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(EVENTS)}
        return await self._call(
            Request(verb="list", method="GET", path=_path("events", namespace), query=query), answers.events
        )

    async def may(self, verb: str, resource: str, *, namespace: str | None, subresource: str = "") -> bool:
        """Whether we may do that in a namespace (None: in all), as the server says (SelfSubjectAccessReview)."""
        wanted = {"verb": verb, "resource": resource, "subresource": subresource, "namespace": namespace or ""}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in wanted.items() if value}},
        }
        body = msgspec.json.encode(review)
        return await self._call(Request(verb="create", method="POST", path=_REVIEWS, body=body), answers.is_allowed)

    async def read_version(self) -> dict[str, Any]:
        """The server's version, as a health check."""
        return await self._call(Request(verb="get", method="GET", path="/version"), answers.version)

    async def _call(self, request: Request, checked: Callable[[bytes], T]) -> T:
        """The answer, if it is what `checked` takes; one that is not leaves open what the server did."""
        body = await self._transport.send(request)
        try:
            return checked(body)
        except answers.Unusable as error:
            raise http_errors.unusable(error, what=str(request)) from error


def _path(plural: str, namespace: str | None, name: str | None = None) -> str:
    # Quoted without `/`: a namespace out of a template or an override must not reach into another path.
    root = f"/api/v1/{plural}" if namespace is None else f"/api/v1/namespaces/{quote(namespace, safe='')}/{plural}"
    return root if name is None else f"{root}/{quote(name, safe='')}"


def _log(namespace: str, name: str, query: Mapping[str, str]) -> Request:
    return Request(verb="get", method="GET", path=_path("pods", namespace, name) + "/log", query=query)


def _patch(plural: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Request:
    return Request(
        verb="patch",
        method="PATCH",
        path=_path(plural, namespace, name),
        body=msgspec.json.encode(patch),
        content_type=_MERGE_PATCH,
    )


def _delete(namespace: str, name: str, options: Mapping[str, Any]) -> Request:
    body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
    return Request(verb="delete", method="DELETE", path=_path("pods", namespace, name), body=msgspec.json.encode(body))
