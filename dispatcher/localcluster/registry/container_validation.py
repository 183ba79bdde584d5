"""Which containers a real API server would refuse: container -> causes, in its own words. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from dispatcher.localcluster.objects import causes, manifest, quantities
from dispatcher.localcluster.objects.refusal import Cause
from dispatcher.localcluster.registry import naming

Json = dict[str, Any]
_FIELD_PATHS = re.compile(
    r"^(metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])|spec\.(nodeName|serviceAccountName)"
    r"|status\.(hostIP|hostIPs|podIP|podIPs))$"
)
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULLS = ("Always", "IfNotPresent", "Never")
_MESSAGES = ("FallbackToLogsOnError", "File")


def check(spec: manifest.PodSpec, volumes: set[str]) -> Iterator[Cause]:
    """All containers of a pod; `volumes` are the names that may be mounted."""
    if not spec.containers:
        yield causes.required("spec.containers")
    seen: set[str] = set()
    for group, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers or []):
            field = f"spec.{group}[{index}]"
            yield from naming.label(f"{field}.name", container.name)
            if container.name and container.name in seen:
                yield causes.duplicate(f"{field}.name", container.name)
            seen.add(container.name)
            yield from _container(field, container, volumes)
            yield from _restarts(field, container, is_init=group == "initContainers")


def _container(field: str, container: manifest.Container, volumes: set[str]) -> Iterator[Cause]:
    image = container.image or ""
    if not image:
        yield causes.required(f"{field}.image")
    elif image != image.strip():
        yield causes.invalid(f"{field}.image", image, "must not have leading or trailing whitespace")
    yield from _environment(field, container)
    yield from _mounts(field, container, volumes)
    yield from _ports(field, container.ports or [])
    yield from _resources(f"{field}.resources", container.resources or manifest.Resources())
    yield from _probes(field, container)
    if container.termination_message_policy not in {None, *_MESSAGES}:
        policy = container.termination_message_policy or ""
        yield causes.unsupported(f"{field}.terminationMessagePolicy", policy, _MESSAGES)
    if container.image_pull_policy not in {None, *_PULLS}:
        yield causes.unsupported(f"{field}.imagePullPolicy", container.image_pull_policy or "", _PULLS)
    rights = container.security_context or {}
    if rights.get("privileged") and rights.get("allowPrivilegeEscalation") is False:
        words = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        yield causes.invalid(f"{field}.securityContext", "", words)


def _restarts(field: str, container: manifest.Container, *, is_init: bool) -> Iterator[Cause]:
    """An init container that is always restarted is a sidecar; no other container is restarted here."""
    policy = container.restart_policy
    if policy is not None and policy not in ({"Always", "Never"} if is_init else {"Never"}):
        hint = " (the local cluster restarts only sidecars: init containers with `restartPolicy: Always`)"
        yield causes.unsupported(f"{field}.restartPolicy", policy, ("Always", "Never") if is_init else ("Never",), hint)
    if is_init and not container.is_sidecar:
        words = "may not be set for init containers without restartPolicy=Always"
        yield from (causes.forbidden(f"{field}.{name}", words) for name, _ in _given_probes(container))
        if container.lifecycle:
            yield causes.forbidden(f"{field}.lifecycle", words)


# --- environment ---


def _environment(field: str, container: manifest.Container) -> Iterator[Cause]:
    for index, variable in enumerate(container.env or []):
        where = f"{field}.env[{index}]"
        if not variable.name:
            yield causes.required(f"{where}.name")
        elif "=" in variable.name or not (variable.name.isascii() and variable.name.isprintable()):
            words = "a valid environment variable name must consist only of printable ASCII characters other than '='"
            yield causes.invalid(f"{where}.name", variable.name, words)
        if variable.value_from is not None:
            yield from _value_from(f"{where}.valueFrom", variable)
    for index, source in enumerate(container.env_from or []):
        yield from _env_from(f"{field}.envFrom", index, source)


def _value_from(field: str, variable: manifest.EnvVar) -> Iterator[Cause]:
    source = variable.value_from or manifest.EnvSource()
    keyed = {"configMapKeyRef": source.config_map_key_ref, "secretKeyRef": source.secret_key_ref}
    given = [source.field_ref, source.resource_field_ref, source.file_key_ref, *keyed.values()]
    number = sum(one is not None for one in given)
    if variable.value:
        yield causes.invalid(field, "", "may not be specified when `value` is not empty")
    elif number > 1:
        yield causes.invalid(field, "", "may not have more than one field specified at a time")
    elif not number:
        listed = "`, `".join(_SOURCES[:-1])
        yield causes.invalid(field, "", f"must specify one of: `{listed}` or `{_SOURCES[-1]}`")
    if source.field_ref is not None:
        path = source.field_ref.field_path
        if not path:
            yield causes.required(f"{field}.fieldRef.fieldPath")
        elif not _FIELD_PATHS.match(path):
            words = f"error converting fieldPath: field label not supported: {path}"
            yield causes.invalid(f"{field}.fieldRef.fieldPath", path, words)
    if source.resource_field_ref is not None and not source.resource_field_ref.get("resource"):
        yield causes.required(f"{field}.resourceFieldRef.resource")
    for name, ref in keyed.items():
        if ref is not None:
            yield from naming.subdomain(f"{field}.{name}.name", ref.name)
            if not ref.key:
                yield causes.required(f"{field}.{name}.key")
            else:
                yield from naming.config_key(f"{field}.{name}.key", ref.key)


def _env_from(field: str, index: int, source: manifest.EnvFrom) -> Iterator[Cause]:
    """A real server names the list where the number of sources is wrong, and the entry where a source is."""
    refs = {"configMapRef": source.config_map_ref, "secretRef": source.secret_ref}
    number = sum(ref is not None for ref in refs.values())
    if number > 1:
        yield causes.invalid(field, "", "may not have more than one field specified at a time")
    elif not number:
        yield causes.invalid(field, "", "must specify one of: `configMapRef` or `secretRef`")
    for name, ref in refs.items():
        if ref is not None:
            yield from naming.subdomain(f"{field}[{index}].{name}.name", ref.name)


# --- mounts, ports ---


def _mounts(field: str, container: manifest.Container, volumes: set[str]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(container.volume_mounts or []):
        where = f"{field}.volumeMounts[{index}]"
        if not mount.name:
            yield causes.required(f"{where}.name")
        elif mount.name not in volumes:
            yield causes.not_found(f"{where}.name", mount.name)
        if not mount.mount_path:
            yield causes.required(f"{where}.mountPath")
        elif mount.mount_path in seen:
            yield causes.invalid(f"{where}.mountPath", mount.mount_path, "must be unique")
        seen.add(mount.mount_path)
        if mount.sub_path and mount.sub_path_expr:
            yield causes.invalid(
                f"{where}.subPathExpr", mount.sub_path_expr, "subPathExpr and subPath are mutually exclusive"
            )
        for name, path in (("subPath", mount.sub_path or ""), ("subPathExpr", mount.sub_path_expr or "")):
            inside = f"{field}.volumeMounts.{name}"  # a real server names no index for what leaves its volume
            if path.startswith("/"):
                yield causes.invalid(inside, path, "must be a relative path")
            elif ".." in path.split("/"):
                yield causes.invalid(inside, path, "must not contain '..'")


def _ports(field: str, ports: list[manifest.Port]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{field}.ports[{index}]"
        if port.name:
            yield from _port_name(f"{where}.name", port.name)
            if port.name in seen:
                yield causes.duplicate(f"{where}.name", port.name)
            seen.add(port.name)
        if not port.container_port:
            yield causes.required(f"{where}.containerPort")
        for name, number in (("containerPort", port.container_port), ("hostPort", port.host_port)):
            if number and not 1 <= number <= 65_535:
                yield causes.invalid(f"{where}.{name}", number, "must be between 1 and 65535, inclusive")
        if port.protocol not in {None, *_PROTOCOLS}:
            yield causes.unsupported(f"{where}.protocol", port.protocol or "", _PROTOCOLS)


def _port_name(field: str, name: str) -> Iterator[Cause]:
    if len(name) > 15:
        yield causes.invalid(field, name, "must be no more than 15 characters")
    if not re.fullmatch("[-a-z0-9]+", name):
        yield causes.invalid(field, name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    elif not re.search("[a-z]", name):
        yield causes.invalid(field, name, "must contain at least one letter (a-z)")


# --- resources, probes ---


def _resources(field: str, declared: manifest.Resources) -> Iterator[Cause]:
    limits, requests = declared.limits or {}, declared.requests or {}
    for part, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            yield from _amount(f"{field}.{part}", name, amount)
    for name, amount in requests.items():
        limit = limits.get(name)
        if _is_overcommitted(name):
            if limit is not None and quantities.read(amount) > quantities.read(limit):
                words = f"must be less than or equal to {name} limit of {limit}"
                yield causes.invalid(f"{field}.requests", str(amount), words)
        elif limit is None:
            yield causes.required(f"{field}.limits", "Limit must be set for non overcommitable resources")
        elif quantities.read(amount) != quantities.read(limit):
            words = f"must be equal to {name} limit of {limit}"
            yield causes.invalid(f"{field}.requests", str(amount), words)


def _amount(field: str, name: str, amount: str | float) -> Iterator[Cause]:
    if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
        yield causes.invalid(f"{field}[{name}]", name, "must be a standard resource type or fully qualified")
        yield causes.invalid(f"{field}[{name}]", name, "must be a standard resource for containers")
        return
    yield from naming.qualified(f"{field}[{name}]", name)
    value = quantities.read(amount)
    if value < 0:
        yield causes.invalid(f"{field}[{name}]", str(amount), "must be greater than or equal to 0")
    if "/" in name and value != value.to_integral_value():
        yield causes.invalid(f"{field}[{name}]", str(amount), "must be an integer")


def _is_overcommitted(name: str) -> bool:
    """Whether more may be promised than there is: not of devices and huge pages."""
    return "/" not in name and not name.startswith("hugepages-")


def _given_probes(container: manifest.Container) -> list[tuple[str, Json]]:
    named = {
        "livenessProbe": container.liveness_probe,
        "readinessProbe": container.readiness_probe,
        "startupProbe": container.startup_probe,
    }
    return [(name, probe) for name, probe in named.items() if probe is not None]


def _probes(field: str, container: manifest.Container) -> Iterator[Cause]:
    for name, probe in _given_probes(container):
        handlers = [handler for handler in _HANDLERS if handler in probe]
        if not handlers:
            yield causes.required(f"{field}.{name}", "must specify a handler type")
        for further in handlers[1:]:
            yield causes.forbidden(f"{field}.{name}.{further}", "may not specify more than 1 handler type")
