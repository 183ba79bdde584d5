"""The store: every object, one version counter for all of them, and the history that watches read. No rules.

Objects live as encoded JSON: an object is encoded once per change, whoever lists or watches it then gets those bytes,
and nobody can change what another one reads. Watches are positions in the history, not queues: a slow reader costs no
memory, and one that falls behind the history gets what a real cluster gives, 410 Expired. One event loop, no locks.
"""

import itertools
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dispatcher.localcluster.objects import notifier, refusal, resources, selectors

HISTORY_CHANGES = 10_000
HISTORY_BYTES = 32 * 1024 * 1024
"""Per resource, of encoded objects."""
Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One object at one version."""

    version: int
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    body: bytes
    owners: tuple[str, ...] = ()
    """The uids in its ownerReferences."""

    def read(self) -> Json:
        """A fresh copy, free to be changed."""
        copy: Json = _decode(self.body)
        return copy


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the history: `kind` is `ADDED`, `MODIFIED` or `DELETED`; `before` is None for the first."""

    kind: str
    after: Snapshot
    before: Snapshot | None


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a list or watch asks for. An empty `namespace` means all."""

    resource: resources.Resource
    namespace: str = ""
    labels: tuple[selectors.Requirement, ...] = ()
    fields: tuple[selectors.Requirement, ...] = ()

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether the object is asked for."""
        if self.namespace and snapshot.namespace != self.namespace:
            return False
        if not all(clause.holds(snapshot.labels) for clause in self.labels):
            return False
        return selectors.fields_hold(self.fields, lambda: self.resource.fields(snapshot.read()))


class Collection:
    """All objects of one resource, and how they came to be."""

    def __init__(self, *, history_changes: int, version: int) -> None:
        self.objects: dict[tuple[str, str], Snapshot] = {}
        self.changed = notifier.Notifier()
        self.forgotten = version
        """The newest version that can no longer be replayed: a watch must start here or later."""
        self._limit = history_changes
        self._changes: list[Change] = []
        self._versions: list[int] = []
        self._bytes = 0

    def record(self, change: Change) -> None:
        """Appends a step, forgets what exceeds the limits, wakes the watches."""
        key = (change.after.namespace, change.after.name)
        if change.kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = change.after
        self._changes.append(change)
        self._versions.append(change.after.version)
        self._bytes += len(change.after.body)
        # A quarter more than the limit, then all of it at once: cutting a list costs its length.
        if len(self._changes) > self._limit * 1.25 or self._bytes > HISTORY_BYTES:
            self.forget(keep=min(self._limit, len(self._changes) * 3 // 4))
        self.changed.notify()

    def forget(self, *, keep: int) -> None:
        """Drops all but the newest `keep` steps."""
        gone = len(self._changes) - keep
        if gone > 0:
            self.forgotten = self._versions[gone - 1]
            del self._changes[:gone], self._versions[:gone]
            self._bytes = sum(len(change.after.body) for change in self._changes)

    def since(self, version: int) -> Iterator[Change]:
        """The steps after `version`; raises Refusal 410 when some of them are forgotten."""
        if version < self.forgotten:
            raise refusal.expired(version, self.forgotten)
        return itertools.islice(self._changes, bisect_right(self._versions, version), None)


class Store:
    """All collections under one version counter.

    The counter starts at the time of day in microseconds, faster than any changes can come, so that a version of an
    earlier life of this cluster is older than all that this one knows, and is answered with 410.
    """

    def __init__(self, *, history_changes: int = HISTORY_CHANGES) -> None:
        self.version = int(time.time() * 1_000_000)
        self._uids: set[str] = set()
        self._owned: dict[str, set[tuple[str, str, str]]] = {}
        self.collections = {
            resource.plural: Collection(history_changes=history_changes, version=self.version)
            for resource in resources.ALL
        }

    def expire(self) -> None:
        """Forgets the history of everything: each version so far is too old from now on."""
        self.version += 1
        for collection in self.collections.values():
            collection.forget(keep=0)
            collection.forgotten = self.version
            collection.changed.notify()

    def of(self, resource: resources.Resource) -> Collection:
        """The collection of one resource."""
        return self.collections[resource.plural]

    def get(self, resource: resources.Resource, namespace: str, name: str) -> Snapshot | None:
        """One object, or None."""
        return self.of(resource).objects.get((namespace, name))

    def put(self, resource: resources.Resource, thing: Json) -> Snapshot:
        """Creates or replaces an object under the next version; writing what is there already changes nothing."""
        metadata = thing["metadata"]
        collection = self.of(resource)
        before = collection.objects.get((metadata.get("namespace", ""), metadata["name"]))
        if before is not None:
            # As etcd: a write that changes nothing makes no version, and wakes no watch.
            metadata["resourceVersion"] = str(before.version)
            if _encode(thing) == before.body:
                return before
        after = self._next(thing)
        self._uids.add(after.uid)
        self._own(resource, before, after)
        collection.record(Change("MODIFIED" if before else "ADDED", after, before))
        return after

    def preview(self, thing: Json) -> Snapshot:
        """The object as it would be stored; nothing is."""
        return _snapshot(thing, int(thing["metadata"].get("resourceVersion") or 0))

    def is_known(self, uid: str) -> bool:
        """Whether an object of this uid exists."""
        return uid in self._uids

    def owned_by(self, uid: str) -> set[tuple[str, str, str]]:
        """What names the uid as an owner: plural, namespace and name of each."""
        return set(self._owned.get(uid, ()))

    def _own(self, resource: resources.Resource, before: Snapshot | None, after: Snapshot | None) -> None:
        """Keeps account of who owns an object."""
        key_of = after or before
        old, new = (before.owners if before else ()), (after.owners if after else ())
        if old == new or key_of is None:
            return
        key = (resource.plural, key_of.namespace, key_of.name)
        for uid in old:
            self._owned.get(uid, set()).discard(key)
            if not self._owned.get(uid):
                self._owned.pop(uid, None)
        for uid in new:
            self._owned.setdefault(uid, set()).add(key)

    def remove(self, resource: resources.Resource, before: Snapshot) -> Snapshot:
        """Deletes an object; its last state gets a version of its own."""
        after = self._next(before.read())
        self._uids.discard(before.uid)
        self._own(resource, before, None)
        self.of(resource).record(Change("DELETED", after, before))
        return after

    def list(self, match: Match) -> list[Snapshot]:
        """All objects that match now, by namespace and name."""
        objects = self.of(match.resource).objects
        return [objects[key] for key in sorted(objects) if match.holds(objects[key])]

    def _next(self, thing: Json) -> Snapshot:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        return _snapshot(thing, self.version)


def _snapshot(thing: Json, version: int) -> Snapshot:
    metadata = thing["metadata"]
    return Snapshot(
        version=version,
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        labels=metadata.get("labels") or {},
        body=_encode(thing),
        owners=tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
    )


def watch_event(change: Change, match: Match) -> tuple[str, bytes] | None:
    """What a watch sees of a change: its type and the object, or None. An object that leaves a selector is DELETED."""
    now = match.holds(change.after)
    if change.kind != "MODIFIED":
        return (change.kind, change.after.body) if now else None
    was = change.before is not None and match.holds(change.before)
    if now:
        return ("MODIFIED" if was else "ADDED", change.after.body)
    if was and change.before is not None:
        # The object as it last matched, but under the version of the change: so a client resumes after it, not before.
        last = change.before.read()
        last["metadata"]["resourceVersion"] = str(change.after.version)
        return "DELETED", _encode(last)
    return None


Render = Callable[[str, bytes], bytes]
"""Type and object of an event -> the line that is sent."""


def render_json(kind: str, body: bytes) -> bytes:
    """The plain form of a watch event."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)
