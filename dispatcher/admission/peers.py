"""Peers: what a dispatcher knows of the others of its deployment, and what it plans from that. Pure; time is given.

Known are their entries in the shared ConfigMap, since when each of them stands still, and their pods as the cluster
last listed them. An entry that stands still for long is that of a dispatcher that is gone: once its pods were counted,
only they keep slots from the living.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher.admission import fair_share
from dispatcher.admission.fair_share import Entry, Grant, Need
from dispatcher.attempts import limits
from dispatcher.manifests import labels

_FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one turn decided."""

    entry: Entry
    """What the dispatcher says of itself."""
    grants: Mapping[str, Grant] = field(default_factory=dict)
    """By key; none where it is alone."""
    gone: tuple[str, ...] = ()
    """Dispatchers that are gone with all their pods: their entries are removed."""

    @property
    def is_alone(self) -> bool:
        """Whether it holds everything."""
        return self.entry.shares is None

    @property
    def is_short(self) -> bool:
        """Whether slots that are due are still held by others."""
        return any(one.is_short for one in self.grants.values())

    def lowered(self, to: "Plan") -> "Plan":
        """What holds while `to` is being written: of each limit the smaller part."""
        # Neither plan holds for certain while the write is under way: it may be refused, or its answer lost.
        if to.is_alone:
            return self
        if self.is_alone:
            return to
        grants = {
            key: Grant(share=one.share, allowed=min(one.allowed, self.grants[key].allowed))
            # A key that is new in `to` is left out: nothing is created by it before it was written.
            for key, one in to.grants.items()
            if key in self.grants
        }
        return Plan(entry=to.entry, grants=grants)


class Peers:
    """The others, as the dispatcher `me` sees them."""

    def __init__(self, me: str, *, gone_s: float) -> None:
        """`gone_s`: whose entry stands still for longer is gone."""
        self._me = me
        self._gone_s = gone_s
        self._beats: dict[str, tuple[int, float]] = {}
        """Dispatcher -> its last beat, and when it was seen to change."""
        self._pods: dict[str, Counter[str]] = {}
        """Dispatcher -> pods by key, at the last look into the cluster."""
        self._looked_mono_s = float("-inf")

    def saw(self, pods: Iterable[Mapping[str, Any]], *, asked_mono_s: float) -> None:
        """The pods of all other owners, as the cluster listed them when asked at that time."""
        found: dict[str, Counter[str]] = {}
        for pod in pods:
            metadata = pod["metadata"]
            queue = (metadata.get("annotations") or {}).get(labels.QUEUE_ANNOTATION)
            # As ResourceQuota counts: a pod that has ended takes nothing from its node.
            if queue is not None and (pod.get("status") or {}).get("phase") not in _FINISHED:
                owner = str((metadata.get("labels") or {}).get(labels.OWNER_LABEL, ""))
                found.setdefault(owner, Counter()).update(limits.keys(queue, metadata["namespace"]))
        self._pods, self._looked_mono_s = found, asked_mono_s

    def pods(self, key: str) -> int:
        """Their pods of a key, at the last look."""
        return sum(pods[key] for pods in self._pods.values())

    def plan(
        self, entries: Mapping[str, Entry], needs: Mapping[str, tuple[int, Need]], *, beat: int, now_mono_s: float
    ) -> Plan:
        """What `me` writes next. `entries` are those of all, `needs` give limit and need of each limited key."""
        others = {name: entry for name, entry in entries.items() if name != self._me}
        self._beats = {name: self._beat_of(name, entry, now_mono_s) for name, entry in others.items()}
        dead = {name for name, (_, at) in self._beats.items() if now_mono_s - at > self._gone_s}
        # Its entry is removed only behind a list that was asked for after its
        # end: until then it may have pods nobody saw.
        over = {name for name in dead if self._is_counted_since_its_end(name) and not self._pods.get(name)}
        used = {key: need.used for key, (_, need) in needs.items() if need.used}
        # Alone needs both: no entry of anybody who lives, and no pod of one without an entry.
        if others.keys() == over and not any(self._pods.values()):
            return Plan(entry=Entry(beat=beat, shares=None, used=used), gone=tuple(over))
        grants = {key: self._grant(key, limit, need, others, dead) for key, (limit, need) in needs.items()}
        waiting = {key: need for key, (_, need) in needs.items() if need.waits}
        entry = Entry(
            beat=beat,
            shares={key: one.share for key, one in grants.items() if one.share},
            used=used,
            waits={key: need.waits for key, need in waiting.items()},
            oldest_s={key: round(need.oldest_s, 1) for key, need in waiting.items()},
        )
        return Plan(entry=entry, grants=grants, gone=tuple(over))

    def _grant(self, key: str, limit: int, need: Need, others: Mapping[str, Entry], dead: set[str]) -> Grant:
        living = {name: entry for name, entry in others.items() if name not in dead}
        held = {name: entry.held(key, limit) for name, entry in living.items()}
        if dead:  # pods change hands: who has taken some over counts with what the cluster shows
            held = {name: max(count, self._pods_of(name)[key]) for name, count in held.items()}
        lost = sum(self._left_of(name, key, limit, others[name]) for name in dead)
        # Of dispatchers without an entry: it was removed by hand, or they may not write one.
        lost += sum(pods[key] for name, pods in self._pods.items() if name not in others)
        needs = {self._me: need, **{name: entry.need(key) for name, entry in living.items()}}
        return fair_share.grant(self._me, needs, limit=limit, held=sum(held.values()), lost=lost)

    def _left_of(self, name: str, key: str, limit: int, entry: Entry) -> int:
        """What a dispatcher that is gone keeps from the others: its pods, once they were counted."""
        return self._pods_of(name)[key] if self._is_counted_since_its_end(name) else entry.held(key, limit)

    def _is_counted_since_its_end(self, name: str) -> bool:
        return self._looked_mono_s > self._beats[name][1] + self._gone_s

    def _pods_of(self, name: str) -> Counter[str]:
        return self._pods.get(name, Counter())

    def _beat_of(self, name: str, entry: Entry, now_mono_s: float) -> tuple[int, float]:
        known = self._beats.get(name)
        # That it changed is what counts, seen by our own clock: a time in the entry would be of another machine's.
        return known if known is not None and known[0] == entry.beat else (entry.beat, now_mono_s)
