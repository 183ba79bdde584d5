"""The policy: what no pod of this installation may be, whoever asked for it.

Pure. It looks at the final manifest, so template, hook, override and the arguments of a pod task are all bound by it.
The default is the Pod Security Standard "baseline", no service account but `default`, and no namespace but those of the
queues. It is a fence against mistakes and for installations whose authors are trusted less than its operators; what a
namespace must never run belongs into the cluster's own admission too.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline.
"""

import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any

from dispatcher import constraints, errors
from dispatcher.constraints import about

BASELINE_CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_WILD = frozenset("*?[")
_SELINUX_TYPES = frozenset({"", "container_engine_t", "container_init_t", "container_kvm_t", "container_t"})


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What no pod of this installation may be, whoever asks for it; see docs/pods.md.

    The section `policy` of the settings is this class: a new rule is a new field.
    """

    namespaces: Annotated[
        constraints.Texts,
        about("Where tasks may put their pods, beside the namespaces of the queues. `*` and `?` fit."),
    ] = ()
    service_accounts: Annotated[
        constraints.Texts, about("The service accounts that pods may have. `*` and `?` fit.")
    ] = ("default",)
    images: Annotated[constraints.Texts, about("The images that containers may run. `*` and `?` fit.")] = ("*",)
    host_paths: Annotated[
        constraints.Texts, about("Folders of the node that pods may mount, with all that is below them.")
    ] = ()
    host_network: Annotated[constraints.Flag, about("Whether pods may use the node's network.")] = False
    host_pid: Annotated[constraints.Flag, about("Whether pods may see the node's processes.")] = False
    host_ipc: Annotated[constraints.Flag, about("Whether pods may share the node's memory segments.")] = False
    host_ports: Annotated[constraints.Flag, about("Whether containers may take ports of the node.")] = False
    privileged: Annotated[constraints.Flag, about("Whether containers may be privileged.")] = False
    capabilities: Annotated[constraints.Texts, about("The capabilities that containers may add.")] = (
        BASELINE_CAPABILITIES
    )
    """Dropping is always allowed."""
    unconfined: Annotated[
        constraints.Flag, about("Whether containers may do without seccomp, AppArmor or a masked /proc.")
    ] = False
    """SELinux types and sysctls beyond the safe ones, too."""

    @property
    def plain_namespaces(self) -> tuple[str, ...]:
        """The namespaces that are listed by name, not by a pattern."""
        return tuple(name for name in self.namespaces if not _WILD & set(name))

    @property
    def has_namespace_patterns(self) -> bool:
        """Whether pods may be in namespaces that nobody has named."""
        return any(_WILD & set(name) for name in self.namespaces)


Problem = tuple[str, str, str]
"""Path, what stands there, and the rule that forbids it."""


def check(pod: Mapping[str, Any], policy: Policy, *, namespaces: Collection[str]) -> None:
    """Raises InvalidPod, with path and rule, for a pod that may not be launched.

    `namespaces` are those that are allowed without being listed: the queue's own.
    """
    for path, what, rule in _problems(pod, policy, namespaces):
        raise errors.InvalidPod(
            f"pod: {path}: {what} is not allowed: the policy's {rule}; "
            f"who runs this installation can allow it by policy.{rule.partition(' ')[0]} in the settings"
        )


def _problems(pod: Mapping[str, Any], policy: Policy, namespaces: Collection[str]) -> Iterator[Problem]:
    spec = pod.get("spec") or {}
    namespace = (pod.get("metadata") or {}).get("namespace") or "default"
    if namespace not in namespaces and not _matches(namespace, policy.namespaces):
        yield "metadata.namespace", repr(namespace), _listed("namespaces", (*sorted(namespaces), *policy.namespaces))
    # `serviceAccount` is the old name of the field: where it stands alone the API server still takes it.
    accounts = [field for field in ("serviceAccountName", "serviceAccount") if spec.get(field)]
    for field in accounts or ["serviceAccountName"]:
        account = spec.get(field) or "default"
        if not _matches(account, policy.service_accounts):
            yield f"spec.{field}", repr(account), _listed("service_accounts", policy.service_accounts)
    for field, is_allowed, rule in (
        ("hostNetwork", policy.host_network, "host_network"),
        ("hostPID", policy.host_pid, "host_pid"),
        ("hostIPC", policy.host_ipc, "host_ipc"),
    ):
        if spec.get(field) and not is_allowed:
            yield f"spec.{field}", "true", f"{rule} is false"
    yield from _volumes(spec, policy)
    yield from _security(spec.get("securityContext") or {}, "spec.securityContext", policy)
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or ()):
            yield from _container(container, f"spec.{group}[{index}]", policy)


def _volumes(spec: Mapping[str, Any], policy: Policy) -> Iterator[Problem]:
    for index, volume in enumerate(spec.get("volumes") or ()):
        if "hostPath" not in volume:
            continue
        path = str((volume["hostPath"] or {}).get("path", ""))
        if not any(_is_below(path, folder) for folder in policy.host_paths):
            yield f"spec.volumes[{index}].hostPath.path", repr(path), _listed("host_paths", policy.host_paths)


def _is_below(path: str, folder: str) -> bool:
    # Part by part: `/data-private` is not below `/data`.
    parts = posixpath.normpath(path).split("/")
    wanted = posixpath.normpath(folder).split("/")
    # The API server refuses `..`, too: normalised it would hide where a link on the node leads.
    return path.startswith("/") and ".." not in path.split("/") and parts[: len(wanted)] == wanted


def _container(container: Mapping[str, Any], path: str, policy: Policy) -> Iterator[Problem]:
    image = container.get("image") or ""
    if not _matches(image, policy.images):
        yield f"{path}.image", repr(image), _listed("images", policy.images)
    if not policy.host_ports:
        for index, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                yield f"{path}.ports[{index}].hostPort", str(port["hostPort"]), "host_ports is false"
    context = container.get("securityContext")
    if not context:
        return
    path = f"{path}.securityContext"
    if context.get("privileged") and not policy.privileged:
        yield f"{path}.privileged", "true", "privileged is false"
    for index, name in enumerate((context.get("capabilities") or {}).get("add") or ()):
        # Some runtimes take CAP_SYS_ADMIN and sys_admin for SYS_ADMIN.
        if not _matches(str(name).upper().removeprefix("CAP_"), policy.capabilities):
            yield f"{path}.capabilities.add[{index}]", str(name), _listed("capabilities", policy.capabilities)
    yield from _security(context, path, policy)


def _security(context: Mapping[str, Any], path: str, policy: Policy) -> Iterator[Problem]:
    """What pods and containers have in common."""
    if not context:
        return
    if (context.get("windowsOptions") or {}).get("hostProcess") and not policy.privileged:
        yield f"{path}.windowsOptions.hostProcess", "true", "privileged is false"
    # A host process of Windows is a privileged one, so this does not allow it.
    if policy.unconfined:
        return
    rule = "unconfined is false"
    for field in ("seccompProfile", "appArmorProfile"):
        if (context.get(field) or {}).get("type") == "Unconfined":
            yield f"{path}.{field}.type", "Unconfined", rule
    if context.get("procMount") not in {None, "", "Default"}:
        yield f"{path}.procMount", str(context["procMount"]), rule
    selinux = context.get("seLinuxOptions") or {}
    # Baseline: user and role must not be set at all.
    for field, allowed in (("type", _SELINUX_TYPES), ("user", {""}), ("role", {""})):
        if (selinux.get(field) or "") not in allowed:
            yield f"{path}.seLinuxOptions.{field}", str(selinux[field]), rule
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        if sysctl.get("name") not in _SAFE_SYSCTLS:
            yield f"{path}.sysctls[{index}].name", str(sysctl.get("name")), rule


def _matches(text: str, patterns: Collection[str]) -> bool:
    return text in patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


def _listed(rule: str, allowed: Collection[str]) -> str:
    return f"{rule} are {', '.join(dict.fromkeys(allowed)) or 'none'}"
