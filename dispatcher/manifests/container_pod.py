"""Container pods: the arguments of `dispatcher.pod`, read into the parts of a manifest.

The names are those of Airflow's KubernetesPodOperator, the values are JSON: nested fields are spelled as the Kubernetes
API spells them. Lower to higher: `pod_template_dict` or `pod_template_file`, `full_pod_spec`, the single arguments.
Pure; `dispatcher.manifests.builder` reads template files and builds the pod. `PARAMETERS` lists every name that is
taken.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher.manifests import container_pod_options, container_pod_values, container_pod_volumes, merge, pod_schema
from dispatcher.manifests.container_pod_options import PodOptions

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class ClusterRequest:
    """The cluster that an author named; a dispatcher has one, so it can only agree or not."""

    in_cluster: bool | None = None
    context: str | None = None
    kubeconfig: str | None = None


@dataclass(frozen=True, kw_only=True)
class PodRequest:
    """What a sender asked for."""

    override: Mapping[str, Any]
    """`full_pod_spec` with the single arguments over it; laid over the template."""
    options: PodOptions
    template_file: str | None = None
    template: Mapping[str, Any] | None = None
    """`pod_template_dict`, checked; not looked at where there is a file."""
    name: str | None = None
    namespace: str | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    """Raw texts, made valid label values when the pod gets its identity."""
    cluster: ClusterRequest = ClusterRequest()
    sidecar_security_context: Mapping[str, Any] | None = None


def read(arguments: Mapping[str, Any]) -> PodRequest:
    """The request in the arguments of `dispatcher.pod`. None counts as not given.

    Raises InvalidPod that names the argument, the path in it and what is wrong.
    """
    # Airflow's operators pass every argument, None where the author said nothing.
    given = {name: value for name, value in arguments.items() if value is not None}
    _check_names(given)
    options = container_pod_options.read(given)
    for name in given.keys() & _WITHOUT_EFFECT.keys():
        _WITHOUT_EFFECT[name](name, given[name])
    template = given.get("pod_template_dict")
    return PodRequest(
        override=_override(given, base=options.base),
        options=options,
        template_file=_text(given, "pod_template_file"),
        template=None if template is None else _whole_pod("pod_template_dict", template),
        name=_text(given, "name"),
        namespace=_namespace(given),
        labels=_labels(given.get("labels", {})),
        cluster=ClusterRequest(
            in_cluster=container_pod_options.read_bool("in_cluster", given["in_cluster"])
            if "in_cluster" in given
            else None,
            context=_text(given, "cluster_context"),
            kubeconfig=_text(given, "config_file"),
        ),
        sidecar_security_context=container_pod_values.plain(
            given, "xcom_sidecar_container_security_context", "SecurityContext"
        ),
    )


def _check_names(given: Mapping[str, Any]) -> None:
    for name in given:
        if name in PARAMETERS:
            continue
        if name in _REFUSED:
            raise container_pod_options.wrong(name, _REFUSED[name])
        near = difflib.get_close_matches(str(name).lower(), PARAMETERS, n=1)
        raise container_pod_options.wrong(
            str(name), "unknown argument" + (f'; did you mean "{near[0]}"?' if near else "")
        )


def _override(given: Mapping[str, Any], *, base: str) -> dict[str, Any]:
    """Everything that goes into the manifest, as one override."""
    container: dict[str, Any] = {"name": base, **_fields(given, _CONTAINER_FIELDS)}
    spec = _fields(given, _SPEC_FIELDS)
    attached, spec["volumes"] = container_pod_volumes.read(given)
    container |= attached
    spec["imagePullSecrets"] = container_pod_volumes.pull_secrets(given.get("image_pull_secrets", ()))
    spec["containers"] = [container]
    arguments = {
        "metadata": {"annotations": container_pod_values.plain(given, "annotations", "{str}") or {}},
        "spec": spec,
    }
    if wrong := merge.wrong_key(arguments):
        raise container_pod_options.wrong(pod_schema.dotted(_argument_of(wrong.path)), wrong.problem)
    whole = given.get("full_pod_spec")
    # Without it nothing is merged, so that errors name the arguments and not a document that nobody wrote.
    if whole is None:
        return arguments
    named = _with_base(_whole_pod("full_pod_spec", whole), base)
    if wrong := merge.wrong_key(named):
        raise container_pod_options.wrong(pod_schema.dotted(("full_pod_spec", *wrong.path)), wrong.problem)
    # The single arguments win over the whole pod, as in Airflow.
    return merge.overlay(named, arguments)


def _argument_of(path: pod_schema.Path) -> pod_schema.Path:
    """The path in the arguments of what stands at `path` in their override."""
    # Errors are found in the manifest, but the author has written arguments.
    argument_of = {"initContainers": "init_containers", **{name: arg for arg, (_, name) in _CONTAINER_FIELDS.items()}}
    at = 3 if path[:3] == ("spec", "containers", 0) else 1
    return (argument_of[str(path[at])], *path[at + 1 :])


def _fields(given: Mapping[str, Any], table: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    found = {}
    for name, (kind, field_name) in table.items():
        if name not in given:
            continue
        found[field_name] = container_pod_values.plain(given, name, kind)
        allowed = _WORDS.get(name)
        if allowed and found[field_name]:
            container_pod_options.one_of(*allowed)(name, found[field_name])
    return found


def _whole_pod(name: str, value: object) -> dict[str, Any]:
    try:
        pod = pod_schema.plain_pod(value, keep_nulls=False)
    except pod_schema.WrongField as wrong:
        raise container_pod_options.wrong(pod_schema.dotted((name, *wrong.path)), wrong.problem) from None
    return pod


def _with_base(pod: dict[str, Any], base: str) -> dict[str, Any]:
    """A whole pod one of whose containers decides; the first is it where it has no name."""
    containers = (pod.get("spec") or {}).get("containers") or []
    for index, container in enumerate(containers):
        if not container.get("name"):
            if index:
                raise container_pod_options.wrong(f"full_pod_spec.spec.containers[{index}].name", "is missing")
            container["name"] = base
    named = [container["name"] for container in containers]
    if named and base not in named:
        raise container_pod_options.wrong(
            "full_pod_spec.spec.containers",
            f"none is named {base!r}, which decides; name one so, or say base_container_name={named[0]!r}",
        )
    return pod


def _labels(labels: object) -> dict[str, str | None]:
    """Values may be null, which is an empty label."""
    if not isinstance(labels, Mapping):
        raise container_pod_options.wrong("labels", f"must be a mapping, not {container_pod_options.described(labels)}")
    texts = container_pod_values.checked(labels, "{str}", ("labels",))
    return {str(name): texts.get(name) for name in labels}


def _namespace(given: Mapping[str, Any]) -> str | None:
    namespace = _text(given, "namespace")
    if namespace is not None and not _NAMESPACE.fullmatch(namespace):
        raise container_pod_options.wrong(
            "namespace", f"{namespace!r} is not the name of a namespace: lower-case letters, digits and dashes"
        )
    return namespace


def _text(given: Mapping[str, Any], name: str) -> str | None:
    return container_pod_options.read_text(name, given[name]) if name in given else None


def _ignored(name: str, value: object) -> None:
    """Anything goes: it has no effect here, and docs/pods.md says why."""


_CONTAINER_FIELDS: Mapping[str, tuple[str, str]] = {
    "arguments": ("[str]", "args"),
    "cmds": ("[str]", "command"),
    "container_resources": ("ResourceRequirements", "resources"),
    "container_security_context": ("SecurityContext", "securityContext"),
    "image": ("str", "image"),
    "image_pull_policy": ("str", "imagePullPolicy"),
    "ports": ("[ContainerPort]", "ports"),
    "termination_message_policy": ("str", "terminationMessagePolicy"),
}
"""Argument -> type and name of the field of the task container."""
_SPEC_FIELDS: Mapping[str, tuple[str, str]] = {
    "active_deadline_seconds": ("int", "activeDeadlineSeconds"),
    "affinity": ("Affinity", "affinity"),
    "automount_service_account_token": ("bool", "automountServiceAccountToken"),
    "dns_config": ("PodDNSConfig", "dnsConfig"),
    "dnspolicy": ("str", "dnsPolicy"),
    "host_aliases": ("[HostAlias]", "hostAliases"),
    "hostname": ("str", "hostname"),
    "hostnetwork": ("bool", "hostNetwork"),
    "init_containers": ("[Container]", "initContainers"),
    "node_selector": ("{str}", "nodeSelector"),
    "priority_class_name": ("str", "priorityClassName"),
    "runtime_class_name": ("str", "runtimeClassName"),
    "schedulername": ("str", "schedulerName"),
    "security_context": ("PodSecurityContext", "securityContext"),
    "service_account_name": ("str", "serviceAccountName"),
    "subdomain": ("str", "subdomain"),
    "termination_grace_period": ("int", "terminationGracePeriodSeconds"),
    "tolerations": ("[Toleration]", "tolerations"),
}
"""Argument -> type and name of the field of the pod's spec."""
_WORDS: Mapping[str, tuple[str, ...]] = {
    "dnspolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "image_pull_policy": ("Always", "IfNotPresent", "Never"),
    "termination_message_policy": ("File", "FallbackToLogsOnError"),
}
_WITHOUT_EFFECT: Mapping[str, Callable[[str, Any], object]] = {
    "base_container_status_polling_interval": _ignored,
    "deferrable": _ignored,
    "durable": _ignored,
    "log_events_on_startup": _ignored,
    "log_pod_spec_on_failure": _ignored,
    "logging_interval": _ignored,
    "poll_interval": _ignored,
    "random_name_suffix": _ignored,
    "reattach_on_restart": _ignored,
    "startup_check_interval_seconds": _ignored,
}
"""Taken so that existing DAGs run: names are deterministic, every pod is watched, and adopted after a restart."""
_REFUSED: Mapping[str, str] = {
    "callbacks": "functions cannot travel in a message; use Celery's signals or a task downstream",
    "kubernetes_conn_id": "there are no connections; the dispatcher's settings name the cluster",
    "log_formatter": "functions cannot travel in a message",
    "progress_callback": "functions cannot travel in a message; `podyard pods logs --follow` shows progress",
    "trigger_kwargs": "there is no triggerer: no worker waits for a pod",
}
PARAMETERS: frozenset[str] = frozenset(
    {
        *_CONTAINER_FIELDS,
        *_SPEC_FIELDS,
        *_WITHOUT_EFFECT,
        *container_pod_options.READERS,
        "annotations",
        "cluster_context",
        "config_file",
        "configmaps",
        "env_from",
        "env_vars",
        "full_pod_spec",
        "image_pull_secrets",
        "in_cluster",
        "labels",
        "name",
        "namespace",
        "pod_runtime_info_envs",
        "pod_template_dict",
        "pod_template_file",
        "secrets",
        "volume_mounts",
        "volumes",
        "xcom_sidecar_container_security_context",
    }
)
"""Every argument that `dispatcher.pod` takes."""
