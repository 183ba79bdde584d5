"""The kinds of object that this API has: names, verbs and the fields that selectors may ask for. Pure tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


def _metadata_fields(thing: Json) -> dict[str, str]:
    metadata = thing["metadata"]
    return {"metadata.name": metadata["name"], "metadata.namespace": metadata.get("namespace", "")}


def _pod_fields(pod: Json) -> dict[str, str]:
    spec, status = pod["spec"], pod.get("status", {})
    return _metadata_fields(pod) | {
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.restartPolicy": spec.get("restartPolicy", ""),
        "spec.schedulerName": spec.get("schedulerName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "spec.hostNetwork": str(bool(spec.get("hostNetwork"))).lower(),
        "status.phase": status.get("phase", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
        "status.nominatedNodeName": status.get("nominatedNodeName", ""),
    }


def _event_fields(event: Json) -> dict[str, str]:
    about = event.get("involvedObject", {})
    words = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    return (
        _metadata_fields(event)
        | {f"involvedObject.{word}": about.get(word, "") for word in words}
        | {
            "reason": event.get("reason", ""),
            "reportingComponent": event.get("reportingComponent", ""),
            "source": event.get("source", {}).get("component", ""),
            "type": event.get("type", ""),
        }
    )


def _namespace_fields(namespace: Json) -> dict[str, str]:
    return _metadata_fields(namespace) | {"status.phase": namespace.get("status", {}).get("phase", "")}


def _node_fields(node: Json) -> dict[str, str]:
    return _metadata_fields(node) | {"spec.unschedulable": str(bool(node.get("spec", {}).get("unschedulable"))).lower()}


def _secret_fields(secret: Json) -> dict[str, str]:
    return _metadata_fields(secret) | {"type": secret.get("type", "")}


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One kind of object, as discovery lists it."""

    plural: str
    singular: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """Name, kind and verbs of each subresource."""
    fields: Callable[[Json], Mapping[str, str]] = _metadata_fields
    known_fields: frozenset[str] = frozenset({"metadata.name", "metadata.namespace"})
    verbs: tuple[str, ...] = _VERBS


def _known(fields: Callable[[Json], Mapping[str, str]]) -> frozenset[str]:
    return frozenset(fields({"metadata": {"name": ""}, "spec": {}}))


_STATUS = ("get", "patch", "update")
PODS = Resource(
    plural="pods",
    singular="pod",
    kind="Pod",
    short=("po",),
    categories=("all",),
    subresources=(
        ("eviction", "Eviction", ("create",)),
        ("log", "Pod", ("get",)),
        ("status", "Pod", _STATUS),
    ),
    fields=_pod_fields,
    known_fields=_known(_pod_fields),
)
NAMESPACES = Resource(
    plural="namespaces",
    singular="namespace",
    kind="Namespace",
    namespaced=False,
    short=("ns",),
    fields=_namespace_fields,
    known_fields=_known(_namespace_fields),
    verbs=tuple(verb for verb in _VERBS if verb != "deletecollection"),
)
CONFIGMAPS = Resource(plural="configmaps", singular="configmap", kind="ConfigMap", short=("cm",))
SECRETS = Resource(
    plural="secrets", singular="secret", kind="Secret", fields=_secret_fields, known_fields=_known(_secret_fields)
)
EVENTS = Resource(
    plural="events",
    singular="event",
    kind="Event",
    short=("ev",),
    fields=_event_fields,
    known_fields=_known(_event_fields),
)
NODES = Resource(
    plural="nodes",
    singular="node",
    kind="Node",
    namespaced=False,
    short=("no",),
    subresources=(("status", "Node", _STATUS),),
    fields=_node_fields,
    known_fields=_known(_node_fields),
)
QUOTAS = Resource(
    plural="resourcequotas",
    singular="resourcequota",
    kind="ResourceQuota",
    short=("quota",),
    subresources=(("status", "ResourceQuota", _STATUS),),
)
SERVICE_ACCOUNTS = Resource(plural="serviceaccounts", singular="serviceaccount", kind="ServiceAccount", short=("sa",))

ALL = (CONFIGMAPS, EVENTS, NAMESPACES, NODES, PODS, QUOTAS, SECRETS, SERVICE_ACCOUNTS)
BY_PLURAL: Mapping[str, Resource] = {resource.plural: resource for resource in ALL}
