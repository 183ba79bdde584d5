"""What a real API server would refuse in the kinds that are only checked here: object -> causes, in its words. Pure.

Only what people get wrong in such manifests, not every rule of each kind; a dry run on a real cluster decides.
Pods inside of templates have `pod_validation`; types and unknown fields are `schema`'s.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from dispatcher.localcluster.objects import causes, manifest, quantities
from dispatcher.localcluster.objects.refusal import Cause
from dispatcher.localcluster.registry import naming, pod_defaults, pod_validation

Json = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"


def check(kind: str, thing: Json) -> list[Cause]:
    """The rules of a kind; types and fields were checked before. Raises Refusal 400 for a quantity that is none."""
    return list(_CHECKS[kind](thing))


# --- what holds pods ---


def _deployment(thing: Json) -> Iterator[Cause]:
    spec = thing.get("spec") or {}
    yield from _replicated("deployment", spec)
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate" and strategy.get("rollingUpdate"):
        words = "may not be specified when strategy `type` is 'Recreate'"
        yield causes.forbidden("spec.strategy.rollingUpdate", words)


def _stateful_set(thing: Json) -> Iterator[Cause]:
    spec = thing.get("spec") or {}
    yield from _replicated("statefulset", spec)
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or []):
        yield from _claim_spec(f"spec.volumeClaimTemplates[{index}].spec", claim.get("spec") or {})


def _replicated(kind: str, spec: Json) -> Iterator[Cause]:
    template = spec.get("template") or {}
    replicas = spec.get("replicas")
    if replicas is not None and replicas < 0:
        yield causes.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
    selector = spec.get("selector")
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None:
        yield causes.required("spec.selector")
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield causes.invalid("spec.selector", "", f"empty selector is invalid for {kind}")
    elif not _selects(selector, labels):
        words = "`selector` does not match template `labels`"
        yield causes.invalid("spec.template.metadata.labels", labels, words)
    policy = (template.get("spec") or {}).get("restartPolicy", "Always")
    if policy != "Always":
        yield causes.unsupported("spec.template.spec.restartPolicy", policy, ("Always",))
    yield from _template("spec.template", template)


def _selects(selector: Json, labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions") or [])


def _holds(expression: Json, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression.get("key", "")), expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None


def _job(thing: Json) -> Iterator[Cause]:
    yield from _job_spec("spec", thing.get("spec") or {})


def _cron_job(thing: Json) -> Iterator[Cause]:
    spec = thing.get("spec") or {}
    if not spec.get("schedule"):
        yield causes.required("spec.schedule")
    yield from _job_spec("spec.jobTemplate.spec", (spec.get("jobTemplate") or {}).get("spec") or {})


def _job_spec(field: str, spec: Json) -> Iterator[Cause]:
    template = spec.get("template") or {}
    if (template.get("spec") or {}).get("restartPolicy", "Always") == "Always":
        yield causes.required(f"{field}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    for name in ("activeDeadlineSeconds", "backoffLimit", "completions", "parallelism", "ttlSecondsAfterFinished"):
        if (spec.get(name) or 0) < 0:
            yield causes.invalid(f"{field}.{name}", spec[name], "must be greater than or equal to 0")
    yield from _template(f"{field}.template", template)


def _template(field: str, template: Json) -> Iterator[Cause]:
    """A pod that would be made, checked as one; its restart policy is its owner's matter."""
    pod = copy.deepcopy({"metadata": template.get("metadata") or {}, "spec": template.get("spec") or {}})
    pod["spec"]["restartPolicy"] = "Never"
    quantities.check(pod)
    pod_defaults.set_defaults(pod)
    yield from naming.labels(f"{field}.metadata.labels", pod["metadata"].get("labels") or {})
    for cause in pod_validation.check(manifest.view(pod, manifest.Pod), pod["spec"]):
        yield replace(cause, field=f"{field}.{cause.field}")


# --- network, storage, budgets ---


def _service(thing: Json) -> Iterator[Cause]:
    spec = thing.get("spec") or {}
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield causes.required("spec.ports")
    for index, port in enumerate(ports):
        field = f"spec.ports[{index}]"
        if len(ports) > 1 and not port.get("name"):
            yield causes.required(f"{field}.name")
        elif port.get("name"):
            yield from naming.label(f"{field}.name", port["name"])
        if not 1 <= port.get("port", 0) <= 65_535:
            yield causes.invalid(f"{field}.port", port.get("port", 0), "must be between 1 and 65535, inclusive")
    yield from naming.labels("spec.selector", spec.get("selector") or {})


def _network_policy(thing: Json) -> Iterator[Cause]:
    spec = thing.get("spec") or {}
    for index, kind in enumerate(spec.get("policyTypes") or []):
        if kind not in {"Egress", "Ingress"}:
            yield causes.unsupported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress"))
    for group, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(group) or []):
            for number, peer in enumerate(rule.get(peers) or []):
                if not peer:
                    yield causes.required(f"spec.{group}[{index}].{peers}[{number}]", "must specify a peer")


def _disruption_budget(thing: Json) -> Iterator[Cause]:
    spec = thing.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        yield causes.invalid("spec", "", "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        value = spec.get(name)
        if isinstance(value, int) and value < 0:
            yield causes.invalid(f"spec.{name}", value, "must be greater than or equal to 0")
        elif isinstance(value, str) and not value.removesuffix("%").isdigit():
            yield causes.invalid(f"spec.{name}", value, "a valid percent string must be a numeric string followed by %")


def _claim(thing: Json) -> Iterator[Cause]:
    yield from _claim_spec("spec", thing.get("spec") or {})


def _claim_spec(field: str, spec: Json) -> Iterator[Cause]:
    if not spec.get("accessModes"):
        yield causes.required(f"{field}.accessModes", "at least 1 access mode is required")
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        yield causes.required(f"{field}.resources[storage]")


# --- rights ---


def _role(thing: Json) -> Iterator[Cause]:
    for index, rule in enumerate(thing.get("rules") or []):
        field = f"rules[{index}]"
        if not rule.get("verbs"):
            yield causes.required(f"{field}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            words = "namespaced rules cannot apply to non-resource URLs"
            yield causes.invalid(f"{field}.nonResourceURLs", rule["nonResourceURLs"], words)
            continue
        if not rule.get("apiGroups"):
            yield causes.required(f"{field}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            yield causes.required(f"{field}.resources", "resource rules must supply at least one resource")


def _role_binding(thing: Json) -> Iterator[Cause]:
    role = thing.get("roleRef") or {}
    if role.get("apiGroup") not in {None, "", _RBAC}:
        yield causes.unsupported("roleRef.apiGroup", role["apiGroup"], (_RBAC,))
    if role.get("kind") not in {"ClusterRole", "Role"}:
        yield causes.unsupported("roleRef.kind", role.get("kind") or "", ("ClusterRole", "Role"))
    if not role.get("name"):
        yield causes.required("roleRef.name")
    for index, subject in enumerate(thing.get("subjects") or []):
        field = f"subjects[{index}]"
        if not subject.get("name"):
            yield causes.required(f"{field}.name")
        if subject.get("kind") not in {"Group", "ServiceAccount", "User"}:
            kinds = ("Group", "ServiceAccount", "User")
            yield causes.unsupported(f"{field}.kind", subject.get("kind") or "", kinds)
        elif subject["kind"] == "ServiceAccount" and not subject.get("namespace"):
            yield causes.required(f"{field}.namespace")


_CHECKS: Mapping[str, Callable[[Json], Iterator[Cause]]] = {
    "CronJob": _cron_job,
    "Deployment": _deployment,
    "Job": _job,
    "NetworkPolicy": _network_policy,
    "PersistentVolumeClaim": _claim,
    "PodDisruptionBudget": _disruption_budget,
    "Role": _role,
    "RoleBinding": _role_binding,
    "Service": _service,
    "StatefulSet": _stateful_set,
}
