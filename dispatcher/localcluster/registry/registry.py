"""The registry: what an API server decides about creating, changing and deleting objects. Speaks no HTTP, runs no pod.

Every rule is Kubernetes'; where this cluster is narrower, `docs/local-cluster.md` says so. The kubelet is notified of
pods through `Hooks` and writes back through `set_status` and `finish_deletion`.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dispatcher.localcluster.objects import causes, conditions, refusal, resources, store, times
from dispatcher.localcluster.registry import admission, changes, forms, pod_defaults

Json = dict[str, Any]
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_FINAL_PHASES = frozenset({"Succeeded", "Failed"})
_KEPT_METADATA = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "generateName",
)
_PROTECTED_NAMESPACES = frozenset({"default", "kube-public", "kube-system"})
FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


@dataclass(kw_only=True)
class Hooks:
    """Who else must know. Set once, by the wiring."""

    pod_created: Callable[[store.Snapshot], None] = lambda snapshot: None
    pod_deleting: Callable[[store.Snapshot, int], None] = lambda snapshot, grace_s: None
    pod_gone: Callable[[store.Snapshot], None] = lambda snapshot: None
    dependents_changed: Callable[[set[tuple[str, str, str]]], None] = lambda keys: None
    """Plural, namespace and name of objects of which an owner went, or was never there."""
    namespace_deleting: Callable[[str], None] = lambda name: None


@dataclass(frozen=True, kw_only=True)
class DeleteOptions:
    """What a delete request says beside the name."""

    grace_s: int | None = None
    uid: str | None = None
    version: str | None = None
    orphan: bool = False
    """What the object owns stays, without that owner."""
    dry_run: bool = False


class Registry:
    """The rules over one store."""

    def __init__(self, objects: store.Store, *, now: Callable[[], datetime] = times.now) -> None:
        self.store = objects
        self.hooks = Hooks()
        self._now = now
        for name in FIRST_NAMESPACES:
            self.create(resources.NAMESPACES, "", {"metadata": {"name": name}})

    def get(self, resource: resources.Resource, namespace: str, name: str) -> store.Snapshot:
        """One object; raises Refusal 404."""
        found = self.store.get(resource, namespace, name)
        if found is None:
            raise refusal.not_found(resource.qualified, name)
        return found

    # --- create ---

    def create(
        self, resource: resources.Resource, namespace: str, thing: Json, *, dry_run: bool = False
    ) -> store.Snapshot:
        """Creates an object; raises Refusal 400, 403, 404, 405, 409 or 422."""
        if resource.is_only_checked and not dry_run:
            raise refusal.only_checked(resource.kind)
        # Null means not set, as for a real server; it is not stored.
        thing = forms.without_nulls(thing)
        forms.check_address(resource, namespace, thing)
        self._name(resource, namespace, thing)
        forms.fill(resource, thing, now=self._now())
        forms.check(resource, thing)
        name = thing["metadata"]["name"]
        if resource.namespaced:
            admission.check_namespace(self.store, resource, namespace, name)
        # After the checks: an invalid object is told what is wrong with it, though its name is taken.
        if self.store.get(resource, namespace, name) is not None:
            raise refusal.already_exists(resource.qualified, name)
        if resource.namespaced:
            admission.admit(self.store, resource, namespace, thing)
        if dry_run:
            return self.store.preview(thing)
        created = self.store.put(resource, thing)
        # An owner that is gone already: garbage collection must find what came after it.
        if any(not self.store.is_known(uid) for uid in created.owners):
            self.hooks.dependents_changed({(resource.plural, created.namespace, created.name)})
        if resource is resources.PODS:
            self.hooks.pod_created(created)
        elif resource is resources.NAMESPACES:
            # A real controller makes it a moment later; creates in between are refused there.
            account = {"metadata": {"name": "default"}}
            self.create(resources.SERVICE_ACCOUNTS, name, account)
        return created

    def _name(self, resource: resources.Resource, namespace: str, thing: Json) -> None:
        metadata = thing.setdefault("metadata", {})
        stem = metadata.get("generateName")
        while stem and not metadata.get("name"):
            name = stem[:58] + "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))
            if self.store.get(resource, namespace, name) is None:
                metadata["name"] = name
        metadata["name"] = metadata.get("name", "")
        if resource.namespaced:
            metadata["namespace"] = namespace

    # --- change ---

    def update(
        self,
        resource: resources.Resource,
        before: store.Snapshot,
        thing: Json,
        *,
        subresource: str = "",
        is_patch: bool = False,
        dry_run: bool = False,
    ) -> store.Snapshot:
        """Replaces an object, or its status; raises Refusal 400, 409 or 422."""
        thing = forms.without_nulls(thing)
        forms.check_types(resource, thing)
        old = before.read()
        self._check_identity(resource, before, thing, is_patch=is_patch)
        metadata = thing.setdefault("metadata", {})
        metadata.pop("managedFields", None)
        for key in _KEPT_METADATA:
            metadata.pop(key, None)
            if key in old["metadata"]:
                metadata[key] = old["metadata"][key]
        if subresource == "status":
            new = old | {"metadata": metadata, "status": thing.get("status", {})}
        else:
            content = {key: value for key, value in thing.items() if key not in forms.HEAD}
            new = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata, **content}
            if "status" in old:
                new["status"] = old["status"]
            if resource is resources.SECRETS:
                forms.encode_strings(new)
        forms.check(resource, new)
        changes.check(resource, old, new)
        if dry_run:
            new["metadata"]["resourceVersion"] = str(before.version)
            return self.store.preview(new)
        return self._put(resource, before, new)

    def set_status(self, before: store.Snapshot, status: Json) -> store.Snapshot:
        """For the kubelet: replaces a pod's status as it is."""
        return self.store.put(resources.PODS, before.read() | {"status": status})

    def disrupt(self, before: store.Snapshot, reason: str, message: str) -> store.Snapshot:
        """For the control plane: says on a pod that it is about to end for no fault of its own."""
        disruption = conditions.disruption(reason, message)
        return self.set_status(before, conditions.with_condition(before.read()["status"], disruption, now=self._now()))

    def bind(self, before: store.Snapshot, node: str, status: Json) -> store.Snapshot:
        """For the scheduler: puts a pod on a node."""
        pod = before.read()
        pod["spec"]["nodeName"] = node
        return self.store.put(resources.PODS, pod | {"status": status})

    def _check_identity(
        self, resource: resources.Resource, before: store.Snapshot, thing: Json, *, is_patch: bool
    ) -> None:
        """The uid is a precondition of a replacement (409), and a field that a patch must not change (422)."""
        metadata = thing.get("metadata") or {}
        name = metadata.get("name", before.name)
        if name != before.name:
            raise refusal.bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({before.name})"
            )
        is_another = metadata.get("uid", before.uid) != before.uid
        if is_another and not is_patch:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before.uid}"
            raise refusal.conflict(resource.qualified, before.name, why)
        if metadata.get("resourceVersion", "") not in {"", str(before.version)}:
            raise refusal.modified(resource.qualified, before.name)
        if is_another:
            wrong = causes.invalid("metadata.uid", metadata["uid"], "field is immutable")
            raise refusal.invalid(resource.qualified_kind, before.name, [wrong])

    def _put(self, resource: resources.Resource, before: store.Snapshot, new: Json) -> store.Snapshot:
        """Stores a change; the last finalizer of an object that waits for nothing else takes it away."""
        metadata = new["metadata"]
        waits = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
        held = bool((before.read()["metadata"]).get("finalizers"))
        # Only what a finalizer held goes by a change; a pod that the kubelet still ends goes by `finish_deletion`.
        if "deletionTimestamp" in metadata and held and not waits:
            return self._remove(resource, self.store.put(resource, new))
        return self.store.put(resource, new)

    # --- delete ---

    def delete(self, resource: resources.Resource, before: store.Snapshot, options: DeleteOptions) -> store.Snapshot:
        """Deletes an object, or begins to; raises Refusal 403 or 409. The answer is its last or latest state."""
        _check_preconditions(resource, before, options)
        if resource is resources.NAMESPACES and before.name in _PROTECTED_NAMESPACES:
            raise refusal.forbidden("namespaces", before.name, "this namespace may not be deleted")
        if options.dry_run:
            return before
        if options.orphan:
            self._orphan(before.uid)
        if resource is resources.PODS:
            return self._delete_pod(before, options)
        if resource is resources.NAMESPACES:
            return self._delete_namespace(before)
        thing = before.read()
        if thing["metadata"].get("finalizers"):
            return self._mark(resource, thing, grace_s=0)
        return self._remove(resource, before)

    def _orphan(self, uid: str) -> None:
        for plural, namespace, name in self.store.owned_by(uid):
            resource = resources.BY_PLURAL[plural]
            thing = self.get(resource, namespace, name).read()
            references = thing["metadata"]["ownerReferences"]
            thing["metadata"]["ownerReferences"] = [one for one in references if one["uid"] != uid]
            self.store.put(resource, thing)

    def _delete_pod(self, before: store.Snapshot, options: DeleteOptions) -> store.Snapshot:
        pod = before.read()
        grace_s = pod["spec"].get("terminationGracePeriodSeconds", pod_defaults.GRACE_S)
        if options.grace_s is not None:
            grace_s = options.grace_s
        # Nobody has to end it: it has no node, or has ended.
        if not pod["spec"].get("nodeName") or pod["status"].get("phase") in _FINAL_PHASES:
            grace_s = 0
        if grace_s < 0:  # accepted, and as short as can be
            grace_s = 1
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            old_s = metadata.get("deletionGracePeriodSeconds", 0)
            # A second delete may hurry the end, never delay it; with 0 left the containers have ended, and it goes.
            if grace_s >= old_s and old_s:
                return before
        marked = self._mark(resources.PODS, pod, grace_s=grace_s)
        if grace_s or metadata.get("finalizers"):
            self.hooks.pod_deleting(marked, grace_s)
            return marked
        return self._remove(resources.PODS, marked)

    def _mark(self, resource: resources.Resource, thing: Json, *, grace_s: int) -> store.Snapshot:
        """Sets the deletion time; a shorter grace period moves it earlier, never later."""
        metadata = thing["metadata"]
        end = self._now() + timedelta(seconds=grace_s)
        if "deletionTimestamp" in metadata:
            end = min(end, times.read(metadata["deletionTimestamp"]))
        metadata["deletionTimestamp"] = times.write(end)
        metadata["deletionGracePeriodSeconds"] = grace_s
        return self.store.put(resource, thing)

    def finish_deletion(self, before: store.Snapshot) -> None:
        """For the kubelet: all containers of a deleted pod have ended."""
        self._delete_pod(before, DeleteOptions(grace_s=0))

    def _delete_namespace(self, before: store.Snapshot) -> store.Snapshot:
        namespace = before.read()
        if "deletionTimestamp" in namespace["metadata"]:
            return before
        namespace["metadata"]["deletionTimestamp"] = times.write(self._now())
        namespace["status"] = {"phase": "Terminating"}
        marked = self.store.put(resources.NAMESPACES, namespace)
        self.hooks.namespace_deleting(before.name)
        return marked

    def finish_namespace(self, name: str) -> bool:
        """For the namespace controller: deletes what is left; True once all of it, and the namespace, is gone."""
        left = 0
        for resource in resources.ALL:
            if resource.namespaced:
                found = self.store.list(store.Match(resource=resource, namespace=name))
                for snapshot in found:
                    self.delete(resource, snapshot, DeleteOptions())
                left += len(self.store.list(store.Match(resource=resource, namespace=name)))
        namespace = self.store.get(resources.NAMESPACES, "", name)
        if not left and namespace is not None:
            self.store.remove(resources.NAMESPACES, namespace)
        return not left

    def _remove(self, resource: resources.Resource, before: store.Snapshot) -> store.Snapshot:
        last = self.store.remove(resource, before)
        if resource is resources.PODS:
            self.hooks.pod_gone(last)
        owned = self.store.owned_by(last.uid)
        if owned:
            self.hooks.dependents_changed(owned)
        return last


def _check_preconditions(resource: resources.Resource, before: store.Snapshot, options: DeleteOptions) -> None:
    if options.uid is not None and options.uid != before.uid:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({before.uid}). "
            "The object might have been deleted and then recreated"
        )
        raise refusal.conflict(resource.qualified, before.name, why)
    if options.version is not None and options.version != str(before.version):
        why = (
            f"the ResourceVersion in the precondition ({options.version}) does not match the ResourceVersion in "
            f"record ({before.version}). The object might have been modified"
        )
        raise refusal.conflict(resource.qualified, before.name, why)
