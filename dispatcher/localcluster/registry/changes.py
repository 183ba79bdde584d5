"""What may not change in an object that exists: old, new -> Refusal 422. Pure.

https://kubernetes.io/docs/concepts/workloads/pods/#pod-update-and-replacement
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from dispatcher.localcluster.objects import causes, refusal, resources
from dispatcher.localcluster.objects.refusal import Cause

Json = dict[str, Any]
_POD_WORDS = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
    "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative)"
)


def check(resource: resources.Resource, old: Json, new: Json) -> None:
    """Raises Refusal 422 that names the fields."""
    found = [*_finalizers(old, new), *_by_kind(resource, old, new)]
    if found:
        raise refusal.invalid(resource.qualified_kind, old["metadata"]["name"], found)


def _finalizers(old: Json, new: Json) -> Iterator[Cause]:
    if "deletionTimestamp" in old["metadata"]:
        added = set(new["metadata"].get("finalizers") or []) - set(old["metadata"].get("finalizers") or [])
        if added:
            words = "no new finalizers can be added if the object is being deleted, found new finalizers "
            yield causes.forbidden("metadata.finalizers", words + str(sorted(added)))


def _by_kind(resource: resources.Resource, old: Json, new: Json) -> Iterator[Cause]:
    if resource is resources.PODS:
        yield from _pod(old["spec"], new.get("spec", {}))
    elif resource in {resources.SECRETS, resources.CONFIGMAPS}:
        yield from _config(old, new)


def _pod(old: Json, new: Json) -> Iterator[Cause]:
    if _fixed(old) != _fixed(_with_old_grace(old, new)):
        yield causes.forbidden("spec", _POD_WORDS)
    kept = new.get("tolerations") or []
    if any(toleration not in kept for toleration in old.get("tolerations") or []):
        yield causes.forbidden(
            "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
        )
    before_s, after_s = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if before_s is not None and after_s is None:
        yield causes.invalid("spec.activeDeadlineSeconds", "", "must not update from a positive integer to nil value")
    elif before_s is not None and after_s is not None and after_s > before_s:
        words = "must be less than or equal to previous value"
        yield causes.invalid("spec.activeDeadlineSeconds", after_s, words)


def _with_old_grace(old: Json, new: Json) -> Json:
    """The new spec, with a grace period that may be set to 1 where it was negative taken as unchanged."""
    key = "terminationGracePeriodSeconds"
    may_change = old.get(key, 0) < 0 and new.get(key) == 1
    return new | {key: old[key]} if may_change else new


def _fixed(spec: Mapping[str, Any]) -> Json:
    # A deep copy: images are taken out of the containers, and the old spec is still needed.
    fixed = copy.deepcopy(
        {key: value for key, value in spec.items() if key not in {"activeDeadlineSeconds", "tolerations"}}
    )
    for group in ("containers", "initContainers"):
        for container in fixed.get(group) or []:
            container.pop("image", None)
    return fixed


def _config(old: Json, new: Json) -> Iterator[Cause]:
    if old.get("type") != new.get("type"):
        yield causes.invalid("type", new.get("type") or "", "field is immutable")
    if old.get("immutable"):
        words = "field is immutable when `immutable` is set"
        if not new.get("immutable"):
            yield causes.forbidden("immutable", words)
        for part in ("data", "binaryData"):
            if (old.get(part) or {}) != (new.get(part) or {}):
                yield causes.forbidden(part, words)
