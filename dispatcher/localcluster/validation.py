"""Which objects a real API server would refuse: object -> causes, in its own words. Pure.

Only what authors get wrong: names, labels, containers, images, mounts, environment. Where this cluster is narrower than
a real one (restart policies) the message says so.
"""

import re
from collections.abc import Iterable, Iterator

from dispatcher.localcluster import manifest, resources
from dispatcher.localcluster.refusal import Cause

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_ANNOTATIONS_BYTES = 256 * 1024
_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE}')"
)
_NAME_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    f"'{_QUALIFIED}')"
)
_FIELD_PATHS = re.compile(
    r"^(metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])|spec\.(nodeName|serviceAccountName)"
    r"|status\.(hostIP|hostIPs|podIP|podIPs))$"
)


def required(field: str, message: str = "") -> Cause:
    """A field is missing."""
    return Cause(field, "FieldValueRequired", f"Required value{': ' + message if message else ''}")


def _invalid(field: str, value: object, message: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {message}")


def _duplicate(field: str, value: str) -> Cause:
    return Cause(field, "FieldValueDuplicate", f'Duplicate value: "{value}"')


def _unsupported(field: str, value: str, supported: Iterable[str], hint: str = "") -> Cause:
    listed = ", ".join(f'"{word}"' for word in supported)
    return Cause(field, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {listed}{hint}')


def check_metadata(resource: resources.Resource, metadata: manifest.ObjectMeta) -> list[Cause]:
    """Name, labels, annotations and finalizers of any object."""
    return [
        *_name(resource, metadata.name or ""),
        *_labels(metadata.labels or {}),
        *_annotations(metadata.annotations or {}),
        *_finalizers(metadata.finalizers or []),
        *_owners(metadata.owner_references or []),
    ]


def _name(resource: resources.Resource, name: str) -> Iterator[Cause]:
    pattern, words, longest = _SUBDOMAIN, _SUBDOMAIN_WORDS, 253
    if resource is resources.NAMESPACES:
        pattern, words, longest = _LABEL, _LABEL_WORDS, 63
    if not name:
        yield required("metadata.name", "name or generateName is required")
        return
    if len(name) > longest:
        yield _invalid("metadata.name", name, f"must be no more than {longest} characters")
    if not re.fullmatch(pattern, name):
        yield _invalid("metadata.name", name, words)


def _qualified_name(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not re.fullmatch(_SUBDOMAIN, prefix):
        yield _invalid(field, key, f"prefix part {_SUBDOMAIN_WORDS}")
    if not re.fullmatch(_QUALIFIED, name):
        yield _invalid(field, key, _NAME_WORDS)
    elif len(name) > 63:
        yield _invalid(field, key, "name part must be no more than 63 characters")


def _labels(labels: dict[str, str], field: str = "metadata.labels") -> Iterator[Cause]:
    for key, value in labels.items():
        yield from _qualified_name(field, key)
        if len(value) > 63:
            yield _invalid(field, value, "must be no more than 63 characters")
        if not re.fullmatch(_VALUE, value):
            yield _invalid(field, value, _VALUE_WORDS)


def _annotations(annotations: dict[str, str]) -> Iterator[Cause]:
    for key in annotations:
        yield from _qualified_name("metadata.annotations", key.lower())
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        words = f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"
        yield Cause("metadata.annotations", "FieldValueTooLong", words)


def _finalizers(finalizers: list[str]) -> Iterator[Cause]:
    for finalizer in finalizers:
        yield from _qualified_name("metadata.finalizers", finalizer)
        if "/" not in finalizer:
            yield _invalid(
                "metadata.finalizers", finalizer, "name is neither a standard finalizer name nor is it fully qualified"
            )


def _owners(owners: list[manifest.Owner]) -> Iterator[Cause]:
    for index, owner in enumerate(owners):
        field = f"metadata.ownerReferences[{index}]"
        for name, value in (
            ("apiVersion", owner.api_version),
            ("kind", owner.kind),
            ("name", owner.name),
            ("uid", owner.uid),
        ):
            if not value:
                yield _invalid(f"{field}.{name}", "", "must not be empty")
    controllers = [owner.name for owner in owners if owner.controller]
    if len(controllers) > 1:
        words = f"Only one reference can have Controller set to true. Found: {', '.join(controllers)}"
        yield _invalid("metadata.ownerReferences", "", words)


def check_pod(pod: manifest.Pod) -> list[Cause]:
    """The spec of a pod, after defaults are set."""
    spec = pod.spec
    return [
        *_volumes(spec.volumes or []),
        *_containers(spec),
        *_policy(spec),
        *_labels(spec.node_selector or {}, "spec.nodeSelector"),
    ]


def _volumes(volumes: list[manifest.Volume]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        field = f"spec.volumes[{index}].name"
        yield from _dns_label(field, volume.name)
        if volume.name in seen:
            yield _duplicate(field, volume.name)
        seen.add(volume.name)


def _dns_label(field: str, name: str) -> Iterator[Cause]:
    if not name:
        yield required(field)
    elif len(name) > 63:
        yield _invalid(field, name, "must be no more than 63 characters")
    elif not re.fullmatch(_LABEL, name):
        yield _invalid(field, name, _LABEL_WORDS)


def _containers(spec: manifest.PodSpec) -> Iterator[Cause]:
    if not spec.containers:
        yield required("spec.containers")
    volumes = {volume.name for volume in spec.volumes or []}
    seen: set[str] = set()
    for group, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers or []):
            field = f"spec.{group}[{index}]"
            yield from _dns_label(f"{field}.name", container.name)
            if container.name and container.name in seen:
                yield _duplicate(f"{field}.name", container.name)
            seen.add(container.name)
            yield from _container(field, container, volumes)
            yield from _restarts(field, container, is_init=group == "initContainers")


def _restarts(field: str, container: manifest.Container, *, is_init: bool) -> Iterator[Cause]:
    """An init container that is always restarted is a sidecar; no other container is restarted here."""
    policy = container.restart_policy
    if policy is not None and policy not in ({"Always", "Never"} if is_init else {"Never"}):
        hint = " (the local cluster restarts only sidecars: init containers with `restartPolicy: Always`)"
        yield _unsupported(f"{field}.restartPolicy", policy, ("Always", "Never") if is_init else ("Never",), hint)


def _container(field: str, container: manifest.Container, volumes: set[str]) -> Iterator[Cause]:
    image = container.image or ""
    if not image:
        yield required(f"{field}.image")
    elif image != image.strip():
        yield _invalid(f"{field}.image", image, "must not have leading or trailing whitespace")
    yield from _environment(field, container)
    yield from _mounts(field, container, volumes)
    policy = container.termination_message_policy
    if policy not in {None, "File", "FallbackToLogsOnError"}:
        yield _unsupported(f"{field}.terminationMessagePolicy", policy or "", ("FallbackToLogsOnError", "File"))
    pull = container.image_pull_policy
    if pull not in {None, "Always", "IfNotPresent", "Never"}:
        yield _unsupported(f"{field}.imagePullPolicy", pull or "", ("Always", "IfNotPresent", "Never"))


def _environment(field: str, container: manifest.Container) -> Iterator[Cause]:
    for index, variable in enumerate(container.env or []):
        where = f"{field}.env[{index}]"
        if not variable.name:
            yield required(f"{where}.name")
        elif "=" in variable.name or not variable.name.isprintable():
            words = "a valid environment variable name must consist only of printable ASCII characters other than '='"
            yield _invalid(f"{where}.name", variable.name, words)
        source = variable.value_from
        if source is not None and variable.value:
            yield _invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty")
        if source and source.field_ref and not _FIELD_PATHS.match(source.field_ref.field_path):
            path = source.field_ref.field_path
            words = f"error converting fieldPath: field label not supported: {path}"
            yield _invalid(f"{where}.valueFrom.fieldRef.fieldPath", path, words)


def _mounts(field: str, container: manifest.Container, volumes: set[str]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(container.volume_mounts or []):
        where = f"{field}.volumeMounts[{index}]"
        if not mount.name:
            yield required(f"{where}.name")
        elif mount.name not in volumes:
            yield Cause(f"{where}.name", "FieldValueNotFound", f'Not found: "{mount.name}"')
        if not mount.mount_path:
            yield required(f"{where}.mountPath")
        elif mount.mount_path in seen:
            yield _invalid(f"{where}.mountPath", mount.mount_path, "must be unique")
        seen.add(mount.mount_path)
        if mount.sub_path and (mount.sub_path.startswith("/") or ".." in mount.sub_path.split("/")):
            yield _invalid(f"{where}.subPath", mount.sub_path, "must be a relative path without '..'")


def _policy(spec: manifest.PodSpec) -> Iterator[Cause]:
    if spec.restart_policy in {"Always", "OnFailure"}:
        hint = " (the local cluster restarts no container: say `restartPolicy: Never`)"
        yield _unsupported("spec.restartPolicy", spec.restart_policy, ("Never",), hint)
    elif spec.restart_policy != "Never":
        supported = ("Always", "OnFailure", "Never")
        yield _unsupported("spec.restartPolicy", spec.restart_policy or "", supported)
    deadline = spec.active_deadline_seconds
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        yield _invalid("spec.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    grace = spec.termination_grace_period_seconds
    if grace is not None and grace < 0:
        yield _invalid("spec.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
