"""What is seen of pods, in the watch and in lists, put into the record of their attempts. Step ⑥ of the flow.

Events may come late, twice, out of order or about a pod of an earlier time: an attempt is touched only by its own pod,
known by key and uid. What follows is the reconciler's to decide. On the loop's thread.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.admission.capacity import Capacity
from dispatcher.attempts import sightings, states
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.attempts.states import State
from dispatcher.manifests import labels
from dispatcher.status import observation
from dispatcher.watching.unknown_pods import UnknownPods


class PodHandler:
    """Takes pods in."""

    def __init__(
        self, *, attempts: Attempts, seen_pods: SeenPods, capacity: Capacity, unknown_pods: UnknownPods
    ) -> None:
        self._attempts = attempts
        self._seen_pods = seen_pods
        self._capacity = capacity
        self._unknown_pods = unknown_pods

    def saw(self, pod: Mapping[str, Any], kind: str) -> None:
        """One event of the watch, or one pod of a list."""
        # First, and whoever it belongs to: slots are counted from what is in
        # the cluster, also of pods that are done with.
        self._capacity.see(pod, kind)
        uid, metadata = sightings.uid_of(pod), pod["metadata"]
        # Its last events (a kill, the delete) come after its end: taken for a
        # pod that nobody knows it would be adopted.
        if self._seen_pods.is_closed(uid):
            if kind == "DELETED":
                self._seen_pods.deleted(uid)
            return
        attempt = self._attempts.of_pod(metadata["namespace"], metadata["name"])
        if attempt is not None:
            # ENDED: its outcome is being read from what was seen; a later event
            # must not change what it is explained by.
            if attempt.state is not State.ENDED and sightings.is_of(attempt, pod):
                self._attempts.observed(attempt, pod, kind, now_mono_s=time.monotonic())
        elif kind != "DELETED" and labels.key_of(pod) is not None:
            # Of one that is deleted nothing can be read; `lost_pods` finds it by its row.
            seen = observation.observe(pod, kind, base=labels.base_of(pod))
            self._unknown_pods.found(pod, is_ended=seen.verdict in ("succeeded", "failed"))

    def listed(self, namespace: str, pods: Sequence[Mapping[str, Any]], *, asked_mono_s: float) -> None:
        """Closes the gap between what is in flight and what is in the cluster, as listed when asked at that time."""
        uids = {pod["metadata"]["name"]: sightings.uid_of(pod) for pod in pods}
        self._seen_pods.listed(namespace, set(uids.values()), asked_mono_s=asked_mono_s)
        self._capacity.sync(namespace, uids, asked_mono_s=asked_mono_s)
        for attempt in self._attempts:
            is_known = attempt.state in states.LIVE and attempt.namespace == namespace
            # Only what was there before the list was asked for: a younger pod may be missing in it.
            if is_known and attempt.pod.created_mono_s < asked_mono_s and not _is_among(attempt, uids):
                self._attempts.missed(attempt)


def _is_among(attempt: Attempt, uids: Mapping[str, str]) -> bool:
    """Whether its pod is in a list: the very one, not another that was made under its name."""
    uid = uids.get(attempt.pod.name)
    return uid is not None and attempt.pod.uid in (None, uid)
