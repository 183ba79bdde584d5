"""Slots: the pods of this dispatcher that are in flight, as the cluster shows them, and the creates under way.

Fed by the watch and corrected by every list, so nothing that is not in the cluster is counted for long, and everything
that is there counts until it has finished or is gone: adopted pods, killed ones in their grace period, pods that nobody
has adopted yet. An entry is a pod's name, not a number: counting twice is not possible. On the loop's thread.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.attempts import limits
from dispatcher.manifests import labels

_FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(kw_only=True)
class _Slot:
    """One pod. `since_mono_s` is infinite while its create is under way, else when it was known to exist."""

    queue: str
    since_mono_s: float
    uid: str | None = None


class Slots:
    """Counts by key (`limits`). `freed` counts how often a slot became free."""

    def __init__(self) -> None:
        self.freed = 0
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._by_key: dict[str, set[tuple[str, str]]] = {}

    def count(self, key: str) -> int:
        """Pods of that key in flight."""
        return len(self._by_key.get(key, ()))

    def used(self) -> dict[str, int]:
        """The same for every key that has any."""
        return {key: len(pods) for key, pods in self._by_key.items() if pods}

    def has(self, namespace: str, pod: str) -> bool:
        """Whether a pod of this name counts already."""
        return (namespace, pod) in self._slots

    def begin(self, namespace: str, pod: str, queue: str) -> None:
        """A create is about to be sent."""
        self._put((namespace, pod), _Slot(queue=queue, since_mono_s=math.inf))

    def created(self, namespace: str, pod: str, queue: str, *, uid: str, now_mono_s: float) -> None:
        """It was answered: the pod is there."""
        slot = self._slots.get((namespace, pod))
        if slot is None:
            self._put((namespace, pod), _Slot(queue=queue, since_mono_s=now_mono_s, uid=uid))
        else:
            slot.uid, slot.since_mono_s = uid, now_mono_s

    def release(self, namespace: str, pod: str) -> None:
        """No pod was made. One that the watch has seen goes on counting."""
        slot = self._slots.get((namespace, pod))
        # With a uid the watch or an answer has shown it: the failure that ends the create is not the whole truth.
        if slot is not None and slot.uid is None:
            self._drop((namespace, pod))

    def see(self, pod: Mapping[str, Any], kind: str, *, now_mono_s: float) -> None:
        """An event of the watch, or a pod of a list."""
        metadata = pod["metadata"]
        name, uid = (metadata["namespace"], metadata["name"]), metadata.get("uid")
        slot = self._slots.get(name)
        if kind == "DELETED" or (pod.get("status") or {}).get("phase") in _FINISHED:
            # By uid: the end of an earlier pod of this name comes late and must not free the slot of the next one.
            if slot is not None and slot.uid == uid:
                self._drop(name)
        elif slot is None:
            queue = (metadata.get("annotations") or {}).get(labels.QUEUE_ANNOTATION)
            # W7: without our annotation it is no pod of ours, whatever labels it has.
            if queue is not None:
                self._put(name, _Slot(queue=queue, since_mono_s=now_mono_s, uid=uid))
        elif slot.uid is None:
            slot.uid = uid

    def sync(self, namespace: str, pods: Collection[str], *, asked_mono_s: float) -> None:
        """What a list of a namespace lacks, though it was there before the list was asked for, is gone."""
        # A create under way has no beginning yet (infinite), so no list can lack it.
        gone = [name for name, slot in self._slots.items() if name[0] == namespace and slot.since_mono_s < asked_mono_s]
        for name in gone:
            if name[1] not in pods:
                self._drop(name)

    def _put(self, name: tuple[str, str], slot: _Slot) -> None:
        # One slot takes another's place: none became free, and nobody need be woken.
        freed = self.freed
        self._drop(name)
        self.freed = freed
        self._slots[name] = slot
        for key in limits.keys(slot.queue, name[0]):
            self._by_key.setdefault(key, set()).add(name)

    def _drop(self, name: tuple[str, str]) -> None:
        slot = self._slots.pop(name, None)
        if slot is None:
            return
        for key in limits.keys(slot.queue, name[0]):
            self._by_key[key].discard(name)
            if not self._by_key[key]:
                del self._by_key[key]
        self.freed += 1
