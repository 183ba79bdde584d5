"""The cluster: the one module that talks to the API server.

`connect` reads the credentials once, with the official client; the calls themselves are plain aiohttp, because a
create costs a fifth and a watch event a tenth of the official client's CPU (docs/benchmarks.md). Every call has a
bound. It raises `errors.ApiError` for an answer that is an error and `errors.ApiUnavailable` where there was none;
nothing of aiohttp escapes. Called by launcher, watcher, adoption and janitor; decides nothing.
"""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote

import aiohttp
import msgspec

from dispatcher import errors

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 30.0
WATCH_SERVER_TIMEOUT_S = 290
"""The server is asked to end a watch after this time; proxies and garbage collection like streams that end."""
PAGE_SIZE = 500
TOKEN_AGE_S = 10.0
"""A token is asked of the official client at most so often: asking costs as much as sending a create."""
WARNINGS = 100
"""Different warnings of the server that are told at most."""
EVENTS = 100
"""Events of one pod that are read at most."""
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_MERGE_PATCH = "application/merge-patch+json"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the API server is and how to be let in. `token` is asked anew for each call: tokens rotate."""

    host: str
    token: Callable[[], str | None]
    tls: ssl.SSLContext | bool
    namespace: str = "default"


@dataclass(frozen=True, kw_only=True)
class PodList:
    """All pods that a selector matched, and the version from which a watch goes on."""

    pods: list[dict[str, Any]]
    resource_version: str


class Wanted(Protocol):
    """Which server is wanted: the arguments of `connect`, as settings and `Options` carry them."""

    @property
    def kubeconfig(self) -> Path | None: ...
    @property
    def context(self) -> str | None: ...
    @property
    def in_cluster(self) -> bool | None: ...
    @property
    def verify_ssl(self) -> bool: ...


def connect_as(wanted: Wanted) -> Access:
    """`connect` with the arguments that somebody carries."""
    return connect(
        kubeconfig=wanted.kubeconfig,
        context=wanted.context,
        in_cluster=wanted.in_cluster,
        verify_ssl=wanted.verify_ssl,
    )


def connect(
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    in_cluster: bool | None = None,
    verify_ssl: bool = True,
) -> Access:
    """Reads the credentials of a kubeconfig, or of the pod that this process runs in.

    `in_cluster` None means: in-cluster if a service account is mounted and no kubeconfig is given. `verify_ssl` False
    takes any certificate of the server, as does a kubeconfig that says so.
    Raises DispatcherError that names the file and what is wrong with it.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    if in_cluster or (in_cluster is None and kubeconfig is None and _SERVICE_ACCOUNT.exists()):
        where = "the pod's service account"
        load: Callable[[], Any] = lambda: config.load_incluster_config(client_configuration=configuration)  # noqa: E731 - two ways, one call
    else:
        where = str(kubeconfig or config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
        load = lambda: config.load_kube_config(  # noqa: E731 - as above
            config_file=str(kubeconfig) if kubeconfig else None, context=context, client_configuration=configuration
        )
    try:
        load()
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        raise errors.DispatcherError(
            f"no access to Kubernetes: {where}: {error}. Name a kubeconfig in the setting kubernetes.kubeconfig"
        ) from error
    return Access(
        host=configuration.host.rstrip("/"),
        token=lambda: configuration.get_api_key_with_prefix("BearerToken", alias="authorization"),
        tls=_tls_of(configuration, verify=verify_ssl),
    )


def _tls_of(configuration: Any, *, verify: bool) -> ssl.SSLContext | bool:
    if configuration.host.startswith("http://"):
        return True
    if not (verify and configuration.verify_ssl):
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 - the setting or the kubeconfig says so
    else:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


class KubeClient:
    """An open connection to one API server. An async context manager; all calls belong to one event loop."""

    def __init__(self, access: Access, *, connections: int = 64) -> None:
        self._access = access
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._headers_of: dict[str, dict[str, str]] = {}
        self._headers_at = -TOKEN_AGE_S
        self._warned: set[str] = set()
        self.requests = 0
        """Requests sent so far, for `inspect stats`."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            base_url=self._access.host,
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._access.tls, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S, sock_connect=10),
            auto_decompress=True,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def create_pod(self, namespace: str, manifest: bytes, *, dry_run: bool = False) -> dict[str, Any]:
        """Creates a pod from its JSON, or with `dry_run` asks whether it could; returns the pod as the server has it.

        Raises ApiError, with reason `AlreadyExists` where a pod of that name is there.
        """
        query = {"dryRun": "All"} if dry_run else None
        return await self._call("POST", _pods(namespace), body=manifest, query=query)

    async def read_pod(self, namespace: str, name: str) -> dict[str, Any]:
        """One pod. Raises ApiError 404 where there is none."""
        return await self._call("GET", _pods(namespace, name))

    async def list_pods(self, namespace: str | None, *, selector: str) -> PodList:
        """All pods that match, read in pages; `namespace` None reads the whole cluster."""
        pods: list[dict[str, Any]] = []
        query = {"labelSelector": selector, "limit": str(PAGE_SIZE)}
        while True:
            page = await self._call("GET", _pods(namespace), query=query)
            pods += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return PodList(pods=pods, resource_version=page["metadata"]["resourceVersion"])
            query = {**query, "continue": token}

    async def list_words(self, namespace: str, *, selector: str) -> dict[str, str]:
        """Pod -> its status in one word, as `kubectl get pods` shows it, of all pods that match.

        The cheapest list there is: a table without the objects, from the server's cache, so it may be a little old.
        """
        query = {"labelSelector": selector, "resourceVersion": "0", "includeObject": "None"}
        answer = await self._call("GET", _pods(namespace), query=query, accept=_TABLE)
        if answer.get("kind") != "Table":  # the server makes no tables
            return {pod["metadata"]["name"]: str((pod.get("status") or {}).get("phase")) for pod in answer["items"]}
        columns = [column["name"] for column in answer["columnDefinitions"]]
        name, status = columns.index("Name"), columns.index("Status")
        return {row["cells"][name]: str(row["cells"][status]) for row in answer.get("rows") or ()}

    async def watch_pods(
        self, namespace: str | None, *, selector: str, resource_version: str, silence_s: float
    ) -> AsyncIterator[dict[str, Any]]:
        """Yields watch events (`type`, `object`) from that version on, bookmarks included, until the server ends.

        Raises ApiError for an HTTP error (410: the version is too old) and ApiUnavailable when nothing at all came
        for `silence_s` seconds or the stream broke. A line that is no JSON yields an event of the type `UNREADABLE`.
        """
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SERVER_TIMEOUT_S),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence_s)
        decode = msgspec.json.Decoder().decode
        try:
            async with self._open.get(
                _pods(namespace), params=query, headers=self._headers(), timeout=timeout
            ) as answer:
                self.requests += 1
                await _raise_for_status(answer)
                async for line in _lines(answer.content):
                    try:
                        yield decode(line)
                    except msgspec.DecodeError as error:
                        yield {"type": "UNREADABLE", "object": {"message": str(error)}}
        except _NO_ANSWER as error:
            raise errors.ApiUnavailable(f"the watch broke: {_words(error)}") from error

    async def patch_pod(self, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merges `patch` into a pod; with a `metadata.resourceVersion` in it, only if the pod is still that one."""
        return await self._call("PATCH", _pods(namespace, name), body=msgspec.json.encode(patch), kind=_MERGE_PATCH)

    async def delete_pod(self, namespace: str, name: str, *, uid: str | None, grace_s: int | None = None) -> None:
        """Deletes a pod, only the one with this `uid` where it is given. A pod that is gone is a success."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._call("DELETE", _pods(namespace, name), body=msgspec.json.encode(options))
        except errors.ApiError as error:
            if error.status != 404 and not (error.status == 409 and uid is not None):
                raise

    async def delete_unchanged(self, pod: Mapping[str, Any]) -> bool:
        """Deletes a pod if it still is as it was read; says whether the server did, or the pod is gone.

        The server compares the resourceVersion, so that a pod which has started meanwhile is left alone.
        """
        metadata = pod["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
        }
        try:
            await self._call(
                "DELETE", _pods(metadata["namespace"], metadata["name"]), body=msgspec.json.encode(options)
            )
        except errors.ApiError as error:
            if error.status == 409:
                return False
            if error.status != 404:
                raise
        return True

    async def put_secret(self, secret: Mapping[str, Any]) -> None:
        """Creates a Secret, or overwrites the one of its name."""
        namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
        body = msgspec.json.encode(secret)
        try:
            await self._call("POST", _secrets(namespace), body=body)
        except errors.ApiError as error:
            if error.status != 409:
                raise
            await self._call("PATCH", _secrets(namespace, name), body=body, kind=_MERGE_PATCH)

    async def read_secret(self, namespace: str, name: str) -> dict[str, Any]:
        """One Secret. Raises ApiError 404 where there is none."""
        return await self._call("GET", _secrets(namespace, name))

    async def read_config_map(self, namespace: str, name: str) -> dict[str, Any]:
        """One ConfigMap. Raises ApiError 404 where there is none."""
        return await self._call("GET", _config_maps(namespace, name))

    async def create_config_map(self, namespace: str, config_map: Mapping[str, Any]) -> dict[str, Any]:
        """Creates a ConfigMap. Raises ApiError, with reason `AlreadyExists` where one of that name is there."""
        return await self._call("POST", _config_maps(namespace), body=msgspec.json.encode(config_map))

    async def patch_config_map(self, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """As `patch_pod`, for a ConfigMap."""
        body = msgspec.json.encode(patch)
        return await self._call("PATCH", _config_maps(namespace, name), body=body, kind=_MERGE_PATCH)

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
        query = {"container": container}
        if tail_lines is not None:
            query["tailLines"] = str(tail_lines)
        if limit_bytes is not None:
            query["limitBytes"] = str(limit_bytes)
        return await self._send("GET", _pods(namespace, name) + "/log", query=query)

    async def follow_log(self, namespace: str, name: str, *, container: str = "base") -> AsyncIterator[bytes]:
        """Yields pieces of a container's log until the container ends."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        query = {"container": container, "follow": "true"}
        try:
            async with self._open.get(
                _pods(namespace, name) + "/log", params=query, headers=self._headers(), timeout=timeout
            ) as answer:
                self.requests += 1
                await _raise_for_status(answer)
                async for piece in answer.content.iter_any():
                    yield piece
        except _NO_ANSWER as error:
            raise errors.ApiUnavailable(f"the log of {name} broke: {_words(error)}") from error

    async def list_events(self, namespace: str, *, uid: str) -> list[dict[str, Any]]:
        """The newest events about the object of this uid, as far as the server still has them."""
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(EVENTS)}
        answer = await self._call("GET", f"/api/v1/namespaces/{quote(namespace, safe='')}/events", query=query)
        items: list[dict[str, Any]] = answer["items"]
        return items

    async def may(self, verb: str, resource: str, *, namespace: str | None, subresource: str = "") -> bool:
        """Whether we may do that in a namespace (None: in all), as the server says (SelfSubjectAccessReview)."""
        wanted = {"verb": verb, "resource": resource, "subresource": subresource, "namespace": namespace or ""}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in wanted.items() if value}},
        }
        answer = await self._call("POST", _REVIEWS, body=msgspec.json.encode(review))
        return bool((answer.get("status") or {}).get("allowed"))

    async def read_version(self) -> dict[str, Any]:
        """The server's version, as a sign of life."""
        return await self._call("GET", "/version")

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the cluster is used outside its `async with`")
        return self._session

    def _headers(self, kind: str = "application/json") -> dict[str, str]:
        now = time.monotonic()
        if now - self._headers_at > TOKEN_AGE_S:
            self._headers_at, self._headers_of = now, {}
        if kind not in self._headers_of:
            headers = {"Accept": "application/json", "Content-Type": kind, "User-Agent": "podyard"}
            token = self._access.token()
            self._headers_of[kind] = {**headers, "Authorization": token} if token else headers
        return self._headers_of[kind]

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        answer = await self._send(method, path, body=body, query=query, kind=kind, accept=accept)
        try:
            decoded: dict[str, Any] = msgspec.json.decode(answer)
        except msgspec.DecodeError as error:
            raise errors.ApiUnavailable(f"{method} {path}: the answer is no JSON: {error}") from error
        return decoded

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        self.requests += 1
        headers = {**self._headers(kind), "Accept": accept}
        try:
            async with self._open.request(method, path, params=query, data=body, headers=headers) as answer:
                await _raise_for_status(answer)
                self._tell_warnings(answer.headers.getall("Warning", ()))
                return await answer.read()
        except _NO_ANSWER as error:
            was_sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise errors.ApiUnavailable(f"{method} {path}: {_words(error)}", was_sent=was_sent) from error

    def _tell_warnings(self, warnings: Sequence[str]) -> None:
        """What the server did otherwise than asked, such as a field that it does not know and dropped; each once."""
        for warning in warnings:
            if warning not in self._warned and len(self._warned) < WARNINGS:
                self._warned.add(warning)
                logger.warning("the API server warns: %s", warning.removeprefix("299 - "))


def _pods(namespace: str | None, name: str | None = None) -> str:
    root = "/api/v1/pods" if namespace is None else f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
    return root if name is None else f"{root}/{quote(name, safe='')}"


def _secrets(namespace: str, name: str | None = None) -> str:
    root = f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets"
    return root if name is None else f"{root}/{quote(name, safe='')}"


def _config_maps(namespace: str, name: str | None = None) -> str:
    root = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps"
    return root if name is None else f"{root}/{quote(name, safe='')}"


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own `readline` gives up at 64 KiB, and a pod may have 1.5 MB."""
    rest = b""
    async for piece in content.iter_any():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line:
                yield line


async def _raise_for_status(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 400:
        return
    text = (await answer.read()).decode(errors="replace")
    try:
        status = json.loads(text)
        reason, message = str(status.get("reason") or answer.reason), str(status.get("message") or text)
    except (ValueError, AttributeError):
        reason, message = str(answer.reason), text[:300]
    raise errors.ApiError(
        answer.status, reason, message, retry_after_s=_retry_after_s(answer.headers.get("Retry-After"))
    )


def _retry_after_s(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None


def _words(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
