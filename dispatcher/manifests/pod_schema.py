"""Fields of a Pod: which exist, of what type, and a plain checked copy of what people write.

Pure. The table below is the Pod of the Kubernetes API as the client library describes it; a test
(`tests/unit/manifests/test_pod_schema.py`) derives it anew and compares. So no message pays for importing that library.
A document may be a mapping, or an object of the library (`V1Pod`), recognised by its shape.

Called by `dispatcher.manifests.template` for templates and by `dispatcher.manifests.merge` for both sides of a merge.
"""

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

Path = tuple[str | int, ...]
"""Where a value stands: names of fields and indexes in lists."""

# One type an entry: its name, then `field:type`. `[x]` is a list, `{x}` a mapping with free keys. `quantity` is a text
# or a number, `port` a number or a name, `any` any JSON. The status is the cluster's: no typo is looked for there.
_TABLE = """
Pod apiVersion:str kind:str metadata:ObjectMeta spec:PodSpec status:any
AWSElasticBlockStoreVolumeSource fsType:str partition:int readOnly:bool volumeID:str
Affinity nodeAffinity:NodeAffinity podAffinity:PodAffinity podAntiAffinity:PodAntiAffinity
AppArmorProfile localhostProfile:str type:str
AzureDiskVolumeSource cachingMode:str diskName:str diskURI:str fsType:str kind:str readOnly:bool
AzureFileVolumeSource readOnly:bool secretName:str shareName:str
CSIVolumeSource driver:str fsType:str nodePublishSecretRef:LocalObjectReference readOnly:bool volumeAttributes:{str}
Capabilities add:[str] drop:[str]
CephFSVolumeSource monitors:[str] path:str readOnly:bool secretFile:str secretRef:LocalObjectReference user:str
CinderVolumeSource fsType:str readOnly:bool secretRef:LocalObjectReference volumeID:str
ClusterTrustBundleProjection labelSelector:LabelSelector name:str optional:bool path:str signerName:str user:int
ConfigMapEnvSource name:str optional:bool
ConfigMapKeySelector key:str name:str optional:bool
ConfigMapProjection items:[KeyToPath] name:str optional:bool
ConfigMapVolumeSource defaultMode:int defaultUser:int items:[KeyToPath] name:str optional:bool
Container args:[str] command:[str] env:[EnvVar] envFrom:[EnvFromSource] image:str imagePullPolicy:str
    lifecycle:Lifecycle livenessProbe:Probe name:str ports:[ContainerPort] readinessProbe:Probe
    resizePolicy:[ContainerResizePolicy] resources:ResourceRequirements restartPolicy:str
    restartPolicyRules:[ContainerRestartRule] securityContext:SecurityContext startupProbe:Probe stdin:bool
    stdinOnce:bool terminationMessagePath:str terminationMessagePolicy:str tty:bool volumeDevices:[VolumeDevice]
    volumeMounts:[VolumeMount] workingDir:str
ContainerPort containerPort:int hostIP:str hostPort:int name:str protocol:str
ContainerResizePolicy resourceName:str restartPolicy:str
ContainerRestartRule action:str exitCodes:ContainerRestartRuleOnExitCodes
ContainerRestartRuleOnExitCodes operator:str values:[int]
DownwardAPIProjection items:[DownwardAPIVolumeFile]
DownwardAPIVolumeFile fieldRef:ObjectFieldSelector mode:int path:str resourceFieldRef:ResourceFieldSelector user:int
DownwardAPIVolumeSource defaultMode:int defaultUser:int items:[DownwardAPIVolumeFile]
EmptyDirVolumeSource medium:str mode:int sizeLimit:quantity
EnvFromSource configMapRef:ConfigMapEnvSource prefix:str secretRef:SecretEnvSource
EnvVar name:str value:str valueFrom:EnvVarSource
EnvVarSource configMapKeyRef:ConfigMapKeySelector fieldRef:ObjectFieldSelector fileKeyRef:FileKeySelector
    resourceFieldRef:ResourceFieldSelector secretKeyRef:SecretKeySelector
EphemeralContainer args:[str] command:[str] env:[EnvVar] envFrom:[EnvFromSource] image:str imagePullPolicy:str
    lifecycle:Lifecycle livenessProbe:Probe name:str ports:[ContainerPort] readinessProbe:Probe
    resizePolicy:[ContainerResizePolicy] resources:ResourceRequirements restartPolicy:str
    restartPolicyRules:[ContainerRestartRule] securityContext:SecurityContext startupProbe:Probe stdin:bool
    stdinOnce:bool targetContainerName:str terminationMessagePath:str terminationMessagePolicy:str tty:bool
    volumeDevices:[VolumeDevice] volumeMounts:[VolumeMount] workingDir:str
EphemeralVolumeSource volumeClaimTemplate:PersistentVolumeClaimTemplate
EvictionResponder name:str priority:int
ExecAction command:[str]
FCVolumeSource fsType:str lun:int readOnly:bool targetWWNs:[str] wwids:[str]
FileKeySelector key:str optional:bool path:str volumeName:str
FlexVolumeSource driver:str fsType:str options:{str} readOnly:bool secretRef:LocalObjectReference
FlockerVolumeSource datasetName:str datasetUUID:str
GCEPersistentDiskVolumeSource fsType:str partition:int pdName:str readOnly:bool
GRPCAction mode:str port:int service:str
GitRepoVolumeSource directory:str repository:str revision:str
GlusterfsVolumeSource endpoints:str path:str readOnly:bool
HTTPGetAction host:str httpHeaders:[HTTPHeader] path:str port:port protocol:str scheme:str
HTTPHeader name:str value:str
HostAlias hostnames:[str] ip:str
HostPathVolumeSource path:str type:str
ISCSIVolumeSource chapAuthDiscovery:bool chapAuthSession:bool fsType:str initiatorName:str iqn:str iscsiInterface:str
    lun:int portals:[str] readOnly:bool secretRef:LocalObjectReference targetPortal:str
ImageVolumeSource pullPolicy:str reference:str
KeyToPath key:str mode:int path:str user:int
LabelSelector matchExpressions:[LabelSelectorRequirement] matchLabels:{str}
LabelSelectorRequirement key:str operator:str values:[str]
Lifecycle postStart:LifecycleHandler preStop:LifecycleHandler stopSignal:str
LifecycleHandler exec:ExecAction httpGet:HTTPGetAction sleep:SleepAction tcpSocket:TCPSocketAction
LocalObjectReference name:str
ManagedFieldsEntry apiVersion:str fieldsType:str fieldsV1:any manager:str operation:str subresource:str time:time
NFSVolumeSource path:str readOnly:bool server:str
NodeAffinity preferredDuringSchedulingIgnoredDuringExecution:[PreferredSchedulingTerm]
    requiredDuringSchedulingIgnoredDuringExecution:NodeSelector
NodeSelector nodeSelectorTerms:[NodeSelectorTerm]
NodeSelectorRequirement key:str operator:str values:[str]
NodeSelectorTerm matchExpressions:[NodeSelectorRequirement] matchFields:[NodeSelectorRequirement]
ObjectFieldSelector apiVersion:str fieldPath:str
ObjectMeta annotations:{str} creationTimestamp:time deletionGracePeriodSeconds:int deletionTimestamp:time
    finalizers:[str] generateName:str generation:int labels:{str} managedFields:[ManagedFieldsEntry] name:str
    namespace:str ownerReferences:[OwnerReference] resourceVersion:str selfLink:str uid:str
OwnerReference apiVersion:str blockOwnerDeletion:bool controller:bool kind:str name:str uid:str
PersistentVolumeClaimSpec accessModes:[str] dataSource:TypedLocalObjectReference dataSourceRef:TypedObjectReference
    resources:VolumeResourceRequirements selector:LabelSelector storageClassName:str volumeAttributesClassName:str
    volumeMode:str volumeName:str
PersistentVolumeClaimTemplate metadata:ObjectMeta spec:PersistentVolumeClaimSpec
PersistentVolumeClaimVolumeSource claimName:str readOnly:bool
PhotonPersistentDiskVolumeSource fsType:str pdID:str
PodAffinity preferredDuringSchedulingIgnoredDuringExecution:[WeightedPodAffinityTerm]
    requiredDuringSchedulingIgnoredDuringExecution:[PodAffinityTerm]
PodAffinityTerm labelSelector:LabelSelector matchLabelKeys:[str] mismatchLabelKeys:[str]
    namespaceSelector:LabelSelector namespaces:[str] topologyKey:str
PodAntiAffinity preferredDuringSchedulingIgnoredDuringExecution:[WeightedPodAffinityTerm]
    requiredDuringSchedulingIgnoredDuringExecution:[PodAffinityTerm]
PodCertificateProjection certificateChainPath:str credentialBundlePath:str keyPath:str keyType:str
    maxExpirationSeconds:int signerName:str user:int userAnnotations:{str}
PodDNSConfig nameservers:[str] options:[PodDNSConfigOption] searches:[str]
PodDNSConfigOption name:str value:str
PodOS name:str
PodReadinessGate conditionType:str
PodResourceClaim name:str resourceClaimName:str resourceClaimTemplateName:str
PodSchedulingGate name:str
PodSchedulingGroup podGroupName:str
PodSecurityContext appArmorProfile:AppArmorProfile fsGroup:int fsGroupChangePolicy:str runAsGroup:int
    runAsNonRoot:bool runAsUser:int seLinuxChangePolicy:str seLinuxOptions:SELinuxOptions
    seccompProfile:SeccompProfile supplementalGroups:[int] supplementalGroupsPolicy:str sysctls:[Sysctl]
    windowsOptions:WindowsSecurityContextOptions
PodSpec activeDeadlineSeconds:int affinity:Affinity automountServiceAccountToken:bool containers:[Container]
    dnsConfig:PodDNSConfig dnsPolicy:str enableServiceLinks:bool ephemeralContainers:[EphemeralContainer]
    evictionResponders:[EvictionResponder] hostAliases:[HostAlias] hostIPC:bool hostNetwork:bool hostPID:bool
    hostUsers:bool hostname:str hostnameOverride:str imagePullSecrets:[LocalObjectReference]
    initContainers:[Container] nodeName:str nodeSelector:{str} os:PodOS overhead:{quantity} preemptionPolicy:str
    priority:int priorityClassName:str readinessGates:[PodReadinessGate] resourceClaims:[PodResourceClaim]
    resources:ResourceRequirements restartPolicy:str runtimeClassName:str schedulerName:str
    schedulingGates:[PodSchedulingGate] schedulingGroup:PodSchedulingGroup securityContext:PodSecurityContext
    serviceAccount:str serviceAccountName:str setHostnameAsFQDN:bool shareProcessNamespace:bool subdomain:str
    terminationGracePeriodSeconds:int tolerations:[Toleration] topologySpreadConstraints:[TopologySpreadConstraint]
    volumes:[Volume]
PortworxVolumeSource fsType:str readOnly:bool volumeID:str
PreferredSchedulingTerm preference:NodeSelectorTerm weight:int
Probe exec:ExecAction failureThreshold:int grpc:GRPCAction httpGet:HTTPGetAction initialDelaySeconds:int
    periodSeconds:int successThreshold:int tcpSocket:TCPSocketAction terminationGracePeriodSeconds:int
    timeoutSeconds:int
ProjectedVolumeSource defaultMode:int defaultUser:int sources:[VolumeProjection]
QuobyteVolumeSource group:str readOnly:bool registry:str tenant:str user:str volume:str
RBDVolumeSource fsType:str image:str keyring:str monitors:[str] pool:str readOnly:bool secretRef:LocalObjectReference
    user:str
ResourceClaim name:str request:str
ResourceFieldSelector containerName:str divisor:quantity resource:str
ResourceRequirements claims:[ResourceClaim] limits:{quantity} requests:{quantity}
SELinuxOptions level:str role:str type:str user:str
ScaleIOVolumeSource fsType:str gateway:str protectionDomain:str readOnly:bool secretRef:LocalObjectReference
    sslEnabled:bool storageMode:str storagePool:str system:str volumeName:str
SeccompProfile localhostProfile:str type:str
SecretEnvSource name:str optional:bool
SecretKeySelector key:str name:str optional:bool
SecretProjection items:[KeyToPath] name:str optional:bool
SecretVolumeSource defaultMode:int defaultUser:int items:[KeyToPath] optional:bool secretName:str
SecurityContext allowPrivilegeEscalation:bool appArmorProfile:AppArmorProfile capabilities:Capabilities
    privileged:bool procMount:str readOnlyRootFilesystem:bool runAsGroup:int runAsNonRoot:bool runAsUser:int
    seLinuxOptions:SELinuxOptions seccompProfile:SeccompProfile windowsOptions:WindowsSecurityContextOptions
ServiceAccountTokenProjection audience:str expirationSeconds:int path:str user:int
SleepAction seconds:int
StorageOSVolumeSource fsType:str readOnly:bool secretRef:LocalObjectReference volumeName:str volumeNamespace:str
Sysctl name:str value:str
TCPSocketAction host:str port:port
Toleration effect:str key:str operator:str tolerationSeconds:int value:str
TopologySpreadConstraint labelSelector:LabelSelector matchLabelKeys:[str] maxSkew:int minDomains:int
    nodeAffinityPolicy:str nodeTaintsPolicy:str topologyKey:str whenUnsatisfiable:str
TypedLocalObjectReference apiGroup:str kind:str name:str
TypedObjectReference apiGroup:str kind:str name:str namespace:str
Volume awsElasticBlockStore:AWSElasticBlockStoreVolumeSource azureDisk:AzureDiskVolumeSource
    azureFile:AzureFileVolumeSource cephfs:CephFSVolumeSource cinder:CinderVolumeSource
    configMap:ConfigMapVolumeSource csi:CSIVolumeSource downwardAPI:DownwardAPIVolumeSource
    emptyDir:EmptyDirVolumeSource ephemeral:EphemeralVolumeSource fc:FCVolumeSource flexVolume:FlexVolumeSource
    flocker:FlockerVolumeSource gcePersistentDisk:GCEPersistentDiskVolumeSource gitRepo:GitRepoVolumeSource
    glusterfs:GlusterfsVolumeSource hostPath:HostPathVolumeSource image:ImageVolumeSource iscsi:ISCSIVolumeSource
    name:str nfs:NFSVolumeSource persistentVolumeClaim:PersistentVolumeClaimVolumeSource
    photonPersistentDisk:PhotonPersistentDiskVolumeSource portworxVolume:PortworxVolumeSource
    projected:ProjectedVolumeSource quobyte:QuobyteVolumeSource rbd:RBDVolumeSource scaleIO:ScaleIOVolumeSource
    secret:SecretVolumeSource storageos:StorageOSVolumeSource vsphereVolume:VsphereVirtualDiskVolumeSource
VolumeDevice devicePath:str name:str
VolumeMount bindMountOptions:[str] mountPath:str mountPropagation:str name:str readOnly:bool recursiveReadOnly:str
    subPath:str subPathExpr:str
VolumeProjection clusterTrustBundle:ClusterTrustBundleProjection configMap:ConfigMapProjection
    downwardAPI:DownwardAPIProjection podCertificate:PodCertificateProjection secret:SecretProjection
    serviceAccountToken:ServiceAccountTokenProjection
VolumeResourceRequirements limits:{quantity} requests:{quantity}
VsphereVirtualDiskVolumeSource fsType:str storagePolicyID:str storagePolicyName:str volumePath:str
WeightedPodAffinityTerm podAffinityTerm:PodAffinityTerm weight:int
WindowsSecurityContextOptions gmsaCredentialSpec:str gmsaCredentialSpecName:str hostProcess:bool runAsUserName:str
"""

# int64, the largest integer of the API.
_MAX_INTEGER = 2**63
_MAX_DEPTH = 32  # of free JSON; only managed fields and a status hold any
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KINDS = {
    "str": "a string",
    "int": "an integer",
    "bool": "true or false",
    "time": "a time such as 2030-01-31T12:00:00Z",
    "quantity": "a quantity such as 500m or 1Gi",
    "port": "a port number or a port name",
}


class WrongField(ValueError):
    """A value does not fit the schema: `path` says where, `problem` what is wrong and what to do."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{dotted(path) or 'the document'}: {problem}")
        self.path = path
        self.problem = problem


def dotted(path: Path) -> str:
    """`spec.containers[0].image`, with keys that are no plain words in brackets: `metadata.labels['a/b']`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


@functools.cache
def types() -> dict[str, dict[str, str]]:
    """Type name -> field name -> type, for every type that a Pod can hold."""
    found: dict[str, dict[str, str]] = {}
    for line in _TABLE.strip().replace("\n ", " ").splitlines():
        name, *fields = line.split()
        found[name] = dict(field.split(":") for field in fields)
    return found


def plain_pod(document: object, *, keep_nulls: bool) -> dict[str, Any]:
    """A plain new copy of a whole or partial Pod: dicts, lists, strings, numbers and booleans that share nothing.

    `document` is a mapping or a `V1Pod`; both may stand inside each other. None in an object of the client library
    means "not set" and is left out. None in a mapping is kept (`keep_nulls`) or left out, as the API server does.

    Raises WrongField for an unknown field or a wrong type.
    """
    return _Copier(keep_nulls=keep_nulls).mapping(document, "Pod", ())


def plain_value(value: object, kind: str, *, path: Path = ()) -> Any:
    """The same for a value of another type of the table, such as `Affinity`, `[Toleration]` or `{str}`, without nulls.

    Raises WrongField whose path begins with `path`.
    """
    return _Copier(keep_nulls=False).value(value, kind, path)


class _Copier:
    """Copies one document and checks it on the way."""

    def __init__(self, *, keep_nulls: bool) -> None:
        self._keep_nulls = keep_nulls

    def value(self, value: object, kind: str, path: Path) -> Any:
        check = _SCALARS.get(kind)
        if check is not None:
            return check(value, kind, path)
        if kind[0] == "[":
            return self._list(value, kind[1:-1], path)
        if kind[0] == "{":
            return self._free_mapping(value, kind[1:-1], path)
        return self.mapping(value, kind, path)

    def mapping(self, value: object, kind: str, path: Path) -> dict[str, Any]:
        """The fields of one object of the schema."""
        fields = types()[kind]
        copy: dict[str, Any] = {}
        for key, item in _items(value, path):
            # YAML has keys that are no strings: `on:` is true, `1:` a number.
            field = fields.get(key) if isinstance(key, str) else None
            if field is None:
                raise WrongField((*path, str(key)), _misplaced(str(key), kind) or _unknown(str(key), fields))
            if item is not None:
                copy[key] = self.value(item, field, (*path, key))
            elif self._keep_nulls:
                copy[key] = None
        return copy

    def _free_mapping(self, value: object, kind: str, path: Path) -> dict[str, Any]:
        """A mapping whose keys are the author's: labels, limits."""
        check = _SCALARS[kind]
        copy: dict[str, Any] = {}
        for key, item in _items(value, path):
            plain = _key(key, path)
            if item is not None:
                copy[plain] = check(item, kind, (*path, plain))
            elif self._keep_nulls:
                copy[plain] = None
        return copy

    def _list(self, value: object, kind: str, path: Path) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise _refusal(value, "a list", path)
        return [self.value(item, kind, (*path, index)) for index, item in enumerate(value)]


def _items(value: object, path: Path) -> Iterable[tuple[Any, Any]]:
    """Keys, as the API spells them, and values of a mapping or of an object of the client library."""
    if isinstance(value, Mapping):
        return value.items()
    names = getattr(
        type(value), "attribute_map", None
    )  # what every generated model of the client has, and nothing else
    if isinstance(names, Mapping):
        found = ((spelling, getattr(value, name, None)) for name, spelling in names.items())
        return [(spelling, item) for spelling, item in found if item is not None]
    raise _refusal(value, "a mapping", path)


def _key(key: object, path: Path) -> str:
    if not isinstance(key, str):
        raise WrongField(path, f"has {_described(key)} for a key, where every key must be a string; put it in quotes")
    return _string(key, "str", path)


def _string(value: object, kind: str, path: Path) -> str:
    if not isinstance(value, str):
        raise _refusal(value, _KINDS[kind], path)
    # Exactly a str: enumerations and marked strings of template engines are subclasses that print otherwise.
    text = value if type(value) is str else str.__str__(value)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise WrongField(path, "holds half a surrogate pair, which is no character and cannot be sent") from None
    return text


def _integer(value: object, kind: str, path: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refusal(value, _KINDS[kind], path)
    if not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise WrongField(path, "is beyond 64 bits")
    return int(value)


def _boolean(value: object, kind: str, path: Path) -> bool:
    if not isinstance(value, bool):
        raise _refusal(value, _KINDS[kind], path)
    return value


def _time(value: object, kind: str, path: Path) -> str:
    if isinstance(value, datetime):
        # The API's times are RFC 3339, and an object of the client library that was made by hand may lack a zone.
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return _string(value, kind, path)


def _quantity(value: object, kind: str, path: Path) -> str | int | float:
    # NaN and infinity fall through and are refused: JSON has neither.
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return _port(value, kind, path)


def _port(value: object, kind: str, path: Path) -> str | int:
    return _string(value, kind, path) if isinstance(value, str) else _integer(value, kind, path)


def _any(value: object, kind: str, path: Path) -> Any:
    """Free JSON."""
    if len(path) > _MAX_DEPTH:
        raise WrongField(path, "is nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        return _quantity(value, "quantity", path)
    if isinstance(value, list | tuple):
        return [_any(item, kind, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, datetime):
        return _time(value, "time", path)
    return {_key(key, path): _any(item, kind, (*path, str(key))) for key, item in _items(value, path)}


_SCALARS: Mapping[str, Callable[[object, str, Path], Any]] = {
    "str": _string,
    "int": _integer,
    "bool": _boolean,
    "time": _time,
    "quantity": _quantity,
    "port": _port,
    "any": _any,
}


def _refusal(value: object, wanted: str, path: Path) -> WrongField:
    hint = ""
    if wanted == _KINDS["str"] and isinstance(value, bool | int | float | date):
        hint = "; put it in quotes"
    elif isinstance(value, str) and wanted in {_KINDS["int"], _KINDS["bool"]}:
        hint = "; write it without quotes"
    return WrongField(path, f"must be {wanted}, not {_described(value)}{hint}")


def _described(value: object) -> str:
    """What a value is, in words of the document; never a text, which may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "a string" if isinstance(value, str) else f"a value of type {type(value).__name__}"


def _misplaced(key: str, kind: str) -> str | None:
    """The problem with a field that belongs one or two levels deeper: a `V1PodSpec`, say, given as the pod."""
    if kind == "Pod" and key in types()["PodSpec"]:
        return "is a field of a pod's spec: put it under spec"
    if kind in ("Pod", "PodSpec") and key != "name" and key in types()["Container"]:
        return "is a field of a container: put it into an entry of spec.containers"
    return None


def _unknown(key: str, fields: Iterable[str]) -> str:
    """The problem with a field that does not exist, and the nearest one that does."""
    # Without underscores: people copy the names of the Python client, such as `node_selector`.
    by_spelling = {name.lower(): name for name in fields}
    near = difflib.get_close_matches(key.replace("_", "").replace("-", "").lower(), by_spelling, n=1, cutoff=0.6)
    hint = f'; did you mean "{by_spelling[near[0]]}"?' if near else ""
    return f"unknown field{hint}"
