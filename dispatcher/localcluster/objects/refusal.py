"""A refusal: an error answer in the exact shape that Kubernetes gives it (a `Status` object).

Raised anywhere below `api`, which turns it into the HTTP answer. One class: nothing in here reacts differently to a
404 than to a 409; clients do, by `code` and `reason`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cause:
    """One field that is wrong: `reason` is a machine word such as `FieldValueRequired`."""

    field: str
    reason: str
    message: str


class Refusal(Exception):
    """An answer of status `code` with Kubernetes' `reason` word."""

    def __init__(self, code: int, reason: str, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})

    def status(self) -> dict[str, Any]:
        """The `Status` object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


def unauthorized() -> Refusal:
    """No token, or another one."""
    return Refusal(401, "Unauthorized", "Unauthorized")


def bad_request(message: str) -> Refusal:
    """The request makes no sense."""
    return Refusal(400, "BadRequest", message)


def no_such_path() -> Refusal:
    """There is nothing at this address."""
    return Refusal(404, "NotFound", "the server could not find the requested resource", details={})


def _about(what: str, name: str) -> dict[str, Any]:
    """`deployments.apps` -> its kind and group, as details have them."""
    kind, _, group = what.partition(".")
    return {"name": name, "group": group, "kind": kind} if group else {"name": name, "kind": kind}


def not_found(plural: str, name: str) -> Refusal:
    """There is no object of this name."""
    return Refusal(404, "NotFound", f'{plural} "{name}" not found', details=_about(plural, name))


def already_exists(plural: str, name: str) -> Refusal:
    """The name is taken."""
    return Refusal(409, "AlreadyExists", f'{plural} "{name}" already exists', details=_about(plural, name))


def conflict(plural: str, name: str, why: str) -> Refusal:
    """The object is not what the caller believes it to be."""
    return Refusal(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {plural} "{name}": {why}',
        details=_about(plural, name),
    )


def modified(plural: str, name: str) -> Refusal:
    """The object has another resourceVersion than the caller says."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(plural, name, why)


def invalid(kind: str, name: str, causes: Sequence[Cause]) -> Refusal:
    """Fields are wrong; all of them are named at once."""
    words = [f"{cause.field}: {cause.message}" for cause in causes]
    listed = words[0] if len(words) == 1 else "[" + ", ".join(words) + "]"
    details = _about(kind, name) | {
        "causes": [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes],
    }
    return Refusal(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details=details)


def forbidden(plural: str, name: str, why: str, *, causes: Sequence[Mapping[str, str]] = ()) -> Refusal:
    """Not now, or not here."""
    details = _about(plural, name)
    if causes:
        details["causes"] = [dict(cause) for cause in causes]
    return Refusal(403, "Forbidden", f'{plural} "{name}" is forbidden: {why}', details=details)


def not_permitted(*, verb: str, resource: str, namespace: str, name: str) -> Refusal:
    """RBAC refuses."""
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    plural = resource.partition("/")[0]
    about = f'{plural} "{name}"' if name else plural
    message = f'{about} is forbidden: User "podyard" cannot {verb} resource "{resource}" in API group ""{where}'
    return Refusal(403, "Forbidden", message, details={"name": name, "kind": plural} if name else {"kind": plural})


def method_not_allowed() -> Refusal:
    """The address knows no such verb."""
    return Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def only_checked(kind: str) -> Refusal:
    """There is no controller for this kind; the words are this cluster's own."""
    why = f"the local cluster runs no {kind}: it only checks one, with dryRun=All (kubectl: --dry-run=server)"
    return Refusal(405, "MethodNotAllowed", why)


def unsupported_media(kind: str, *, supported: Sequence[str], why: str = "") -> Refusal:
    """The body is in a language that is not spoken here."""
    message = f"the body of the request was in an unknown format ({kind}) - accepted media types include: "
    return Refusal(415, "UnsupportedMediaType", message + ", ".join(supported) + (f" ({why})" if why else ""))


def too_large(limit_bytes: int) -> Refusal:
    """The body is too big."""
    return Refusal(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit_bytes}")


def expired(requested: int, oldest: int) -> Refusal:
    """The version is too old: its history is gone."""
    return Refusal(410, "Expired", f"too old resource version: {requested} ({oldest})")


def unreadable_version(text: str) -> Refusal:
    """The version is no number: an API server calls that an error of its own, without a reason."""
    why = f'strconv.ParseUint: parsing "{text}": invalid syntax'
    return Refusal(500, "", f'resourceVersion: Invalid value: "{text}": {why}')


def version_too_large(requested: int, current: int) -> Refusal:
    """The version lies in the future."""
    message = f"Too large resource version: {requested}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return Refusal(504, "Timeout", f"Timeout: {message}", details={"causes": causes, "retryAfterSeconds": 1})
