"""Events (core/v1) about pods, as `kubectl describe` shows them; the newest few thousand are kept."""

import itertools
import uuid
from collections.abc import Callable
from datetime import datetime

from dispatcher.localcluster.objects import manifest, resources, store, times

KEPT = 5_000


class Recorder:
    """Writes events of one component on one node."""

    def __init__(
        self, objects: store.Store, *, component: str, node: str, now: Callable[[], datetime] = times.now
    ) -> None:
        self._store = objects
        self._component = component
        self._node = node
        self._now = now
        # From the time of day on, shifted: names of an earlier life, which clients may remember, do not come again.
        self._numbers = itertools.count(int(self._now().timestamp() * 1000) << 16)

    def record(
        self, pod: manifest.Pod, reason: str, message: str, *, container: str = "", warning: bool = False
    ) -> None:
        """One event about a pod, or about one of its containers."""
        metadata = pod.metadata
        about = {
            "kind": "Pod",
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "apiVersion": "v1",
        }
        if container:
            about["fieldPath"] = f"spec.containers{{{container}}}"
        at = times.write(self._now())
        self._store.put(
            resources.EVENTS,
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {
                    "name": f"{metadata.name}.{next(self._numbers):x}",
                    "namespace": metadata.namespace,
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": at,
                },
                "involvedObject": about,
                "reason": reason,
                "message": message,
                "source": {"component": self._component, "host": self._node},
                "firstTimestamp": at,
                "lastTimestamp": at,
                "count": 1,
                "type": "Warning" if warning else "Normal",
                "eventTime": None,
                "reportingComponent": self._component,
                "reportingInstance": self._node,
            },
        )
        self._forget()

    def _forget(self) -> None:
        objects = self._store.of(resources.EVENTS).objects
        if len(objects) > KEPT:
            # The oldest; a real server forgets events after an hour.
            self._store.remove(resources.EVENTS, next(iter(objects.values())))
