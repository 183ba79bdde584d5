"""Merge of pods: a template and an override, by the declared rule of each field.

Pure. `merge_pod` is for callers that hold any two documents; `overlay` is its second half, for callers that hold plain
copies already. What stands in no table follows its shape: mappings merge by key, deeply; lists and single values are
replaced. Never adds anything of its own: identity is the business of `dispatcher.manifests.podspec`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from dispatcher import errors
from dispatcher.manifests import pod_schema

BASE = "base"
"""The name of the task container."""

Entry = dict[str, Any]


def merge_pod(base: Mapping[str, Any], override: Any = None) -> dict[str, Any]:
    """The pod that `base` becomes under `override` (a mapping, a `V1Pod` or None); both stay as they are.

    Explicit values win, false and 0 too. None in a mapping removes the field; an empty string, list or mapping means
    "not set" (except as the value of a label, annotation, node label or environment variable). The result is plain,
    new, and shares nothing with its inputs.

    Raises InvalidTemplate for a mistake in `base` and InvalidOverride for one in `override`; both name the path.
    """
    return overlay(plain_base(base), plain_override(override))


def plain_base(base: Any) -> Entry:
    """A checked plain copy of the lower side of a merge; raises InvalidTemplate."""
    try:
        copy = pod_schema.plain_pod(base, keep_nulls=True)
        check_keys(copy)
    except pod_schema.WrongField as wrong:
        raise errors.InvalidTemplate(f"pod template: {wrong}") from None
    return copy


def plain_override(override: Any, *, base: str = BASE) -> Entry:
    """A checked plain copy of the upper side, with its first container named; raises InvalidOverride. None gives {}.

    `base` is the name of the task container, for pods that have another one than `base`.
    """
    if override is None:
        return {}
    try:
        copy = pod_schema.plain_pod(override, keep_nulls=True)
        _name_first_container(copy, base)
        check_keys(copy)
    except pod_schema.WrongField as wrong:
        raise errors.InvalidOverride(f"pod override: {wrong}") from None
    return copy


def overlay(base: Entry, override: Entry) -> Entry:
    """`base` with `override` laid over it; both must be plain copies, which are used up."""
    return _merge_mapping(base, override, "Pod")


def _merge_mapping(base: Entry, override: Entry, kind: str) -> Entry:
    """One object of the schema, field by field, into `base`."""
    fields = pod_schema.types()[kind]
    for field, value in override.items():
        if value is None:
            base.pop(field, None)
        elif not _is_empty(value):
            merged = _merge_field(base.get(field), value, of=(kind, field), kind=fields[field])
            # A merge that adds nothing leaves no empty mapping behind: `spec:
            # {affinity: {}}` would be shown as if somebody had said it.
            if field in base or not _is_empty(merged):
                base[field] = merged
    return base


def _merge_field(base: Any, value: Any, *, of: tuple[str, str], kind: str) -> Any:
    """One field that is set, by its rule, or else by its shape."""
    rule = _RULES.get(of)
    if rule is not None:
        return rule(base, value)
    if kind[0] == "{":
        return _merge_free(base, value)
    if kind in pod_schema.types():
        return _merge_mapping(base or {}, value, kind)
    return value


def _merge_free(base: Entry | None, override: Entry, *, empty_counts: bool = False) -> Entry:
    """A mapping whose keys are the author's, such as labels."""
    merged = base or {}
    for key, value in override.items():
        if value is None:
            merged.pop(key, None)
        elif empty_counts or not _is_empty(value):
            merged[key] = value
    return merged


def _merge_texts(base: Entry | None, override: Entry) -> Entry:
    """A mapping in which an empty text is a value."""
    return _merge_free(base, override, empty_counts=True)


def _merge_containers(base: list[Entry] | None, override: list[Entry]) -> list[Entry]:
    """Containers by name, field by field; new ones after the old."""
    merged = base or []
    for entry in override:
        found = next((container for container in merged if container.get("name") == entry["name"]), None)
        if found is None:
            # Laid over an empty one instead of taken as it is, so that nulls in it vanish by the same rule.
            found = {}
            merged.append(found)
        _merge_mapping(found, entry, "Container")
    return merged


def _replace_by_key(base: list[Entry] | None, override: list[Entry], *, key: tuple[str, ...]) -> list[Entry]:
    """Entries replaced whole where the fields of the key are the same, in the order of the base; new ones after them.

    Where the override repeats a key, its last entry wins, as for the kubelet; the base's repetitions go with the first.
    """
    new = {_key_of(entry, key): entry for entry in override}
    merged: list[Entry] = []
    placed: set[object] = set()
    for entry in base or []:
        name = _key_of(entry, key)
        if name not in new:
            merged.append(entry)
        elif name not in placed:
            merged.append(new[name])
            placed.add(name)
    return merged + [entry for name, entry in new.items() if name not in placed]


def _append(base: list[Any] | None, override: list[Any]) -> list[Any]:
    """Entries of both, the override's only where no equal one stands before."""
    merged = base or []
    for entry in override:
        if entry not in merged:
            merged.append(entry)
    return merged


def _replace(base: Any, override: Any) -> Any:
    """The override as it is: half of an old affinity and half of a new one is a rule that nobody wrote."""
    return override


def _is_empty(value: Any) -> bool:
    return value in ("", [], {})


def _key_of(entry: Entry, key: tuple[str, ...]) -> tuple[object, ...]:
    # A port's protocol is TCP where it is not written: `8080` and `8080/TCP` are one port for the API server.
    return tuple(entry.get(field) or _DEFAULTS.get(field) for field in key)


_DEFAULTS = {"protocol": "TCP"}


_RULES: Mapping[tuple[str, str], Callable[[Any, Any], Any]] = {
    ("ObjectMeta", "labels"): _merge_texts,
    ("ObjectMeta", "annotations"): _merge_texts,
    ("ObjectMeta", "finalizers"): _append,
    ("ObjectMeta", "ownerReferences"): _append,
    ("PodSpec", "nodeSelector"): _merge_texts,  # its values are values of the node's labels
    ("PodSpec", "containers"): _merge_containers,
    ("PodSpec", "initContainers"): _merge_containers,
    ("PodSpec", "volumes"): partial(_replace_by_key, key=("name",)),
    ("PodSpec", "affinity"): _replace,
    ("PodSpec", "dnsConfig"): _replace,
    ("Container", "env"): partial(_replace_by_key, key=("name",)),
    ("Container", "envFrom"): _append,
    ("Container", "ports"): partial(_replace_by_key, key=("containerPort", "protocol")),
    ("Container", "volumeMounts"): partial(_replace_by_key, key=("mountPath",)),
    ("Container", "volumeDevices"): partial(_replace_by_key, key=("devicePath",)),
    ("Container", "lifecycle"): _replace,
    ("Container", "livenessProbe"): _replace,
    ("Container", "readinessProbe"): _replace,
    ("Container", "startupProbe"): _replace,
}
"""(type, field) -> how its two sides become one. The base may be None, the override is set."""

_REQUIRED = {
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
}
"""Lists that are merged by a key, and the key that each entry must have."""


def _name_first_container(override: Entry, base: str) -> None:
    """An override container without a name, first in its list, is the task container."""
    containers = (override.get("spec") or {}).get("containers") or []
    if containers and not containers[0].get("name"):
        containers[0] = {**containers[0], "name": base}


def wrong_key(override: Entry) -> pod_schema.WrongField | None:
    """What is wrong with the first entry that lacks the key by which it is merged; None where all have theirs."""
    return next(_wrong_keys(override), None)


def check_keys(override: Entry) -> None:
    """Every entry that is merged by a key must have it; raises WrongField."""
    if wrong := wrong_key(override):
        raise wrong


def _wrong_keys(override: Entry) -> Iterator[pod_schema.WrongField]:
    spec = override.get("spec") or {}
    yield from _wrong_entries(spec, "volumes", ("spec",))
    for field, index, container in _containers(spec):
        path = ("spec", field, index)
        if not container.get("name"):
            yield pod_schema.WrongField((*path, "name"), "is missing; containers are matched by name")
        for keyed in ("env", "volumeMounts", "volumeDevices", "ports"):
            yield from _wrong_entries(container, keyed, path)


def _containers(spec: Entry) -> Iterator[tuple[str, int, Entry]]:
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or []):
            yield field, index, container


def _wrong_entries(holder: Entry, field: str, path: pod_schema.Path) -> Iterator[pod_schema.WrongField]:
    key = _REQUIRED[field]
    for index, entry in enumerate(holder.get(field) or []):
        value = entry.get(key)
        if value is None or value == "":
            yield pod_schema.WrongField((*path, field, index, key), f"is missing; entries are matched by {key}")
