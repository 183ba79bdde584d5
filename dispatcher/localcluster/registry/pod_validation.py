"""Which pods a real API server would refuse: spec -> causes, in its own words. Pure.

Only what authors get wrong, not the whole schema. Where this cluster is narrower than a real one (restart policies) the
message says so. Containers have `containervalidation`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from dispatcher.localcluster.objects import causes, manifest, quantities
from dispatcher.localcluster.objects.refusal import Cause
from dispatcher.localcluster.registry import container_validation, naming

Json = dict[str, Any]
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_LONGEST_S = 2**31 - 1


def check(pod: manifest.Pod, spec: Json) -> list[Cause]:
    """The spec of a pod, after defaults are set: typed, and as it is."""
    typed = pod.spec
    names = {volume.name for volume in typed.volumes or []}
    return [
        *_volumes(typed.volumes or [], spec.get("volumes") or []),
        *container_validation.check(typed, names),
        *_policy(typed),
        *_names(typed),
        *_tolerations(typed.tolerations or []),
        *naming.labels("spec.nodeSelector", typed.node_selector or {}),
    ]


def _volumes(volumes: list[manifest.Volume], plain: Sequence[Json]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, (volume, given) in enumerate(zip(volumes, plain, strict=True)):
        field = f"spec.volumes[{index}]"
        yield from naming.label(f"{field}.name", volume.name)
        if volume.name in seen:
            yield causes.duplicate(f"{field}.name", volume.name)
        seen.add(volume.name)
        sources = [key for key in given if key != "name"]
        for further in sources[1:]:
            yield causes.forbidden(f"{field}.{further}", "may not specify more than 1 volume type")
        yield from _source(field, volume, given)


def _source(field: str, volume: manifest.Volume, given: Json) -> Iterator[Cause]:
    if volume.config_map is not None:
        if not volume.config_map.name:
            yield causes.required(f"{field}.configMap.name")
        yield from _items(f"{field}.configMap", volume.config_map.items, volume.config_map.default_mode)
    if volume.secret is not None:
        if not volume.secret.secret_name:
            yield causes.required(f"{field}.secret.secretName")
        yield from _items(f"{field}.secret", volume.secret.items, volume.secret.default_mode)
    if volume.host_path is not None and not volume.host_path.path:
        yield causes.required(f"{field}.hostPath.path")
    if isinstance(claim := given.get("persistentVolumeClaim"), dict) and not claim.get("claimName"):
        yield causes.required(f"{field}.persistentVolumeClaim.claimName")
    limit = (volume.empty_dir or {}).get("sizeLimit")
    if limit is not None and quantities.read(limit) < 0:
        yield causes.forbidden(f"{field}.emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _items(field: str, items: list[manifest.KeyToPath] | None, mode: int | None) -> Iterator[Cause]:
    if mode is not None and not 0 <= mode <= 0o777:
        yield causes.invalid(
            f"{field}.defaultMode", mode, "must be a number between 0 and 0777 (octal), both inclusive"
        )
    for index, item in enumerate(items or []):
        where = f"{field}.items[{index}]"
        if not item.key:
            yield causes.required(f"{where}.key")
        if not item.path:
            yield causes.required(f"{where}.path")
        elif item.path.startswith("/"):
            yield causes.invalid(f"{where}.path", item.path, "must be a relative path")
        elif ".." in item.path.split("/"):
            yield causes.invalid(f"{where}.path", item.path, "must not contain '..'")


def _policy(spec: manifest.PodSpec) -> Iterator[Cause]:
    if spec.restart_policy in {"Always", "OnFailure"}:
        hint = " (the local cluster restarts no container: say `restartPolicy: Never`)"
        yield causes.unsupported("spec.restartPolicy", spec.restart_policy, ("Never",), hint)
    elif spec.restart_policy != "Never":
        supported = ("Always", "OnFailure", "Never")
        yield causes.unsupported("spec.restartPolicy", spec.restart_policy or "", supported)
    if spec.dns_policy not in {None, *_DNS}:
        yield causes.unsupported("spec.dnsPolicy", spec.dns_policy or "", _DNS)
    deadline = spec.active_deadline_seconds
    if deadline is not None and not 1 <= deadline <= _LONGEST_S:
        yield causes.invalid("spec.activeDeadlineSeconds", deadline, f"must be between 1 and {_LONGEST_S}, inclusive")


def _names(spec: manifest.PodSpec) -> Iterator[Cause]:
    for field, name in (
        ("serviceAccountName", spec.service_account_name),
        ("priorityClassName", spec.priority_class_name),
        ("nodeName", spec.node_name),
        ("runtimeClassName", spec.runtime_class_name),
    ):
        if name:
            yield from naming.subdomain(f"spec.{field}", name)
    if spec.hostname:
        yield from naming.label("spec.hostname", spec.hostname)
    if spec.subdomain:
        yield from naming.label("spec.subdomain", spec.subdomain)


def _tolerations(tolerations: list[Json]) -> Iterator[Cause]:
    for index, toleration in enumerate(tolerations):
        field = f"spec.tolerations[{index}]"
        key, operator, effect = (toleration.get(word) or "" for word in ("key", "operator", "effect"))
        if key:
            yield from naming.qualified(f"{field}.key", key)
        elif operator != "Exists":
            words = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield causes.invalid(f"{field}.operator", operator, words)
        if operator not in {"", "Equal", "Exists", "Lt", "Gt"}:
            yield causes.unsupported(f"{field}.operator", operator, ("Equal", "Exists"))
        if operator == "Exists" and toleration.get("value"):
            yield causes.invalid(f"{field}.operator", operator, "value must be empty when `operator` is 'Exists'")
        if effect and effect not in _EFFECTS:
            yield causes.unsupported(f"{field}.effect", effect, _EFFECTS)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            words = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            yield causes.invalid(f"{field}.effect", effect, words)
