"""Sightings: what is seen of pods, in the watch, in lists and at roll calls, and what follows for their attempts.

Step ⑥ of the flow, between `watcher` and `completion`. Events may come late, twice, out of order or about a pod of an
earlier time: an attempt is touched only by its own pod, known by key and uid. On the loop's thread.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from dispatcher.admission.capacity import Capacity
from dispatcher.attempts import current_wait
from dispatcher.attempts.attempt import Attempt, Register
from dispatcher.attempts.status_notes import Notes
from dispatcher.attempts.worker_port import Hub
from dispatcher.finishing import result_reader
from dispatcher.finishing.completion import Endings
from dispatcher.manifests import builder, result_sidecar
from dispatcher.status import observation
from dispatcher.watching.unknown_pods import Findings


class Sightings:
    """Takes pods in. `namespaces` gives those that are watched, `pump` is called when a slot has become free."""

    def __init__(
        self,
        *,
        register: Register,
        notes: Notes,
        hub: Hub,
        capacity: Capacity,
        endings: Endings,
        findings: Findings,
        namespaces: Callable[[], Collection[str]],
        pump: Callable[[], None],
    ) -> None:
        self._register = register
        self._notes = notes
        self._hub = hub
        self._capacity = capacity
        self._endings = endings
        self._findings = findings
        self._namespaces = namespaces
        self._pump = pump
        self._closed: set[str] = set()
        """uids of pods whose story is told; their last events are no news."""
        self._returned: set[str] = set()
        """Of those the ones whose message was put back into its queue: their name is wanted again."""
        self._listed_mono: dict[str, float] = {}
        """Namespace -> when its last list was asked for."""

    def close(self, uid: str, *, is_returned: bool = False) -> None:
        """The story of a pod is told. `is_returned`: its message goes back into its queue, its name is wanted again."""
        self._closed.add(uid)
        if is_returned:
            self._returned.add(uid)

    def is_finished(self, pod: Mapping[str, Any]) -> bool:
        """Whether nothing is to be told of a pod any more."""
        return uid_of(pod) in self._closed or builder.is_done(pod)

    def is_leaving(self, pod: Mapping[str, Any]) -> bool:
        """Whether a pod will give its name free by itself."""
        return bool(pod["metadata"].get("deletionTimestamp")) or uid_of(pod) in self._returned

    def listed_mono(self, namespace: str) -> float:
        """When the last list of a namespace was asked for: an event may be as old as that."""
        return self._listed_mono.get(namespace, 0.0)

    def on_pod(self, pod: Mapping[str, Any], kind: str) -> None:
        """One event of the watch, or one pod of a list."""
        self._capacity.see(pod, kind)
        if uid_of(pod) in self._closed:
            if kind == "DELETED":
                self._closed.discard(uid_of(pod))
                self._returned.discard(uid_of(pod))
            return
        metadata = pod["metadata"]
        attempt = self._register.by_pod(metadata["namespace"], metadata["name"])
        seen = observation.observe(pod, kind, base=builder.base_of(pod))
        if attempt is not None:
            seen = current_wait.patient(attempt, seen)
        if attempt is None:
            if kind != "DELETED" and builder.key_of(pod) is not None:
                self._findings.found(pod, is_ended=seen.verdict in ("succeeded", "failed"))
            return
        if attempt.stage == "ended" or builder.key_of(pod) != attempt.key or attempt.uid not in (None, metadata["uid"]):
            return  # an older pod's late event never touches this attempt
        attempt.uid = metadata["uid"]
        self._take(attempt, pod, seen)
        self._follow(attempt, pod, seen, is_last=kind == "DELETED")

    def _take(self, attempt: Attempt, pod: Mapping[str, Any], seen: observation.Observation) -> None:
        """What its pod says now, kept and noted."""
        started_at, attempt.ended_at = result_reader.times(seen, created=pod["metadata"].get("creationTimestamp"))
        if attempt.started_at is None and started_at is not None and seen.verdict in ("running", "succeeded", "failed"):
            attempt.started_at = started_at
            self._hub.started(attempt)
        attempt.seen, attempt.heard_mono = seen, time.monotonic()
        attempt.phase = str((pod.get("status") or {}).get("phase") or "Unknown")
        if seen.is_scheduled and attempt.scheduled_mono is None:
            attempt.scheduled_mono = time.monotonic()
        self.note(attempt)

    def note(self, attempt: Attempt) -> None:
        """What its pod said last; events may be faster than the answer to the create, and know more."""
        seen = attempt.seen or observation.Observation(verdict="none")
        self._notes.note(
            attempt,
            phase=attempt.phase,
            reason=seen.reason,
            message=seen.message if seen.verdict != "succeeded" else None,
            cause=seen.cause,
            exit_code=seen.exit_code,
            node=seen.node,
            ended_at=attempt.ended_at,
        )

    def _follow(
        self, attempt: Attempt, pod: Mapping[str, Any], seen: observation.Observation, *, is_last: bool
    ) -> None:
        """What follows from it."""
        if seen.verdict == "gone":
            self._register.remove(attempt)
            self._hub.dropped(attempt)
            self._pump()
        elif seen.verdict in ("succeeded", "failed"):
            told = result_sidecar.told(pod) if attempt.wanted.result_path is not None else None
            if told is not None and told.kind == "waiting" and seen.verdict == "succeeded" and not is_last:
                attempt.awaits_result_mono = attempt.awaits_result_mono or time.monotonic()
                return
            self._endings.ended(attempt, seen, told)

    def on_list(self, namespace: str, pods: Mapping[str, Mapping[str, Any]], asked_at: float) -> None:
        """Closes the gap between what is in flight and what is in the cluster."""
        self._listed_mono[namespace] = asked_at
        self._capacity.sync(namespace, pods.keys(), asked_at=asked_at)
        for attempt in self._register:
            known = attempt.stage == "created" and attempt.namespace == namespace
            if known and attempt.created_mono < asked_at and not _is_among(attempt, pods):
                self._endings.missed(attempt)
        if len(self._namespaces()) <= 1:
            self._closed &= {uid_of(pod) for pod in pods.values()}


def _is_among(attempt: Attempt, pods: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether its pod is in a list: the very one, not another that was made under its name."""
    pod = pods.get(attempt.pod)
    return pod is not None and attempt.uid in (None, uid_of(pod))


def uid_of(pod: Mapping[str, Any]) -> str:
    """The uid of a pod object."""
    return str(pod["metadata"]["uid"])
