"""What the node says about one pod: its status, many changes in one write, and its events, none of them twice.

Used by the pod's `pod_worker`. Because writes are batched a short pod is often never seen Running, as on a real one.
"""

from collections.abc import Callable

from dispatcher.localcluster.kubelet import link, pod_status, timers
from dispatcher.localcluster.objects import manifest, recorder, resources, store, times
from dispatcher.localcluster.registry import registry

BATCH_S = 0.1
"""A change that is not final waits so long for the next one before it is written."""


class PodReport:
    """Writes one pod's status and events. `seen` gives the situation as of now."""

    def __init__(
        self,
        first: store.Snapshot,
        pod: manifest.Pod,
        *,
        rules: registry.Registry,
        events: recorder.Recorder,
        line: link.Link,
        due: timers.Timers,
        seen: Callable[[], pod_status.Situation],
    ) -> None:
        self._first = first
        self._pod = pod
        self._rules = rules
        self._events = events
        self._line = line
        self._due = due
        self._seen = seen
        self._warned: set[tuple[str, str]] = set()

    def current(self) -> store.Snapshot | None:
        """The stored pod; None once it is gone, or another one has its name."""
        found = self._rules.store.get(resources.PODS, self._first.namespace, self._first.name)
        return found if found is not None and found.uid == self._first.uid else None

    def write(self) -> None:
        """Writes the status at once; while the node is cut off, nothing."""
        current = self.current() if self._line.up else None
        if current is not None:
            self._rules.set_status(current, self._status(self._seen(), current))

    def write_unschedulable(self, why: str) -> None:
        """Writes what the scheduler found, for which a pod needs no node."""
        current = self.current()
        if current is not None:
            situation = pod_status.Situation(uid=self._first.uid, unschedulable=why)
            self._rules.set_status(current, self._status(situation, current))

    def write_soon(self) -> None:
        """Writes it with the changes of the next moment."""
        self._due.later(BATCH_S, self.write)

    def bind(self, node: str) -> None:
        """Puts the pod on its node."""
        current = self.current()
        if current is not None:
            self._rules.bind(current, node, self._status(self._seen(), current))

    def _status(self, situation: pod_status.Situation, current: store.Snapshot) -> pod_status.Json:
        return pod_status.status(situation, before=current.read()["status"], now=times.now())

    def event(self, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        """Records an event; while the node is cut off it is lost."""
        if self._line.up:
            self._events.record(self._pod, reason, message, container=container, warning=warning)

    def warn_once(self, reason: str, message: str, *, container: str = "") -> None:
        """Records a warning, unless it was said before."""
        if (container, message) not in self._warned:
            self._warned.add((container, message))
            self._events.record(self._pod, reason, message, container=container, warning=True)
