"""What is remembered of the pods in the cluster beside the attempts: which are done with, and when they were listed.

Bounded whatever happens: a uid is forgotten when the pod's deletion is seen, when a list that was asked for after it
was closed lacks it, and at last when there are too many. On the loop's thread.
"""

from collections.abc import Collection
from dataclasses import dataclass

MOST_CLOSED = 50_000
"""uids kept at the most; the ones that were closed the longest ago are forgotten first."""


@dataclass(frozen=True, kw_only=True)
class _Closed:
    namespace: str
    at_mono_s: float
    is_requeued: bool
    """Its message was requeued: its name is needed again."""


class SeenPods:
    """One dispatcher's memory."""

    def __init__(self) -> None:
        self._closed: dict[str, _Closed] = {}
        self._listed_mono_s: dict[str, float] = {}
        self.watched: dict[str, str | None] = {}
        """Namespace -> what keeps it from being watched now, None where nothing does."""
        self.forbidden: dict[str, str] = {}
        """Namespace -> the words in which the API server refuses to list its pods: nobody would see a pod there."""

    def __len__(self) -> int:
        return len(self._closed)

    @property
    def has_listed_all(self) -> bool:
        """Whether each namespace that is watched was listed once, or cannot be."""
        return all(namespace in self._listed_mono_s or trouble for namespace, trouble in self.watched.items())

    def close(self, uid: str | None, namespace: str, *, at_mono_s: float, is_requeued: bool = False) -> None:
        """Nothing is left to report of a pod; its last events are no news."""
        if not uid:
            return
        # Out and in again: the dict's order is that of closing, and the oldest are forgotten first.
        self._closed.pop(uid, None)
        self._closed[uid] = _Closed(namespace=namespace, at_mono_s=at_mono_s, is_requeued=is_requeued)
        while len(self._closed) > MOST_CLOSED:
            del self._closed[next(iter(self._closed))]

    def is_closed(self, uid: str) -> bool:
        """Whether nothing is left to report of this pod."""
        return uid in self._closed

    def is_requeued(self, uid: str) -> bool:
        """Whether this pod goes because its message was requeued: it frees its name by itself."""
        return uid in self._closed and self._closed[uid].is_requeued

    def deleted(self, uid: str) -> None:
        """The pod object is gone."""
        self._closed.pop(uid, None)

    def listed(self, namespace: str, uids: Collection[str], *, asked_mono_s: float) -> None:
        """A namespace was listed, as it was at that time or later."""
        self._listed_mono_s[namespace] = asked_mono_s
        gone = [
            uid
            for uid, one in self._closed.items()
            # A list that was asked for before may be older than the pod itself, whose last events are still to come.
            if one.namespace == namespace and one.at_mono_s < asked_mono_s and uid not in uids
        ]
        for uid in gone:
            del self._closed[uid]

    def listed_mono_s(self, namespace: str) -> float:
        """When the last list of a namespace was asked for, 0 where none was: an event may be as old as that."""
        return self._listed_mono_s.get(namespace, 0.0)
