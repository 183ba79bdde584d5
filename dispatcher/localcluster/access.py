"""Who may do what: a SelfSubjectAccessReview and its answer. Pure.

There is one user, who may do all that this cluster can do; what it cannot do nobody may.
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from typing import Any

from dispatcher.localcluster import manifest, refusal, resources

Json = dict[str, Any]
PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
KIND = "SelfSubjectAccessReview"


def review(thing: Json) -> Json:
    """The review with its status. Raises Refusal 400 for a body that is none."""
    manifest.check_types(KIND, thing)
    if thing.get("kind", KIND) != KIND:
        raise refusal.bad_request(f"no kind {thing.get('kind')!r} here: post a {KIND}")
    spec = thing.get("spec") or {}
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict):
        is_path = isinstance(spec.get("nonResourceAttributes"), dict)
        return _answered(thing, "" if is_path else "spec.resourceAttributes is missing")
    return _answered(thing, _why_not(asked))


def _why_not(asked: Json) -> str:
    """Why nobody may do it; empty where the user may."""
    verb, plural, subresource = (str(asked.get(word) or "") for word in ("verb", "resource", "subresource"))
    if asked.get("group") not in (None, "", "*"):
        return f"the local cluster has no API group {asked['group']}"
    if plural == "*":
        return ""
    resource = resources.BY_PLURAL.get(plural)
    if resource is None:
        return f"the local cluster has no {plural}"
    verbs = resource.verbs
    if subresource:
        verbs = next((known for name, _, known in resource.subresources if name == subresource), ())
    return "" if verb == "*" or verb in verbs else f"the local cluster cannot {verb} {plural}"


def _answered(thing: Json, why_not: str) -> Json:
    status = {"allowed": False, "reason": why_not} if why_not else {"allowed": True, "reason": "there is one user"}
    head = {"kind": KIND, "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
    return head | {"spec": thing.get("spec") or {}, "status": status}
