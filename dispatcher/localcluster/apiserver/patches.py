"""The three patch languages: object, patch -> new object. Pure; the object given is not changed.

Merge patch (RFC 7396), JSON patch (RFC 6902) and strategic merge patch, the latter with the merge keys that pods need.
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from dispatcher.localcluster.objects import refusal

_MERGE_KEYS = {
    "conditions": "type",
    "containers": "name",
    "containerStatuses": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "podIPs": "ip",
    "hostIPs": "ip",
    "ports": "containerPort",
    "secrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_MERGED_VALUES = frozenset({"finalizers"})
_ABSENT = object()


def merge(thing: Any, patch: Any) -> Any:
    """A merge patch: null removes, mappings merge, all else replaces."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(thing) if isinstance(thing, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def strategic(thing: Any, patch: Any) -> Any:
    """A strategic merge patch: as a merge patch, but lists with a merge key merge by it."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    merged = dict(thing) if isinstance(thing, Mapping) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            merged[field] = [entry for entry in merged.get(field) or [] if entry not in value]
        elif key.startswith("$"):
            continue  # $setElementOrder, $retainKeys: an order that people see, no meaning
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _strategic_value(key, merged.get(key), value)
    return merged


def _strategic_value(key: str, old: Any, value: Any) -> Any:
    if isinstance(value, list) and key in _MERGED_VALUES:
        return list(dict.fromkeys([*(old or []), *value]))
    if isinstance(value, list) and key in _MERGE_KEYS:
        return _merge_list(old or [], value, merge_key=_MERGE_KEYS[key])
    return strategic(old, value)


def _merge_list(old: list[Any], patch: list[Any], *, merge_key: str) -> list[Any]:
    if any(isinstance(entry, Mapping) and entry.get("$patch") == "replace" for entry in patch):
        return [entry for entry in patch if entry.get("$patch") != "replace"]
    merged = {entry.get(merge_key): entry for entry in old}
    for entry in patch:
        if not isinstance(entry, Mapping) or merge_key not in entry:
            raise refusal.bad_request(f"a list entry of the patch has no {merge_key}, its merge key")
        if entry.get("$patch") == "delete":
            merged.pop(entry[merge_key], None)
        else:
            merged[entry[merge_key]] = strategic(merged.get(entry[merge_key], {}), entry)
    return list(merged.values())


def json_patch(thing: Any, operations: Any) -> Any:
    """A JSON patch; raises Refusal 422 where a test fails or a path leads nowhere."""
    if not isinstance(operations, list):
        raise refusal.bad_request("a JSON patch is a list of operations")
    patched = copy.deepcopy(thing)
    for operation in operations:
        if not isinstance(operation, Mapping) or operation.get("op") not in _OPERATIONS:
            raise refusal.bad_request(f"unknown JSON patch operation: {operation!r}")
        patched = _OPERATIONS[operation["op"]](patched, operation)
    return patched


def _refused(operation: Mapping[str, Any], why: str) -> refusal.Refusal:
    words = f"the server rejected our request due to an error in our request: {operation['op']} operation: {why}"
    return refusal.Refusal(422, "Invalid", words)


def _steps(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise refusal.bad_request(f"not a JSON pointer: {path!r}")
    # In this order, as RFC 6901 demands: `~01` is `~1` and no slash.
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _find(root: Any, operation: Mapping[str, Any], *, field: str = "path") -> tuple[Any, str]:
    """The parent of the place that the pointer names, and the last step."""
    steps = _steps(operation.get(field))
    if not steps:
        raise _refused(operation, "the whole document cannot be replaced")
    parent = root
    for step in steps[:-1]:
        parent = _child(parent, step)
        if parent is _ABSENT:
            raise _refused(operation, f"missing path: {operation.get(field)}")
    return parent, steps[-1]


def _child(parent: Any, step: str) -> Any:
    if isinstance(parent, dict):
        return parent.get(step, _ABSENT)
    if isinstance(parent, list) and step.isdigit() and int(step) < len(parent):
        return parent[int(step)]
    return _ABSENT


def _insert(root: Any, operation: Mapping[str, Any], value: Any) -> Any:
    parent, step = _find(root, operation)
    if isinstance(parent, dict):
        parent[step] = value
    elif isinstance(parent, list) and (step == "-" or (step.isdigit() and int(step) <= len(parent))):
        parent.insert(len(parent) if step == "-" else int(step), value)
    else:
        raise _refused(operation, f"missing path: {operation['path']}")
    return root


def _take(root: Any, operation: Mapping[str, Any], *, field: str = "path") -> Any:
    parent, step = _find(root, operation, field=field)
    value = _child(parent, step)
    if value is _ABSENT:
        raise _refused(operation, f"missing path: {operation.get(field)}")
    del parent[int(step) if isinstance(parent, list) else step]
    return value


def _value(operation: Mapping[str, Any]) -> Any:
    return copy.deepcopy(operation.get("value"))


def _remove(root: Any, operation: Mapping[str, Any]) -> Any:
    _take(root, operation)
    return root


def _replace(root: Any, operation: Mapping[str, Any]) -> Any:
    _take(root, operation)
    return _insert(root, operation, _value(operation))


def _move(root: Any, operation: Mapping[str, Any]) -> Any:
    return _insert(root, operation, _take(root, operation, field="from"))


def _copy(root: Any, operation: Mapping[str, Any]) -> Any:
    # Taken out of a copy, so that the original stays where it was.
    return _insert(root, operation, _take(copy.deepcopy(root), operation, field="from"))


def _test(root: Any, operation: Mapping[str, Any]) -> Any:
    parent, step = _find(root, operation)
    if _child(parent, step) != operation.get("value"):
        raise _refused(operation, f"testing path {operation.get('path')} value failed")
    return root


_OPERATIONS: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "add": lambda root, operation: _insert(root, operation, _value(operation)),
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
APPLY: Mapping[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": merge,
    "application/strategic-merge-patch+json": strategic,
    "application/json-patch+json": json_patch,
}
"""Content type -> how to apply the patch."""
