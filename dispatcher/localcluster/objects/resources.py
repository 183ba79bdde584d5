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
    group: str = ""
    version: str = "v1"
    is_only_checked: bool = False
    """No controller here would act on it: it is taken by a dry run, and stored by nothing else."""

    @property
    def api_version(self) -> str:
        """As it stands in an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The plural as messages have it: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """The kind likewise: `Pod`, `Deployment.apps`."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


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


def _checked(kind: str, group: str = "", *, plural: str = "", short: tuple[str, ...] = ()) -> Resource:
    singular = kind.lower()
    return Resource(
        plural=plural or f"{singular}s", singular=singular, kind=kind, group=group, short=short, is_only_checked=True
    )


CRON_JOBS = _checked("CronJob", "batch", short=("cj",))
DEPLOYMENTS = _checked("Deployment", "apps", short=("deploy",))
JOBS = _checked("Job", "batch")
NETWORK_POLICIES = _checked("NetworkPolicy", "networking.k8s.io", plural="networkpolicies", short=("netpol",))
CLAIMS = _checked("PersistentVolumeClaim", short=("pvc",))
DISRUPTION_BUDGETS = _checked("PodDisruptionBudget", "policy", short=("pdb",))
ROLES = _checked("Role", "rbac.authorization.k8s.io")
ROLE_BINDINGS = _checked("RoleBinding", "rbac.authorization.k8s.io")
SERVICES = _checked("Service", short=("svc",))
STATEFUL_SETS = _checked("StatefulSet", "apps", short=("sts",))

ALL = (
    *(CONFIGMAPS, EVENTS, NAMESPACES, NODES, PODS, QUOTAS, SECRETS, SERVICE_ACCOUNTS),
    *(CLAIMS, CRON_JOBS, DEPLOYMENTS, DISRUPTION_BUDGETS, JOBS, NETWORK_POLICIES, ROLE_BINDINGS, ROLES, SERVICES),
    STATEFUL_SETS,
)
BY_PLURAL: Mapping[str, Resource] = {resource.plural: resource for resource in ALL}
BY_VERSION: Mapping[str, Mapping[str, Resource]] = {
    version: {resource.plural: resource for resource in ALL if resource.api_version == version}
    for version in sorted({resource.api_version for resource in ALL})
}
"""`v1`, `apps/v1` … -> what this version of a group has, by plural."""
