"""One HTTP request, read: address -> target, query -> values, body -> object. Refuses what makes no sense."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from dispatcher.localcluster.apiserver import protobuf
from dispatcher.localcluster.objects import container_log, fault_points, refusal, resources, selectors, store, times
from dispatcher.localcluster.registry import registry, schema, strict

BODY_BYTES = 3 * 1024 * 1024
"""As a real API server's limit for a request."""
_TRUE = frozenset({"1", "true", "True", "t", "T", "TRUE"})
_FALSE = frozenset({"0", "false", "False", "f", "F", "FALSE", ""})
Json = dict[str, Any]
_READ = web.RequestKey("podyard-body", bytes)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What an address names; an empty `name` is the whole collection."""

    resource: resources.Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def target(path: str) -> Target | None:
    """`/api/v1/…` or `/apis/GROUP/VERSION/…` -> its target; None where nothing is."""
    root, *steps = [unquote(step) for step in path.strip("/").split("/")]
    size = 1 if root == "api" else 2
    known = resources.BY_VERSION.get("/".join(steps[:size]), {}) if root in {"api", "apis"} else {}
    steps = steps[size:]
    namespace = ""
    if len(steps) >= 3 and steps[0] == "namespaces" and steps[2] in known:
        namespace, steps = steps[1], steps[2:]
    resource = known.get(steps[0]) if steps else None
    if resource is None or len(steps) > 3 or (namespace and not resource.namespaced):
        return None
    name, subresource = [*steps[1:], "", ""][:2]
    if resource.namespaced and name and not namespace:
        return None
    if subresource and subresource not in {one for one, _, _ in resource.subresources}:
        return None
    return Target(resource=resource, namespace=namespace, name=name, subresource=subresource)


_VERBS: Mapping[str, Mapping[str, str]] = {
    "collection": {"GET": "list", "POST": "create", "DELETE": "deletecollection"},
    "object": {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"},
    "status": {"GET": "get", "PUT": "update", "PATCH": "patch"},
    "log": {"GET": "log"},
    "eviction": {"POST": "evict"},
}


def verb(request: web.BaseRequest, at: Target) -> str | None:
    """Kubernetes' word for what a request asks for (and our `log` and `evict`); None where there is none."""
    found = _VERBS[at.subresource or ("object" if at.name else "collection")].get(request.method)
    # The old form of a watch on one object, `?watch=1` on its own address, too.
    if found in {"get", "list"} and not at.subresource and flag(request.query, "watch"):
        return "watch"
    return found


def right(at: Target, *, verb: str) -> tuple[str, str]:
    """The verb and resource that RBAC would ask for: `get`, `pods/log`."""
    resource = f"{at.resource.plural}/{at.subresource}" if at.subresource else at.resource.plural
    return {"log": "get", "evict": "create"}.get(verb, verb), resource


async def as_seen(request: web.BaseRequest, at: Target, *, verb: str) -> fault_points.Call:
    """The request as faults see it; a create is known by the name in its body, which is read for that."""
    name = at.name
    if verb == "create":
        with contextlib.suppress(refusal.Refusal, LookupError, TypeError, AttributeError):
            name = str((await thing(request))["metadata"].get("name", ""))
    return fault_points.Call(verb=verb, resource=at.resource.plural, namespace=at.namespace, name=name)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter; raises Refusal 400."""
    text = query.get(name, "")
    if text not in _TRUE | _FALSE:
        raise refusal.bad_request(f'invalid value for {name}: strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def number(query: Mapping[str, str], name: str) -> int | None:
    """A non-negative integer, or None; raises Refusal 400."""
    text = query.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise refusal.bad_request(f'invalid value for {name}: "{text}" is not a non-negative integer')
    return int(text)


def version(query: Mapping[str, str]) -> int | None:
    """The resourceVersion that is asked for; raises Refusal 500 for one that is no number, as a real server does."""
    text = query.get("resourceVersion", "")
    if text and not (text.isascii() and text.isdigit()):
        raise refusal.unreadable_version(text)
    return int(text) if text else None


def match(at: Target, query: Mapping[str, str]) -> store.Match:
    """Namespace and selectors of a list or watch; with a name in the address only that object."""
    fields = query.get("fieldSelector", "")
    # A watch of one object is a watch of its collection with this field, as on a real server.
    if at.name:
        fields = f"metadata.name={at.name}"
    return store.Match(
        resource=at.resource,
        namespace=at.namespace,
        labels=selectors.parse_labels(query.get("labelSelector", "")),
        fields=selectors.parse_fields(fields, known=at.resource.known_fields, plural=at.resource.plural),
    )


def log_query(query: Mapping[str, str]) -> container_log.Query:
    """Which part of a log; raises Refusal 400."""
    since = None
    seconds = number(query, "sinceSeconds")
    try:
        if query.get("sinceTime"):
            since = times.read(query["sinceTime"])
    except ValueError as error:
        raise refusal.bad_request(f"invalid value for sinceTime: {error}") from None
    if seconds is not None:
        since = times.before_now(seconds)
    return container_log.Query(
        follow=flag(query, "follow"),
        tail_lines=number(query, "tailLines"),
        limit_bytes=number(query, "limitBytes"),
        since=since,
        timestamps=flag(query, "timestamps"),
    )


async def body(request: web.BaseRequest) -> bytes:
    """The body, also when it was read before; raises Refusal 413."""
    # Faults look for a pod's name in the body before the verb reads it.
    if _READ in request:
        return request[_READ]
    parts, size = [], 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size > BODY_BYTES:
            raise refusal.too_large(BODY_BYTES)
        parts.append(piece)
    request[_READ] = b"".join(parts)
    return b"".join(parts)


async def thing(request: web.BaseRequest) -> Any:
    """The body as JSON or YAML; raises Refusal 400, 413 or 415."""
    data = await body(request)
    kind = request.content_type
    if kind == "application/yaml":
        return _yaml(data)
    if kind == protobuf.MEDIA_TYPE:
        return _protobuf(data)
    if kind not in {"application/json", "application/octet-stream"} and not kind.endswith("+json"):
        raise refusal.unsupported_media(kind, supported=("application/json", "application/yaml"))
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refusal.bad_request(f"the object provided is unrecognized (no JSON): {error}") from None


def _protobuf(data: bytes) -> Any:
    try:
        return protobuf.read(data)
    except ValueError as error:
        raise refusal.unsupported_media(
            protobuf.MEDIA_TYPE, supported=("application/json", "application/yaml"), why=str(error)
        ) from None


def _yaml(data: bytes) -> Any:
    import yaml

    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError) as error:
        raise refusal.bad_request(f"the object provided is unrecognized (no YAML): {error}") from None


async def mapping(request: web.BaseRequest) -> Json:
    """The body as an object."""
    found = await thing(request)
    if not isinstance(found, dict):
        raise refusal.bad_request("the body is not an object")
    return found


async def delete_options(request: web.BaseRequest) -> registry.DeleteOptions:
    """DeleteOptions from body and query; raises Refusal 400."""
    said: Json = {}
    if request.can_read_body or _READ in request:
        data = await body(request)
        said = _json_object(data) if data.strip() else {}
    conditions = said.get("preconditions") or {}
    grace = said.get("gracePeriodSeconds")
    if grace is None:
        grace = number(request.query, "gracePeriodSeconds")
    if grace is not None and not isinstance(grace, int):
        raise refusal.bad_request("gracePeriodSeconds is not an integer")
    policy = said.get("propagationPolicy") or request.query.get("propagationPolicy")
    if policy not in {None, "Background", "Foreground", "Orphan"}:
        words = f'Invalid value: "{policy}": must be one of: Background, Foreground, Orphan'
        raise refusal.invalid("DeleteOptions", "", [refusal.Cause("propagationPolicy", "FieldValueInvalid", words)])
    return registry.DeleteOptions(
        grace_s=grace,
        uid=conditions.get("uid"),
        version=conditions.get("resourceVersion"),
        orphan=policy == "Orphan" or said.get("orphanDependents") is True,
        dry_run=_is_dry(said.get("dryRun") or []) or dry_run(request.query),
    )


def dry_run(query: Mapping[str, str]) -> bool:
    """Whether nothing is to be stored; raises Refusal 422."""
    return _is_dry([query["dryRun"]] if query.get("dryRun") else [])


def check_fields(query: Mapping[str, str], at: Target, thing: Json) -> list[str]:
    """Takes unknown fields out of an object; gives the warnings to send. Raises Refusal 400 for a strict caller."""
    mode = query.get("fieldValidation") or "Warn"
    if mode not in {"Strict", "Warn", "Ignore"}:
        words = f'Unsupported value: "{mode}": supported values: "Ignore", "Strict", "Warn"'
        cause = refusal.Cause("fieldValidation", "FieldValueNotSupported", words)
        raise refusal.invalid("Options", "", [cause])
    unknown = schema.prune(at.resource.kind, thing)
    if unknown and mode == "Strict":
        raise strict.refuse(at.resource, unknown)
    return strict.warnings(unknown) if mode == "Warn" else []


def _is_dry(said: list[str]) -> bool:
    if said not in ([], ["All"]):
        words = f"Invalid value: {said!r}: must be All"
        raise refusal.invalid("Options", "", [refusal.Cause("dryRun", "FieldValueNotSupported", words)])
    return bool(said)


def _json_object(data: bytes) -> Json:
    try:
        said = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refusal.bad_request(f"the DeleteOptions are no JSON: {error}") from None
    if not isinstance(said, dict) or not isinstance(said.get("preconditions") or {}, dict):
        raise refusal.bad_request("the DeleteOptions are no object")
    return said
