"""Who may do what: a SelfSubjectAccessReview and its answer. Pure.

There is one user, who may do all that this cluster can do, but for what a fault denies; what it cannot do nobody may.
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from collections.abc import Callable
from typing import Any

from dispatcher.localcluster.objects import manifest, refusal, resources

Json = dict[str, Any]
PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
KIND = "SelfSubjectAccessReview"


Denies = Callable[[str, str, str], bool]
"""(verb, resource such as `pods/log`, namespace) -> whether it is denied."""


def review(thing: Json, *, denies: Denies = lambda verb, resource, namespace: False) -> Json:
    """The review with its status. Raises Refusal 400 for a body that is none."""
    manifest.check_types(KIND, thing)
    if thing.get("kind", KIND) != KIND:
        raise refusal.bad_request(f"no kind {thing.get('kind')!r} here: post a {KIND}")
    spec = thing.get("spec") or {}
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict):
        is_path = isinstance(spec.get("nonResourceAttributes"), dict)
        return _answered(thing, "" if is_path else "spec.resourceAttributes is missing")
    why_not = _why_not(asked)
    verb, plural, subresource, namespace = (
        str(asked.get(word) or "") for word in ("verb", "resource", "subresource", "namespace")
    )
    if not why_not and denies(verb, f"{plural}/{subresource}" if subresource else plural, namespace):
        why_not = "denied by a fault that was asked for"
    return _answered(thing, why_not)


def _why_not(asked: Json) -> str:
    """Why nobody may do it; empty where the user may."""
    verb, plural, subresource = (str(asked.get(word) or "") for word in ("verb", "resource", "subresource"))
    group = str(asked.get("group") or "")
    if group not in {"", "*", *(resource.group for resource in resources.ALL)}:
        return f"the local cluster has no API group {group}"
    if plural == "*":
        return ""
    resource = resources.BY_PLURAL.get(plural)
    if resource is None or group not in {"*", resource.group}:
        return f"the local cluster has no {plural}"
    verbs = resource.verbs
    if subresource:
        verbs = next((known for name, _, known in resource.subresources if name == subresource), ())
    return "" if verb == "*" or verb in verbs else f"the local cluster cannot {verb} {plural}"


def _answered(thing: Json, why_not: str) -> Json:
    status = {"allowed": False, "reason": why_not} if why_not else {"allowed": True, "reason": "there is one user"}
    head = {"kind": KIND, "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
    return head | {"spec": thing.get("spec") or {}, "status": status}
