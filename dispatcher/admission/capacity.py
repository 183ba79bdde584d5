"""Capacity: how much of the cluster this dispatcher may use now. Its slots, its share of the limits, its admission.

Puts `slots`, `shared_limits` and `admission` together. The watch and the lists feed it; `room` is set whenever there
may be more room. On the loop's thread.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from dispatcher.admission.admission import Admission, Bounds
from dispatcher.admission.fair_share import Need
from dispatcher.admission.shared_limits import LEAST_S, SharedLimits
from dispatcher.admission.slots import Slots
from dispatcher.admission.token_bucket import TokenBucket
from dispatcher.attempts import limits
from dispatcher.attempts.limits import Limits
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.kubeapi import client
from dispatcher.options import Options, QueueProfile

KEPT_S = 300.0
"""How long a limit is still shared in that nobody here needs any more: the next task need not ask for a slot first."""


class Capacity:
    """One dispatcher's."""

    def __init__(
        self,
        kube: client.KubeClient,
        *,
        options: Options,
        owner: str,
        own_limit: int,
        attempts: Attempts,
        seen_pods: SeenPods,
    ) -> None:
        self._options = options
        self._seen_pods = seen_pods
        self._limits = Limits(overall=options.max_pods, by_namespace=options.max_pods_by_namespace)
        self._slots = Slots()
        self._needed_mono_s: dict[str, float] = {}
        """Limited key -> when it was needed last."""
        # One object in one namespace, though pods may be in many: a limit over all of them has no other place.
        self.shared = SharedLimits(
            kube,
            namespace=options.limits_namespace or options.namespaces[0],
            deployment=options.deployment,
            owner=owner,
        )
        self.admission = Admission(
            attempts,
            slots=self._slots,
            shared=self.shared,
            bucket=TokenBucket(rate=options.create_rate, burst=options.create_burst),
            seen_pods=seen_pods,
            bounds=Bounds(limits=self._limits, own_limit=own_limit, create_concurrency=options.create_concurrency),
        )
        self.room = self.admission.room

    async def run(self) -> None:
        """Shares the limits out with other dispatchers, until it is cancelled."""
        while True:
            again_s = LEAST_S
            # Not before: nobody here knows yet which slots our own pods have,
            # and an entry without them gives them away.
            if self._seen_pods.has_listed_all:
                again_s = await self.shared.turn(self._demand)
                self.room.set()
            # Two waits: `wake` may be set by each pod that ends, and each turn is two requests.
            await asyncio.sleep(LEAST_S)
            await self.shared.wake.wait(max(0.0, again_s - LEAST_S))

    async def leave(self) -> None:
        """Releases the slots that have no pod."""
        await self.shared.leave(self._slots.used())

    def see(self, pod: Mapping[str, Any], kind: str) -> None:
        """An event of the watch, or a pod of a list."""
        # A counter and no callback: `slots` knows nobody above it.
        freed = self._slots.freed
        self._slots.see(pod, kind, now_mono_s=time.monotonic())
        self._note_freed(since=freed)

    def sync(self, namespace: str, pods: Collection[str], *, asked_mono_s: float) -> None:
        """The names of all our pods in a namespace, listed when asked at that time."""
        freed = self._slots.freed
        self._slots.sync(namespace, pods, asked_mono_s=asked_mono_s)
        self._note_freed(since=freed)

    def _note_freed(self, *, since: int) -> None:
        if self._slots.freed != since:
            self.shared.freed()
            self.room.set()

    def _demand(self) -> dict[str, tuple[int, Need]]:
        """Limit and need of each limited key that is needed, or was not long ago."""
        now_mono_s = time.monotonic()
        needs = self.admission.needs(datetime.now(UTC), now_mono_s)
        self._needed_mono_s = {key: at for key, at in self._needed_mono_s.items() if now_mono_s - at < KEPT_S}
        self._needed_mono_s |= dict.fromkeys(needs, now_mono_s)
        found = {key: (self._limit_of(key), needs.get(key, Need())) for key in self._needed_mono_s}
        return {key: (limit, need) for key, (limit, need) in found.items() if limit is not None}

    def _limit_of(self, key: str) -> int | None:
        queue = limits.queue_of(key)
        return self._limits.of_key(key) if queue is None else self._max_pods_of(queue)

    def _max_pods_of(self, queue: str) -> int:
        try:
            return self._options.profile_for(queue).max_pods
        except LookupError:
            # A pod may be of a queue that the settings do not have any more, and counts all the same.
            return QueueProfile().max_pods
