"""Admission: what is refused for the state of the namespace, not for the object's own sake. Only reads the store."""

from typing import Any

from dispatcher.localcluster.objects import refusal, resources, store
from dispatcher.localcluster.registry import quotas

Json = dict[str, Any]
_FINAL = frozenset({"Succeeded", "Failed"})


def check_namespace(objects: store.Store, resource: resources.Resource, namespace: str, name: str) -> None:
    """Raises Refusal 404 for a namespace that is not there, 403 for one that is being deleted."""
    home = objects.get(resources.NAMESPACES, "", namespace)
    if home is None:
        raise refusal.not_found("namespaces", namespace)
    # The bytes are looked at first: decoding the namespace for each create would cost more than the create itself.
    if b'"Terminating"' in home.body and home.read()["status"]["phase"] == "Terminating":
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        raise refusal.forbidden(resource.plural, name, why, causes=[cause])


def admit(objects: store.Store, resource: resources.Resource, namespace: str, thing: Json) -> None:
    """Raises Refusal 403 where the account is not there, or a quota is used up."""
    name = thing["metadata"]["name"]
    if resource is resources.PODS:
        account = thing["spec"]["serviceAccountName"]
        if objects.get(resources.SERVICE_ACCOUNTS, namespace, account) is None:
            why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise refusal.forbidden(resource.plural, name, why)
    for quota in objects.list(store.Match(resource=resources.QUOTAS, namespace=namespace)):
        body = quota.read()
        hard = body.get("spec", {}).get("hard") or {}
        used = {key: _count(objects, resource, namespace, key) for key in quotas.key_of(resource.plural, hard)}
        why = quotas.exceeded(body, resource.plural, used)
        if why:
            raise refusal.forbidden(resource.plural, name, why)


def _count(objects: store.Store, resource: resources.Resource, namespace: str, key: str) -> int:
    """How many a quota counts: `pods` those that have not ended, `count/pods` all that are there."""
    found = objects.list(store.Match(resource=resource, namespace=namespace))
    if key != "pods":
        return len(found)
    return sum(snapshot.read()["status"].get("phase") not in _FINAL for snapshot in found)
