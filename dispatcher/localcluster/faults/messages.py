"""How faults are worded, as an API server, a scheduler or a container runtime would. Pure tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dispatcher.localcluster.faults import kinds
from dispatcher.localcluster.objects import fault_points, refusal

_REASONS: Mapping[int, str] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    502: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
_MESSAGES: Mapping[int, str] = {
    401: "Unauthorized",
    410: "The provided continue parameter is too old",
    429: "Too many requests, please try again later.",
    500: "Internal error occurred: failed calling webhook: an error on the server has prevented the request",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}
_GARBLED: Mapping[str, bytes] = {
    "null": b"null",
    "object": b"{}",
    "list": b"[]",
    "latin1": '{"kind":"Status","apiVersion":"v1","metadata":{},"message":"caf\xe9"}'.encode("latin-1"),
    "empty": b"",
    "html": b"<html><body><h1>It works!</h1></body></html>\n",
}
_BEGUN = b'{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"kind":'
_CREATES = frozenset({"create", "evict"})
_PULLS: Mapping[str, str] = {
    "not_found": 'failed to resolve reference "{image}": {image}: not found',
    "denied": (
        'failed to resolve reference "{image}": pull access denied, repository does not exist or may require '
        "authorization: server message: insufficient_scope: authorization failed"
    ),
    "rate_limit": (
        'failed to copy: httpReadSeeker: failed open: unexpected status code for "{image}": 429 Too Many Requests - '
        "Server message: toomanyrequests: You have reached your pull rate limit."
    ),
    "unreachable": 'failed to resolve reference "{image}": failed to do request: dial tcp: i/o timeout',
}
_SCHEDULING: Mapping[str, str] = {
    "cpu": "0/1 nodes are available: 1 Insufficient cpu.",
    "memory": "0/1 nodes are available: 1 Insufficient memory.",
    "selector": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    "taint": "0/1 nodes are available: 1 node(s) had untolerated taint {dedicated: other}.",
    "volume": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
}


def answer(fault: kinds.Fail, call: fault_points.Call) -> refusal.Refusal:
    """The answer that a failing call gets."""
    details: dict[str, object] = {"name": call.name, "kind": call.resource}
    if fault.retry_after_s is not None:
        details["retryAfterSeconds"] = fault.retry_after_s
    reason = fault.reason or _REASONS.get(fault.status, "InternalError")
    return refusal.Refusal(fault.status, reason, fault.message or _message(fault.status, call), details=details)


@dataclass(frozen=True, kw_only=True)
class Nonsense:
    """An answer that is a success by its status and none by its body. `promised` is its Content-Length."""

    status: int
    body: bytes
    promised: int
    content_type: str


def nonsense(fault: kinds.Garble, call: fault_points.Call, *, real: bytes = b"") -> Nonsense:
    """The answer that a garbled call gets; `real` is the true body where the call was done."""
    usual = 204 if fault.body == "empty" else 201 if call.verb in _CREATES else 200
    whole = real or _BEGUN * 2
    body = _GARBLED.get(fault.body, whole[: len(whole) // 2])
    return Nonsense(
        status=fault.status or usual,
        body=body,
        promised=len(whole) if fault.body == "broken_off" else len(body),
        content_type="text/html" if fault.body == "html" else "application/json",
    )


def restart(happening: kinds.RestartApiserver) -> Iterator[kinds.Standing]:
    """The standing faults that a restart of the API server consists of."""
    if happening.down_s:
        yield kinds.Fail(how="cut", for_s=happening.down_s)
    if happening.forbidden_s:
        begin_s, for_s = happening.down_s, happening.forbidden_s
        yield kinds.Deny(after_s=begin_s, for_s=for_s)
        # reviews and addresses without objects need a right too: who has none may not even ask what it may do
        for resource in (fault_points.REVIEWS, "/*"):
            yield kinds.Fail(resource=resource, status=403, after_s=begin_s, for_s=for_s)


def _message(status: int, call: fault_points.Call) -> str:
    if status == 403 and call.resource.startswith("/"):
        return f'forbidden: User "podyard" cannot {call.verb} path "{call.resource}"'
    if status == 403 and call.resource == fault_points.REVIEWS:
        group = "authorization.k8s.io"
        where = f'in API group "{group}" at the cluster scope'
        return f'{call.resource}.{group} is forbidden: User "podyard" cannot create resource "{call.resource}" {where}'
    if status == 403 and call.verb == "create":
        used = f"requested: {call.resource}=1, used: {call.resource}=10, limited: {call.resource}=10"
        return f'{call.resource} "{call.name}" is forbidden: exceeded quota: podyard-faults, {used}'
    if status == 403:
        where = f'in API group "" in the namespace "{call.namespace}"'
        what = f'User "podyard" cannot {call.verb} resource "{call.resource}" {where}'
        return f'{call.resource} "{call.name}" is forbidden: {what}'
    if status == 404:
        return f'{call.resource} "{call.name}" not found'
    if status == 409:
        return (
            'Operation cannot be fulfilled on resourcequotas "podyard-faults": the object has been modified; please '
            "apply your changes to the latest version and try again"
        )
    return _MESSAGES.get(status, "a fault was asked for")


def pull(fault: kinds.Unpullable, image: str) -> str:
    """Why an image cannot be pulled."""
    why = fault.message or _PULLS[fault.cause].format(image=image)
    return f'failed to pull and unpack image "{image}": {why}'


def scheduling(fault: kinds.Unschedulable) -> str:
    """Why no node takes a pod."""
    return fault.message or _SCHEDULING[fault.cause]
