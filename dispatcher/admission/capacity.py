"""Capacity: how much of the cluster this dispatcher may use now. Its slots, its share of the limits, its admission.

Puts `slots`, `shared_limits` and `admission` together for `controller`, which feeds it with what the watch shows. On
the loop's thread.
"""

import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from dispatcher.admission.admission import Admission
from dispatcher.admission.shared_limits import Ledger
from dispatcher.admission.slots import Slots
from dispatcher.admission.token_bucket import TokenBucket
from dispatcher.attempts.limits import Limits
from dispatcher.kubeapi import client
from dispatcher.options import Options, QueueProfile


class Capacity:
    """One dispatcher's."""

    def __init__(
        self,
        cluster: client.KubeClient,
        *,
        options: Options,
        owner: str,
        own_limit: int,
        create_concurrency: int,
        is_counted: Callable[[], bool],
        on_room: Callable[[], None],
    ) -> None:
        """`is_counted` says whether our pods have been listed yet; `on_room` is called when there may be more room."""
        self._options = options
        self._on_room = on_room
        self._limits = Limits(overall=options.max_pods, by_namespace=options.max_pods_by_namespace)
        self._slots = Slots(on_freed=self._freed)
        self.ledger = Ledger(
            cluster=cluster,
            namespace=options.limits_namespace or options.namespaces[0],
            deployment=options.deployment,
            owner=owner,
            needs=lambda: self.admission.needs(datetime.now(UTC), time.monotonic()),
            limit_of=lambda key: self._limits.of_key(key, max_pods_of=self._max_pods_of),
            is_counted=is_counted,
            on_changed=on_room,
        )
        self.admission = Admission(
            slots=self._slots,
            bounds=self._limits,
            allowed=self.ledger.allowed,
            bucket=TokenBucket(rate=options.create_rate, burst=options.create_burst),
            own_limit=own_limit,
            create_concurrency=create_concurrency,
        )

    def see(self, pod: Mapping[str, Any], kind: str) -> None:
        """An event of the watch, or a pod of a list."""
        self._slots.see(pod, kind, now_s=time.monotonic())

    def sync(self, namespace: str, pods: Collection[str], *, asked_at: float) -> None:
        """The names of all our pods in a namespace, listed when asked at that time."""
        self._slots.sync(namespace, pods, asked_at=asked_at)

    def _freed(self) -> None:
        self.ledger.freed()
        self._on_room()

    def _max_pods_of(self, queue: str) -> int:
        try:
            return self._options.profile_for(queue).max_pods
        except LookupError:
            return QueueProfile().max_pods
