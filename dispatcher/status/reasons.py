"""Reasons: every word that says why an attempt waits or failed, what it means, and what to do about it. Pure data.

Kubernetes' words, the API server's, and ours in the same style. One reason may have several meanings: of its entries
the first that fits exit code and message holds (`dispatcher.status.diagnosis` chooses). `docs/reasons.md` is this
table, and a test holds both together. A text may name what was found, such as `{limit}`; `WORDED` says how it reads
then.

Sources: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/, and the kubelet's and the scheduler's words.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Cause = Literal["application", "infrastructure", "unknown"]
Place = Literal["container", "pod", "worker"]
"""What failed: a container of its pod, a body that ran in a pod, or a body that ran in a process of a worker."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """One meaning of some reasons."""

    reasons: tuple[str, ...]
    """A `*` at the end stands for anything."""
    cause: Cause | None
    """Whose failure it usually is; None for what is only waited for."""
    means: str
    to_do: str
    exit_code: int | None = None
    says: re.Pattern[str] | None = None
    """What the message must hold; its named groups are what the texts may name. With `|$` it need not hold it."""
    places: tuple[Place, ...] = ("container", "pod", "worker")
    """Where it means this."""
    is_of_node: bool = False
    """The node is at fault: the next attempt is better off on another one."""


WORDED: Mapping[str, tuple[str, str]] = {
    "container": ("the container {}", "the container"),
    "who": ("{}", "the container"),
    "where": ("{}", "where it ran"),
    "limit": ("its memory limit of {}", "its memory limit"),
    "node": ("the node {}", "its node"),
    "code": ("exit code {}", "an exit code"),
    "resource": ("{}", "a resource"),
    "count": ("{} node(s)", "the nodes"),
    "standard": ("the Pod Security Standard {}", "its Pod Security Standard"),
    "object": ("the {}", "a Secret or ConfigMap"),
    "key": ("the key {}", "a key"),
    "image": ("the image {}", "the image"),
    "volume": ("the volume {}", "a volume"),
    "claim": ("the claim {}", "a claim"),
    "taint": ("the taint {{{}}}", "a taint"),
    "webhook": ("the webhook {}", "a webhook"),
    "quota": ("the quota {}", "a quota"),
    "seconds": ("{} s", "its limit"),
}
"""Name in a text -> how it reads where it was found, and where it was not."""

IMAGE_WAITS = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable", "ErrImageNeverPull")
UNSCHEDULABLE = "Unschedulable"
"""The one reason of which all meanings that fit are given: each node may have another one."""

_BODY: tuple[Place, ...] = ("pod", "worker")
SAVED_LOG = "`podyard tasks logs`"
LOG_OF_POD = "`kubectl logs`, as long as its pod is there: no logs.folder is set"
_LOG = f"its log says why: {SAVED_LOG}"
_AGAIN = (
    "it is not the task's fault: a DAG tries again by itself, up to scheduler.infra_retries times; a Celery task may "
    "ask for that by retry_on_worker_lost"
)
_WAIT = "nothing: it goes on by itself"
_MEMORY = (
    "raise resources.limits.memory of the container base (template or pod_override), let it grow by itself "
    "(memory_growth and memory_growth_max of the queue), or let the task need less"
)


def _says(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_OF_PROCESSES = (
    Known(
        reasons=("OOMKilled",),
        cause="application",
        means="{container} needed more than {limit} and was killed by the kernel",
        to_do=_MEMORY,
    ),
    # 126 and 127 are what shells end with; from 129 on it is 128 and the number of a signal.
    Known(
        reasons=("Error",),
        exit_code=126,
        cause="application",
        means="the command of {who} was found and cannot be executed: its mode, or its format",
        to_do="make the file executable (chmod +x) and see that it is built for the processor that it runs on",
    ),
    Known(
        reasons=("Error",),
        exit_code=127,
        cause="application",
        places=("container",),
        means="the command of {container} was not found in its image",
        to_do="correct the command, or use an image that has it; a task pod needs `python` with Podyard in it",
    ),
    Known(
        reasons=("Error",),
        exit_code=127,
        cause="application",
        places=_BODY,
        means="a command of the task was not found {where}",
        to_do="correct its name or PATH, or install it there",
    ),
    Known(
        reasons=("Error",),
        exit_code=134,
        cause="application",
        means="{who} aborted itself (signal 6): a failed check in native code",
        to_do=_LOG,
    ),
    Known(
        reasons=("Error",),
        exit_code=137,
        cause="application",
        places=("container", "pod"),
        means="{who} was killed by signal 9; nobody says why. Memory is a guess: not every runtime says OOMKilled",
        to_do="compare its use of memory with {limit}; if it is well below, look for who killed it",
    ),
    Known(
        reasons=("Error",),
        exit_code=137,
        cause="application",
        places=("worker",),
        means="{who} was killed by signal 9; nobody says why. Memory is a guess: the kernel kills where it runs out",
        to_do="compare its use of memory with what its machine has; if it is well below, look for who killed it",
    ),
    Known(
        reasons=("Error",),
        exit_code=139,
        cause="application",
        means="{who} read or wrote memory that is not its own (signal 11): a fault in native code",
        to_do="find the library at fault (python -X faulthandler) and change its version",
    ),
    Known(
        reasons=("Error",),
        exit_code=143,
        cause="application",
        places=("container",),
        means="{container} was asked to end (signal 15) and did, though its pod was not deleted",
        to_do="look for who sent the signal: the task itself, a probe, or somebody on the node",
    ),
    Known(
        reasons=("Error",),
        exit_code=143,
        cause="application",
        places=_BODY,
        means="{who} was asked to end (signal 15) and did",
        to_do="look for who sent the signal: the task itself, or somebody on its machine",
    ),
    Known(
        reasons=("Error",),
        cause="application",
        means="{who} ended with {code}: its own program says no",
        to_do=_LOG,
    ),
    Known(
        reasons=("StartError",),
        cause="application",
        places=_BODY,
        means="the shell of the task could not be started {where}",
        to_do="see that bash or sh is installed there, and that its `cwd` exists",
    ),
    # ContainerCannotRun is Docker's word, StartError containerd's and CRI-O's, the two others are the kubelet's own.
    Known(
        reasons=("ContainerCannotRun", "StartError", "CreateContainerError", "RunContainerError"),
        cause="application",
        says=_says(r"exec format error|no match for platform"),
        means="the image of {container} is built for another processor than {node} has",
        to_do="build the image for this processor, or choose nodes of its own by nodeSelector kubernetes.io/arch",
    ),
    Known(
        reasons=("ContainerCannotRun", "StartError", "CreateContainerError", "RunContainerError"),
        cause="application",
        says=_says(r"executable file not found|no such file or directory|permission denied"),
        means="the command of {container} is not in its image, or cannot be executed",
        to_do="correct the command, or use an image that has it",
    ),
    Known(
        reasons=("ContainerCannotRun", "StartError", "CreateContainerError", "RunContainerError"),
        cause="application",
        means="the runtime could not start {container}",
        to_do="the message is the runtime's: correct command, mounts or security context accordingly",
    ),
    Known(
        reasons=("DeadlineExceeded", "TimeLimitExceeded", "SoftTimeLimitExceeded", "ExecutionTimeout"),
        cause="application",
        means="it took longer than it may",
        to_do="raise execution_timeout, the time limit or activeDeadlineSeconds, or make the task shorter",
    ),
)

_OF_NODES = (
    # Before pressure of the node: the kubelet calls both Evicted, and only the message tells whose limit it was (P5).
    Known(
        reasons=("Evicted",),
        cause="application",
        says=_says(r"exceeds the (?:total )?limit|exceeded its local ephemeral[ -]storage limit"),
        means="the pod wrote more than its own limit of local storage (ephemeral-storage, or sizeLimit of an emptyDir)",
        to_do="raise resources.limits.ephemeral-storage or sizeLimit, or write to a volume",
    ),
    Known(
        reasons=("Evicted",),
        cause="infrastructure",
        says=_says(r"low on resource: (?P<resource>[\w./-]*\w)"),
        means="{node} ran low on {resource}, and the kubelet threw the pod out",
        to_do=f"{_AGAIN}; if it repeats, raise resources.requests to what the task really needs",
        is_of_node=True,
    ),
    Known(
        reasons=("Evicted", "EvictionByEvictionAPI"),
        cause="infrastructure",
        means="the pod was thrown off {node}: pressure, or a node that is drained",
        to_do=_AGAIN,
        is_of_node=True,
    ),
    Known(
        reasons=("Preempting", "PreemptionByScheduler"),
        cause="infrastructure",
        means="the pod had to make room for one of higher priority",
        to_do=f"{_AGAIN}; if it repeats, give it a priorityClassName",
    ),
    Known(
        reasons=("DisruptionTarget",),
        cause="infrastructure",
        means="the cluster announced that it would disturb the pod, and did",
        to_do=_AGAIN,
    ),
    # ContainerStatusUnknown is of a kubelet that came back and did not find the container any more.
    Known(
        reasons=("NodeLost", "DeletionByTaintManager", "DeletionByPodGC", "ContainerStatusUnknown"),
        cause="infrastructure",
        means="{node} answers no longer, or is gone; what the pod did there at the end is not known",
        to_do=f"{_AGAIN}; a task whose effects may not happen twice should look for what it has done",
        is_of_node=True,
    ),
    # The kubelet's word for a graceful shutdown of its node has changed: Shutdown, NodeShutdown, Terminated.
    Known(
        reasons=("NodeShutdown", "Shutdown", "Terminated", "TerminationByKubelet"),
        cause="infrastructure",
        means="{node} was shut down",
        to_do=_AGAIN,
        is_of_node=True,
    ),
    Known(
        reasons=("ProviderFailed",),
        cause="infrastructure",
        means="the provider behind {node}, a virtual kubelet, gave the pod up",
        to_do=f"{_AGAIN}; the message is the provider's",
        is_of_node=True,
    ),
    # What the kubelet itself refuses: OutOfcpu, OutOfmemory, OutOfpods … are its own count against the scheduler's.
    Known(
        reasons=("UnexpectedAdmissionError", "NodeAffinity", "OutOf*"),
        cause="infrastructure",
        means="{node} refused the pod that the scheduler had given it: it had changed meanwhile",
        to_do=_AGAIN,
        is_of_node=True,
    ),
    Known(
        reasons=("PodDeleted",),
        cause="infrastructure",
        means="somebody or something deleted the pod before its task had ended",
        to_do=f"{_AGAIN}; the API server's audit log knows who deletes pods of this namespace",
    ),
    Known(
        reasons=("PodLost",),
        cause="infrastructure",
        means="its pod was asked for, is not there, and left no outcome; nobody can say whether the body ran, so it is "
        "not run again under the same id",
        to_do=_AGAIN,
    ),
    Known(
        reasons=("ResultExpired",),
        cause="infrastructure",
        means="it ran, or may have run, and the result backend does not know its result any more, so the task is tried "
        "again as a new attempt",
        to_do="let results.expires_s be longer than a scheduler is ever away, and use a result backend that keeps what "
        "it is given (maxmemory-policy noeviction, persistence, one database for all schedulers and workers)",
    ),
    Known(
        reasons=("Lost",),
        cause="infrastructure",
        means="the worker or dispatcher that had it is gone, and nobody will report its end",
        to_do=_AGAIN,
    ),
)

_NETWORK = (
    # the kernel's errors, in Go's words for them
    r"network is (?:unreachable|down)|no route to host|host is (?:unreachable|down)|machine is not on the network|"
    r"connection (?:refused|reset|aborted|timed out|closed|error)|connection lost|closed (?:network )?connection|"
    r"caused connection abort|network dropped connection|transport endpoint|broken pipe|link has been severed|"
    r"no buffer space|cannot assign requested address|address already in use|address family not supported|"
    r"resource temporarily unavailable|protocol error|communication error|remote i/o error|"
    # Go's own: net, net/http, http2 and the resolver
    r"i/o timeout|operation timed out|handshake timeout|deadline exceeded|Client\.Timeout|timeout awaiting|timed out|"
    r"no such host|server misbehaving|name resolution|name or service not known|\bEOF\b|GOAWAY|stream error|"
    r"request cancell?ed|operation was cancell?ed|context cancell?ed|transport is closing|"
    r"proxyconnect|socks connect|Proxy Authentication Required|dial (?:tcp|udp|unix)\b|code = Unavailable|"
    # a transfer that was cut short
    r"short read|unexpected commit digest|failed size validation|digest mismatch|unexpected content-length|"
    # a server that is not well
    r"Bad Gateway|Service Unavailable|Gateway Time-?out|Internal Server Error|Request Timeout|"
    r"status(?: code)?:? (?:\[[^]]*\]:? ?)?5\d\d\b|status from [^:]*(?:: )?\S*:? 5\d\d\b"
)
"""What a pull says that did not come through, whose failure is nobody's who wrote the task: the kernel's, Go's and the
runtimes' words (https://pkg.go.dev/syscall, https://pkg.go.dev/net, containerd's and CRI-O's resolvers)."""

_OF_IMAGES = (
    # First what the node itself lacks: another node may do better, which holds for none of the others.
    Known(
        reasons=IMAGE_WAITS,
        cause="infrastructure",
        says=_says(
            r"no space left on device|input/output error|read-only file system|disk quota exceeded|too many open files|"
            r"cannot allocate memory"
        ),
        means="{node} could not store {image}: its disk or its memory is full, or ill",
        to_do=f"{_AGAIN}; see the node's disk, and what the kubelet clears away (image garbage collection)",
        is_of_node=True,
    ),
    Known(
        reasons=IMAGE_WAITS,
        cause="infrastructure",
        says=_says(r"too ?many ?requests|rate[ -]?limit|rate exceeded|quota exceeded|pull QPS exceeded"),
        means="the registry limits how often images are pulled, and the limit is reached",
        to_do="wait, pull with credentials (imagePullSecrets), or use a mirror or imagePullPolicy IfNotPresent",
    ),
    Known(
        reasons=IMAGE_WAITS,
        cause="infrastructure",
        says=_says(r"x509:|\btls: |certificate|server gave HTTP response to HTTPS client"),
        means="{node} does not trust the registry of {image}, or cannot agree with it on TLS",
        to_do="give the nodes' runtime the registry's certificate authority, or renew the registry's certificate",
    ),
    Known(
        reasons=IMAGE_WAITS,
        cause="infrastructure",
        says=_says(_NETWORK),
        means="the registry of {image} cannot be reached from {node}",
        to_do="see that the registry answers, and that nodes may reach it; it is tried again meanwhile",
    ),
    Known(
        reasons=IMAGE_WAITS,
        cause="application",
        says=_says(r"no match for platform|exec format"),
        means="{image} is not built for the processor of {node}",
        to_do="build the image for this processor, or choose nodes of its own by nodeSelector kubernetes.io/arch",
    ),
    # Before "does not exist": Docker says of a private image
    # that its repository does not exist or may require a login.
    Known(
        reasons=IMAGE_WAITS,
        cause="application",
        says=_says(
            r"unauthorized|authentication required|access denied|authorization failed|forbidden|no basic auth|"
            r"\bdenied:|is denied|insufficient_scope"
        ),
        means="the registry does not give {image} to this pod: it is private, or does not exist",
        to_do="correct the name, or name a Secret with credentials in imagePullSecrets of the pod",
    ),
    Known(
        reasons=IMAGE_WAITS,
        cause="application",
        says=_says(r"not ?found|manifest unknown|does not exist|unknown blob"),
        means="the registry has no such image or tag: {image}",
        to_do="correct name and tag (template, queue rule or pod_override), or push the image",
    ),
    Known(
        reasons=("ErrImageNeverPull",),
        cause="application",
        means="imagePullPolicy is Never, and {node} does not have {image}",
        to_do="load the image onto the nodes, or let it be pulled (imagePullPolicy IfNotPresent)",
    ),
    Known(
        reasons=IMAGE_WAITS,
        cause="application",
        means="{image} cannot be pulled",
        to_do="check its name, its tag, and whether the cluster may pull it (imagePullSecrets)",
    ),
    Known(
        reasons=("InvalidImageName",),
        cause="application",
        means="the name of {image} cannot be one",
        to_do="write it as registry/name:tag, in small letters and without spaces",
    ),
)

_OF_CONFIG = (
    # The kubelet has one reason for whatever it needs before a container: its message tells them apart.
    Known(
        reasons=("CreateContainerConfigError",),
        cause="application",
        says=_says(r"couldn't find key (?P<key>[\w.-]*\w) in (?P<object>(?:Secret|ConfigMap) [\w./-]*\w)"),
        means="{key} is not in {object}, which {container} takes it from",
        to_do="add the key, correct its name in env, or mark it as optional",
    ),
    Known(
        reasons=("CreateContainerConfigError",),
        cause="application",
        says=_says(r"(?P<object>(?:secret|configmap) \"[^\"]+\") not found"),
        means="{object}, which {container} takes its environment from, is not in the pod's namespace",
        to_do="create it in that namespace, or correct its name",
    ),
    Known(
        reasons=("CreateContainerConfigError",),
        cause="application",
        says=_says(r"runAsNonRoot|will run as root|non-numeric user"),
        means="the pod may not run as root, and the image of {container} does",
        to_do="set runAsUser in the container's securityContext, or USER with a number in the image",
    ),
    Known(
        reasons=("CreateContainerConfigError",),
        cause="application",
        means="something that {container} needs to be made is not there",
        to_do="check that the Secrets and ConfigMaps that the pod names exist in its namespace",
    ),
)

_OF_SCHEDULING = (
    # The words of the scheduler's plugins, one for each node that was looked at; a message may have several of them.
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(r"(?:(?P<count>\d+) )?Insufficient (?P<resource>[\w./-]*\w)"),
        means="too little {resource} is free on {count}",
        to_do="lower resources.requests, wait for other pods to end, or add nodes",
    ),
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(r"(?:(?P<count>\d+) )?node\(s\) had (?:untolerated )?taints?(?: \{(?P<taint>[^}]*)\})?"),
        means="{taint}, which the pod does not tolerate, is on {count}",
        to_do="add a toleration (template or pod_override), or choose nodes without the taint",
    ),
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(
            r"(?:(?P<count>\d+) )?node\(s\) didn't (?:match|satisfy) (?:Pod's )?(?:node )?(?:affinity|node selector)"
        ),
        means="the labels that nodeSelector or affinity asks for are missing on {count}",
        to_do="correct nodeSelector or affinity, or label the nodes",
    ),
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(
            r"unbound immediate PersistentVolumeClaims?|(?:(?P<count>\d+) )?node\(s\) didn't find available persistent"
        ),
        means="a PersistentVolumeClaim of the pod is not bound to a volume",
        to_do="see why the claim is not bound (`kubectl describe pvc`): its storage class, its size, its provisioner",
    ),
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(r"persistentvolumeclaim (?P<claim>\"[^\"]+\") (?:not found|is being deleted)"),
        means="{claim} of the pod does not exist in its namespace",
        to_do="create the PersistentVolumeClaim, or correct its name",
    ),
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(r"(?:(?P<count>\d+) )?node\(s\) had (?:no available )?volume (?:node affinity conflict|zone)"),
        means="the pod's volume is in another zone than {count}",
        to_do="add nodes in the volume's zone, or use a volume that is in theirs",
    ),
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(r"(?:(?P<count>\d+) )?node\(s\) were unschedulable"),
        means="maintenance keeps new pods off {count} (cordoned)",
        to_do="wait for the maintenance to end (`kubectl uncordon`), or add nodes",
    ),
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(r"(?:(?P<count>\d+) )?Too many pods"),
        means="there is no room for another pod on {count}",
        to_do="wait for other pods to end, add nodes, or lower max_pods of the queue",
    ),
    Known(
        reasons=(UNSCHEDULABLE,),
        cause="infrastructure",
        says=_says(
            r"(?:(?P<count>\d+) )?node\(s\) didn't (?:match|satisfy) (?:existing )?pods?(?:'s)? "
            r"(?:anti-affinity|affinity|topology)"
        ),
        means="affinity to other pods, or the spread of pods, rules out {count}",
        to_do="relax podAntiAffinity or topologySpreadConstraints, or add nodes",
    ),
    Known(
        reasons=(UNSCHEDULABLE, "NotScheduled", "SchedulerError"),
        cause="infrastructure",
        means="the scheduler found no node for it",
        to_do="lower its requests, correct its node selector or tolerations, or add a node",
    ),
    Known(
        reasons=("SchedulingGated",),
        cause=None,
        means="a scheduling gate holds the pod back, such as that of a queue in the cluster",
        to_do="see who set spec.schedulingGates, and what it waits for",
    ),
)

_OF_VOLUMES = (
    # An author's Secret or ConfigMap that is missing, before the driver's and the node's own failures.
    Known(
        reasons=("FailedMount",),
        cause="application",
        says=_says(r"for volume (?P<volume>\"[^\"]+\").*?(?P<object>(?:secret|configmap) \"[^\"]+\") not found"),
        means="{volume} cannot be mounted: {object} is not in the pod's namespace",
        to_do="create it in that namespace, correct its name, or mark it as optional",
    ),
    Known(
        reasons=("FailedMount", "FailedMapVolume"),
        cause="infrastructure",
        says=_says(r"(?:\bvolume (?=\")|volumes=\[)(?P<volume>\"?[\w.-]*\w\"?)|$"),
        means="{volume} cannot be mounted on {node}",
        to_do="the message is the driver's: check the volume, its credentials and its driver on this node",
        is_of_node=True,
    ),
    Known(
        reasons=("FailedAttachVolume",),
        cause="infrastructure",
        says=_says(r"Multi-Attach"),
        means="{volume} is still attached to another node",
        to_do="wait until the pod that has it is gone, or use a volume that several nodes may mount (ReadWriteMany)",
        is_of_node=True,
    ),
    Known(
        reasons=("FailedAttachVolume",),
        cause="infrastructure",
        means="{volume} cannot be attached to {node}",
        to_do="check the volume and its driver (`kubectl get volumeattachment`)",
        is_of_node=True,
    ),
    Known(
        reasons=("FailedCreatePodSandBox",),
        cause="infrastructure",
        means="{node} cannot make a sandbox for the pod: its network or its runtime is ill",
        to_do=f"{_AGAIN}; see the node's kubelet and network plugin",
        is_of_node=True,
    ),
)

_OF_LAUNCHES = (
    # The pattern may match nothing (`|$`): the entry holds, and the text says "a quota".
    Known(
        reasons=("QuotaExceeded",),
        cause=None,
        says=_says(r"exceeded quota: (?P<quota>[\w.-]*\w)|$"),
        means="{quota} of the namespace has no room for what the pod asks for; pods that ask for other things go on",
        to_do="wait for pods to end, raise the ResourceQuota, or lower max_pods and requests",
    ),
    Known(
        reasons=("LargerThanQuota",),
        cause="application",
        says=_says(r"exceeded quota: (?P<quota>[\w.-]*\w)|$"),
        means="the pod asks for more than all that {quota} of the namespace allows, so it can never be created",
        to_do="lower its requests or limits, raise the ResourceQuota, or send the task to a queue of another namespace",
    ),
    Known(
        reasons=("QuotaUnknown",),
        cause=None,
        means="the namespace's quota is not counted yet",
        to_do=_WAIT,
    ),
    # 403 is the answer to a missing permission, too: only the text tells an admission that refuses this one pod.
    Known(
        reasons=("Forbidden",),
        cause="application",
        says=_says(r"violates PodSecurity \"?(?P<standard>[\w:.-]*\w)"),
        means="the namespace admits no such pod: it breaks {standard}",
        to_do="the message lists the fields: correct them in the template, or use another namespace",
    ),
    Known(
        reasons=("Forbidden",),
        cause="application",
        says=_says(r"failed quota: (?P<quota>[\w.-]*\w): must specify (?P<resource>[\w./-]*\w)"),
        means="{quota} of the namespace counts {resource}, and a container of the pod does not say how much it needs",
        to_do="set it in resources of every container that the message names (template, queue or pod_override), or let "
        "a LimitRange of the namespace give a default",
    ),
    Known(
        reasons=("NamespaceTerminating",),
        cause="application",
        means="the namespace is being deleted and takes no new pods",
        to_do="use another namespace, or create it again once it is gone",
    ),
    Known(
        reasons=("NamespaceNotFound",),
        cause="application",
        means="the namespace of the pod does not exist",
        to_do="create it, or correct `namespace` in the queue's rule",
    ),
    Known(
        reasons=("ServiceAccountPending",),
        cause=None,
        means="the namespace is new, and its service account is not there yet",
        to_do=_WAIT,
    ),
    Known(
        reasons=("WebhookDenied",),
        cause="application",
        says=_says(r"admission webhook (?P<webhook>\"[^\"]+\") denied|$"),
        means="{webhook} of the cluster does not let the pod in",
        to_do="its message says why: correct template or override, or ask who runs the webhook",
    ),
    Known(
        reasons=("WebhookUnavailable",),
        cause=None,
        says=_says(r"failed calling webhook (?P<webhook>\"[^\"]+\")|$"),
        means="{webhook} of the cluster, which must let the pod in, does not answer",
        to_do="see that the webhook's pods run; launches go on by themselves",
    ),
    Known(
        reasons=("InvalidPod",),
        cause="application",
        says=_says(r"is not allowed: the policy's"),
        means="this installation's policy does not allow such a pod",
        to_do="correct template or override, or let who runs the installation change [policy]",
    ),
    Known(
        reasons=("InvalidPod", "InvalidTemplate", "InvalidOverride", "DispatcherError"),
        cause="application",
        means="no pod can be made of template, queue and override; the message names the path",
        to_do="correct what the message names; `podyard dags render` shows the result without running it",
    ),
    Known(
        reasons=("RequestTooLarge", "RequestEntityTooLarge"),
        cause="application",
        means="the pod's manifest is larger than the API server takes",
        to_do="pass large arguments by reference, and shorten annotations and environment",
    ),
    Known(
        reasons=("Invalid", "BadRequest", "Forbidden", "NotFound", "UnsupportedMediaType", "Refused"),
        cause="application",
        means="the API server does not take the pod; the message is its own",
        to_do="correct what the message names; `podyard dags render --validate` asks without creating",
    ),
    Known(
        reasons=("NameTaken",),
        cause="infrastructure",
        means="a pod that is not ours has the name that this attempt would have",
        to_do="delete that pod, or give this installation a deployment id of its own",
    ),
    Known(
        reasons=("QueueLimit",),
        cause=None,
        means="as many pods of its queue are in flight as its max_pods allows, over all dispatchers",
        to_do="wait for other pods to end, or raise max_pods of the queue",
    ),
    Known(
        reasons=("NamespaceLimit",),
        cause=None,
        means="as many pods are in flight in its namespace as kubernetes.max_pods_by_namespace allows",
        to_do="wait for other pods to end, or raise kubernetes.max_pods_by_namespace",
    ),
    Known(
        reasons=("OverallLimit",),
        cause=None,
        means="as many pods are in flight as kubernetes.max_pods allows, over all queues and dispatchers",
        to_do="wait for other pods to end, or raise kubernetes.max_pods",
    ),
    Known(
        reasons=("DispatcherLimit",),
        cause=None,
        means="its dispatcher has as many pods as it may have over all queues",
        to_do="wait for other pods to end, start another dispatcher, or raise --max-pods (--concurrency, -c)",
    ),
    Known(
        reasons=("LimitsUnknown",),
        cause=None,
        means="the dispatchers have not shared out the slots of the limits yet, or cannot: the message says why",
        to_do="nothing for a few seconds; if it lasts, see that the API server answers",
    ),
    Known(
        reasons=("CreateRate", "CreatesUnderWay"),
        cause=None,
        means="the dispatcher sends no more creates at once, so that the API server is not flooded",
        to_do=f"{_WAIT}; kubernetes.create_rate may be raised",
    ),
    Known(
        reasons=("ApiServerUnavailable",),
        cause=None,
        means="the API server gives no answer; launches go on when it is back",
        to_do="check the cluster and kubernetes.kubeconfig: `podyard config check`",
    ),
    Known(
        reasons=("ApiServerError", "TooManyRequests", "RequestTimeout", "Conflict"),
        cause=None,
        means="the API server cannot take the pod right now; it is asked again, later each time",
        to_do=f"{_WAIT}; if it lasts, look at the API server and its webhooks",
    ),
    # Of the infrastructure: it is the dispatcher's role that lacks a verb, whatever the author asked for.
    Known(
        reasons=("NotPermitted",),
        cause="infrastructure",
        means="the API server does not let the dispatcher create pods there, as one that has just begun may do",
        to_do="give it the role of compose/kubernetes/dispatcher-role.yaml; `podyard config check` tells what it lacks",
    ),
    Known(
        reasons=("Unauthorized",),
        cause=None,
        means="the API server does not know the dispatcher's token; it is read again and tried again",
        to_do="check the credentials in the kubeconfig or the service account",
    ),
    Known(
        reasons=("NoConsumer",),
        cause="application",
        means="nobody consumed its queue for as long as the queue's rule allows (waits.consumer)",
        to_do="start a consumer: `podyard queues list` says which command; then run it again",
    ),
    Known(
        reasons=("NotTaken", "WaitedTooLong"),
        cause="application",
        means="its message was in its queue for as long as the queue's rule allows (waits.queued): others came first",
        to_do="start more workers for the queue, or raise their concurrency; then run it again",
    ),
    # A message that is delivered again meets the pod of its first delivery, for the name follows from the id (K16).
    Known(
        reasons=("PodLeaving",),
        cause=None,
        means="the pod of an earlier delivery has its name and is about to go",
        to_do=_WAIT,
    ),
    Known(
        reasons=("LaunchFault",),
        cause=None,
        means="its launch failed for a reason that the dispatcher does not know; it alone is tried again",
        to_do="look into the dispatcher's log, and report what stands there",
    ),
    Known(
        reasons=("LaunchInDoubt",),
        cause=None,
        means="another dispatcher asked for its pod, which is not there yet, and may be at it still",
        to_do="nothing: it is settled within seconds",
    ),
    Known(
        reasons=("ResultBackendUnavailable",),
        cause=None,
        means="the result backend is away, so nobody knows whether this attempt has run before; it waits to be safe",
        to_do="check results.url: `podyard config check`",
    ),
    Known(
        reasons=("ContainerCreating", "PodInitializing"),
        cause=None,
        means="{node} prepares the pod: its volumes, its network, its images, its init containers",
        to_do="wait; if it lasts, `kubectl describe pod` shows the events",
        is_of_node=True,
    ),
    Known(
        reasons=("NotStarted",),
        cause="infrastructure",
        means="the pod has a node, and its container did not start",
        to_do="its events say why: they are at the end of its log, or in `kubectl describe pod`",
        is_of_node=True,
    ),
)

_OF_OUTCOMES = (
    Known(
        reasons=("NoOutcome", "OutcomeUnreadable"),
        cause="application",
        means="the pod ended and left no outcome that can be read",
        to_do="see that its image holds this version of Podyard, and that nothing else writes to /dev/termination-log",
    ),
    Known(
        reasons=("ResultUnusable", "InvalidResult"),
        cause="application",
        means="the task worked, and its result cannot travel: it has no JSON form, or is none",
        to_do="return plain JSON values, or store the value and return a reference",
    ),
    Known(
        reasons=("ResultTooLarge",),
        cause="application",
        means="the task worked, and its result is larger than results.max_bytes",
        to_do="store the value and return a reference, or raise results.max_bytes",
    ),
    # The body has worked, but nobody can show what it returned: a retry is no fault of the author's.
    Known(
        reasons=("ResultLost",),
        cause="infrastructure",
        means="the task worked, and its result could not be fetched from its pod",
        to_do="see docs/pods.md, «Its result»: other containers must end by themselves, logs must not be rotated away",
    ),
    Known(
        reasons=("UnreadableResult",),
        cause="unknown",
        means="what stands in the result backend cannot be read",
        to_do="see that only this installation writes there, and that all parts have the same version",
    ),
    Known(
        reasons=("UnreadableMessage",),
        cause="application",
        means="the task's message cannot be read",
        to_do="sender and dispatcher must agree on task_serializer and accept_content: json or msgpack",
    ),
    Known(
        reasons=("Skipped",),
        cause="application",
        means="its exit code says that there was nothing to do",
        to_do="nothing",
    ),
    Known(
        reasons=("Revoked",),
        cause=None,
        means="it was stopped on request",
        to_do="nothing",
    ),
    Known(
        reasons=("NotRegistered",),
        cause="application",
        means="the application has no task of this name {where}",
        to_do="import the task's module there (include, -I, autodiscover_tasks), or update the image or the worker",
    ),
    # Celery's WorkerLostError with a signal: who sent it does not reach the worker.
    Known(
        reasons=("ProcessKilled",),
        cause="unknown",
        means="the worker's process that ran it was killed; memory is the usual suspect",
        to_do='let it need less memory, or give it a pod of its own with a limit (queue="kubernetes")',
    ),
    Known(
        reasons=("ProcessExited",),
        cause="application",
        means="the task ended its own process with {code}",
        to_do="raise an exception instead of calling os._exit or sys.exit",
    ),
    Known(
        reasons=("DagFileMissing", "TaskMissing", "DagImportError"),
        cause="application",
        means="where it ran, the DAG file is missing, broken, or another one than the scheduler loaded",
        to_do="see that workers and pods have the same DAG files and packages as the scheduler",
    ),
    Known(
        reasons=("TemplateError",),
        cause="application",
        places=("worker",),
        means="a template in the task's arguments cannot be rendered",
        to_do="correct the template; the message names its place in the task's arguments",
    ),
    Known(
        reasons=("TemplateError",),
        cause="application",
        places=("container", "pod"),
        means="a template in the task's arguments cannot be rendered",
        to_do="correct the template; `podyard dags render` shows the result without running it",
    ),
    Known(
        reasons=("RendererMissing",),
        cause="infrastructure",
        means="the scheduler's process that renders templates could not be started",
        to_do=f"{_AGAIN}; see memory and process limits of the scheduler",
    ),
    Known(
        reasons=("WrongSide",),
        cause="application",
        means="a Celery worker got a pod of any image, and only a dispatcher can make one",
        to_do='send it to a queue with side = "kubernetes"',
    ),
    Known(
        reasons=("NoCredentials",),
        cause="application",
        means="the body sends tasks or asks for results, and its pod has no credentials for that",
        to_do='set credentials = "inherit" for its queue',
    ),
    Known(
        reasons=("AppMissing",),
        cause="application",
        means="the pod's image does not have the Celery application that the dispatcher names",
        to_do="build the image with the application in it, or set PYTHONPATH to where it stands; check `app` and --app",
    ),
)

TABLE: tuple[Known, ...] = (
    *_OF_PROCESSES,
    *_OF_NODES,
    *_OF_IMAGES,
    *_OF_CONFIG,
    *_OF_SCHEDULING,
    *_OF_VOLUMES,
    *_OF_LAUNCHES,
    *_OF_OUTCOMES,
)
"""All of them; of the entries of one reason the most special stand first."""
