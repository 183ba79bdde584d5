"""The fields of every kind that is checked here: which exist, of what type. Pure.

Those of pods, and of what stands in them, are `dispatcher.manifests.pod_schema`'s; the table adds the other kinds, as
the client library describes them (`tests/unit/localcluster/test_schema.py` derives it anew and compares).
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from dispatcher.localcluster.objects import refusal
from dispatcher.manifests import pod_schema

Json = dict[str, Any]
_OBJECT = "apiVersion:str kind:str metadata:ObjectMeta"
_DATA = f"""\
ConfigMap {_OBJECT} data:{{str}} binaryData:{{str}} immutable:bool
Secret {_OBJECT} data:{{str}} stringData:{{str}} immutable:bool type:str
"""
# One type an entry: its name, then `field:type`; the signs are those of `pod_schema`.
_TABLE = """\
CronJob apiVersion:str kind:str metadata:ObjectMeta spec:CronJobSpec status:any
Deployment apiVersion:str kind:str metadata:ObjectMeta spec:DeploymentSpec status:any
Job apiVersion:str kind:str metadata:ObjectMeta spec:JobSpec status:any
NetworkPolicy apiVersion:str kind:str metadata:ObjectMeta spec:NetworkPolicySpec
PersistentVolumeClaim apiVersion:str kind:str metadata:ObjectMeta spec:PersistentVolumeClaimSpec status:any
PodDisruptionBudget apiVersion:str kind:str metadata:ObjectMeta spec:PodDisruptionBudgetSpec status:any
Role apiVersion:str kind:str metadata:ObjectMeta rules:[PolicyRule]
RoleBinding apiVersion:str kind:str metadata:ObjectMeta roleRef:RoleRef subjects:[Subject]
Service apiVersion:str kind:str metadata:ObjectMeta spec:ServiceSpec status:any
ServiceAccount apiVersion:str automountServiceAccountToken:bool imagePullSecrets:[LocalObjectReference] kind:str
    metadata:ObjectMeta secrets:[ObjectReference]
StatefulSet apiVersion:str kind:str metadata:ObjectMeta spec:StatefulSetSpec status:any
ClientIPConfig timeoutSeconds:int
CronJobSpec concurrencyPolicy:str failedJobsHistoryLimit:int jobTemplate:JobTemplateSpec schedule:str
    startingDeadlineSeconds:int successfulJobsHistoryLimit:int suspend:bool timeZone:str
DeploymentSpec minReadySeconds:int paused:bool progressDeadlineSeconds:int replicas:int revisionHistoryLimit:int
    selector:LabelSelector strategy:DeploymentStrategy template:PodTemplateSpec
DeploymentStrategy rollingUpdate:RollingUpdateDeployment type:str
IPBlock cidr:str except:[str]
JobSchedulingConfiguration disruptionMode:alpha3WorkloadPodGroupDisruptionMode
    resourceClaims:[alpha3WorkloadPodGroupResourceClaim]
    schedulingConstraints:alpha3WorkloadPodGroupSchedulingConstraints
    schedulingPolicy:alpha3WorkloadPodGroupSchedulingPolicy
JobSpec activeDeadlineSeconds:int backoffLimit:int backoffLimitPerIndex:int completionMode:str completions:int
    managedBy:str manualSelector:bool maxFailedIndexes:int parallelism:int podFailurePolicy:PodFailurePolicy
    podReplacementPolicy:str scheduling:JobSchedulingConfiguration selector:LabelSelector successPolicy:SuccessPolicy
    suspend:bool template:PodTemplateSpec ttlSecondsAfterFinished:int
JobTemplateSpec metadata:ObjectMeta spec:JobSpec
NetworkPolicyEgressRule ports:[NetworkPolicyPort] to:[NetworkPolicyPeer]
NetworkPolicyIngressRule from:[NetworkPolicyPeer] ports:[NetworkPolicyPort]
NetworkPolicyPeer ipBlock:IPBlock namespaceSelector:LabelSelector podSelector:LabelSelector
NetworkPolicyPort endPort:int port:port protocol:str
NetworkPolicySpec egress:[NetworkPolicyEgressRule] ingress:[NetworkPolicyIngressRule] podSelector:LabelSelector
    policyTypes:[str]
ObjectReference apiVersion:str fieldPath:str kind:str name:str namespace:str resourceVersion:str uid:str
PodDisruptionBudgetSpec maxUnavailable:port minAvailable:port selector:LabelSelector unhealthyPodEvictionPolicy:str
PodFailurePolicy rules:[PodFailurePolicyRule]
PodFailurePolicyOnExitCodesRequirement containerName:str operator:str values:[int]
PodFailurePolicyOnPodConditionsPattern status:str type:str
PodFailurePolicyRule action:str onExitCodes:PodFailurePolicyOnExitCodesRequirement
    onPodConditions:[PodFailurePolicyOnPodConditionsPattern]
PodTemplateSpec metadata:ObjectMeta spec:PodSpec
PolicyRule apiGroups:[str] nonResourceURLs:[str] resourceNames:[str] resources:[str] verbs:[str]
RoleRef apiGroup:str kind:str name:str
RollingUpdateDeployment maxSurge:port maxUnavailable:port
RollingUpdateStatefulSetStrategy maxUnavailable:port partition:int
ServicePort appProtocol:str name:str nodePort:int port:int protocol:str targetPort:port
ServiceSpec allocateLoadBalancerNodePorts:bool clusterIP:str clusterIPs:[str] externalIPs:[str] externalName:str
    externalTrafficPolicy:str healthCheckNodePort:int internalTrafficPolicy:str ipFamilies:[str] ipFamilyPolicy:str
    loadBalancerClass:str loadBalancerIP:str loadBalancerSourceRanges:[str] ports:[ServicePort]
    publishNotReadyAddresses:bool selector:{str} sessionAffinity:str sessionAffinityConfig:SessionAffinityConfig
    trafficDistribution:str type:str
SessionAffinityConfig clientIP:ClientIPConfig
StatefulSetOrdinals start:int
StatefulSetPersistentVolumeClaimRetentionPolicy whenDeleted:str whenScaled:str
StatefulSetSpec minReadySeconds:int ordinals:StatefulSetOrdinals
    persistentVolumeClaimRetentionPolicy:StatefulSetPersistentVolumeClaimRetentionPolicy podManagementPolicy:str
    replicas:int revisionHistoryLimit:int selector:LabelSelector serviceName:str template:PodTemplateSpec
    updateStrategy:StatefulSetUpdateStrategy volumeClaimTemplates:[PersistentVolumeClaim]
StatefulSetUpdateStrategy rollingUpdate:RollingUpdateStatefulSetStrategy type:str
Subject apiGroup:str kind:str name:str namespace:str
SuccessPolicy rules:[SuccessPolicyRule]
SuccessPolicyRule succeededCount:int succeededIndexes:str
alpha3TopologyConstraint key:str
alpha3WorkloadPodGroupDisruptionMode all:any single:any
alpha3WorkloadPodGroupGangSchedulingPolicy minCount:int
alpha3WorkloadPodGroupResourceClaim name:str resourceClaimName:str resourceClaimTemplateName:str
alpha3WorkloadPodGroupSchedulingConstraints topology:[alpha3TopologyConstraint]
alpha3WorkloadPodGroupSchedulingPolicy basic:any gang:alpha3WorkloadPodGroupGangSchedulingPolicy
"""
_NAMES: Mapping[str, str] = {"str": "string", "time": "string", "int": "number", "bool": "boolean"}
_CLASSES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "time": (str,),
    "int": (int,),
    "bool": (bool,),
    "port": (int, str),
    "quantity": (int, float, str),
}


@functools.cache
def types() -> Mapping[str, Mapping[str, str]]:
    """Type name -> field name -> type."""
    found = dict(pod_schema.types())
    for line in (_DATA + _TABLE).strip().replace("\n ", " ").splitlines():
        name, *fields = line.split()
        found[name] = dict(field.split(":") for field in fields)
    return found


def prune(kind: str, thing: Json) -> list[str]:
    """Takes unknown fields out of an object, as an API server does; gives their paths. Other kinds keep all."""
    shape = types().get(kind)
    return [] if shape is None else list(_unknown(thing, shape, ""))


def _unknown(thing: Json, shape: Mapping[str, str], path: str) -> Iterator[str]:
    for key in tuple(thing):
        here = f"{path}.{key}" if path else key
        if key not in shape:
            del thing[key]
            yield here
        else:
            yield from _inside(thing[key], shape[key], here)


def _inside(value: Any, kind: str, path: str) -> Iterator[str]:
    if kind.startswith("["):
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            yield from _inside(entry, kind[1:-1], f"{path}[{index}]")
    elif isinstance(value, dict) and (shape := types().get(kind)) is not None:
        yield from _unknown(value, shape, path)


def check_types(kind: str, thing: Json) -> None:
    """Raises Refusal 400 that names the first field of a wrong type."""
    for path, expected, value in _wrong(thing, kind, ""):
        words = f"{path}: expected {expected}, got {_described(value)}"
        raise refusal.bad_request(f"{kind} cannot be handled as a {kind}: {words}")


def _wrong(value: Any, kind: str, path: str) -> Iterator[tuple[str, str, Any]]:
    if value is None or kind == "any":
        return
    if kind in _CLASSES:
        if not isinstance(value, _CLASSES[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield path, _NAMES.get(kind, "number or string"), value
    elif kind[0] == "[":
        if not isinstance(value, list):
            yield path, "array", value
            return
        for index, entry in enumerate(value):
            yield from _wrong(entry, kind[1:-1], f"{path}[{index}]")
    elif not isinstance(value, dict):
        yield path, "object", value
    else:
        free = kind[1:-1] if kind[0] == "{" else ""
        shape = types()[kind] if not free else {}
        for key, entry in value.items():
            yield from _wrong(entry, free or shape.get(key, "any"), f"{path}.{key}" if path else key)


def _described(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "another type")
