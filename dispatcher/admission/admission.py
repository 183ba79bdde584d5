"""Admission: which of the waiting attempts may be created now, and what holds the others. No I/O; the time is passed
in.

Limits count pods (`slots`) against what this dispatcher may use of each limit (`shared_limits`: all of it while it is
alone, its share while there are others). What holds everybody is asked first, then the head of each wait queue in its
turn. What a quota refuses holds only those that ask for the same (`quota_holds`).
"""

from dataclasses import dataclass
from datetime import datetime

from dispatcher.admission.fair_share import Need
from dispatcher.admission.holdoff import EVERYWHERE, Holdoff
from dispatcher.admission.quota_holds import QuotaHolds
from dispatcher.admission.shared_limits import SharedLimits
from dispatcher.admission.slots import Slots
from dispatcher.admission.token_bucket import TokenBucket
from dispatcher.admission.wait_queues import WaitQueues
from dispatcher.attempts import limits, states
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.limits import BlockedReason, Limits
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.attempts.signals import Signal

AHEAD = 32
"""So many attempts are launched beside those at the API server: they are claimed meanwhile, so that no create waits."""
QUOTA_AGAIN_S = 2.0
"""How often an attempt that waits behind another one for a quota is looked at."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is given: limits, the limit of this dispatcher alone, and how many creates may be under way."""

    limits: Limits
    own_limit: int
    create_concurrency: int


class Admission:
    """The wait queues, and the gates before the API server. `room` is set whenever a gate may have opened."""

    def __init__(
        self,
        attempts: Attempts,
        *,
        slots: Slots,
        shared: SharedLimits,
        bucket: TokenBucket,
        bounds: Bounds,
        seen_pods: SeenPods,
    ) -> None:
        self._attempts = attempts
        self.slots = slots
        self._shared = shared
        self._bucket = bucket
        self._seen_pods = seen_pods
        self._bounds = bounds.limits
        self._most_launching = bounds.create_concurrency + AHEAD
        self.own_limit = bounds.own_limit
        """Pods of this dispatcher over all queues: the pool's limit."""
        self.queues: WaitQueues[Attempt] = WaitQueues()
        self.holdoff = Holdoff()
        self.quotas = QuotaHolds()
        self.room = Signal()
        self._parked: dict[Attempt, float] = {}
        """Those that wait by themselves, and until when (monotonic seconds)."""

    def add(self, attempt: Attempt) -> None:
        """Into its wait queue, at its place."""
        self.queues.add(attempt)
        self.room.set()

    def take(self, now_mono_s: float) -> Attempt | None:
        """The next attempt to launch, which counts as being launched from now on; None where none may."""
        self._unpark(now_mono_s)
        while self._blocked_for_all(now_mono_s) is None:
            attempt = next(
                (head for head in self.queues.heads() if self._blocked_for_one(head, now_mono_s) is None), None
            )
            if attempt is None:
                return None
            self.queues.take(attempt)
            # The state may have changed while it waited: the watch knows pods
            # by name, and may be faster than an answer.
            if attempt.state is not states.State.QUEUED:  # its create had worked, though it seemed to have failed
                self.answered(attempt, keeps_slot=attempt.state in states.LIVE)
                continue
            # Only now that it is out of its wait queue: parked it holds nobody, at the
            # head it would hold those behind it that ask the quota for something else.
            held = self.quotas.blocked_reason(attempt)
            if held is None:
                self._begin(attempt, now_mono_s)
                return attempt
            self._parked[attempt] = now_mono_s + QUOTA_AGAIN_S
            self._attempts.block(attempt, held)
        return None

    def created(self, attempt: Attempt, *, uid: str, now_mono_s: float) -> None:
        """Its pod is there."""
        self.slots.created(attempt.namespace, attempt.pod.name, attempt.queue, uid=uid, now_mono_s=now_mono_s)

    def park(self, attempt: Attempt, *, until_mono_s: float | None = None) -> None:
        """Back into its place in its wait queue, at once or at `until_mono_s`."""
        if until_mono_s is None:
            if attempt.state is states.State.PARKED:
                self._attempts.queue(attempt)
            self.queues.add(attempt)
        else:
            self._parked[attempt] = until_mono_s
        self.room.set()

    def answered(self, attempt: Attempt, *, keeps_slot: bool = False) -> None:
        """Its create is over, or was not begun after all. Where no pod can have been made its slot is free."""
        if not keeps_slot:
            self.slots.release(attempt.namespace, attempt.pod.name)
        self.room.set()

    def withdraw(self, attempt: Attempt) -> bool:
        """Out of its wait queue, for good. Says whether it was there."""
        if self._parked.pop(attempt, None) is None and not self.queues.remove(attempt):
            return False
        self.answered(attempt)
        return True

    def blocked_reason(self, attempt: Attempt, now_mono_s: float) -> BlockedReason | None:
        """Why a waiting attempt is not launched now; None where it is about to be."""
        return self._blocked_for_all(now_mono_s) or self._blocked_for_one(attempt, now_mono_s)

    def again_in_s(self, now_mono_s: float) -> float | None:
        """In how long time alone may open a gate; None where it takes an event."""
        waits = [until_mono_s - now_mono_s for until_mono_s in self._parked.values()]
        if len(self.queues):
            until = self.holdoff.next_end(now_mono_s)
            waits += [until - now_mono_s] if until is not None else []
            if wait_s := self._bucket.wait_s(now_mono_s):
                waits.append(wait_s)
        return max(0.0, min(waits)) if waits else None

    def needs(self, now: datetime, now_mono_s: float) -> dict[str, Need]:
        """What there is and what could use a slot, by key, for sharing the limits out.

        What waits for something else wants no slot: a namespace that pauses, the limit of its queue.
        """
        used = self.slots.used()
        waits: dict[str, int] = {}
        oldest_s: dict[str, float] = {}
        # What this dispatcher could not create anyway must not keep slots from others.
        left = max(0, self.own_limit - used.get(limits.ALL, 0))
        for queue in self.queues:
            head = queue[0]
            # No create counts as under way: behind one that probes the others follow at once, and want their slots now.
            if self.holdoff.blocked_reason(head.namespace, now_mono_s=now_mono_s, under_way=0) is not None:
                continue
            age_s = max(0.0, (now - head.received_at).total_seconds())
            count = min(len(queue), left)
            binding = self._bounds.binding(queue=head.queue, namespace=head.namespace, max_pods=head.profile.max_pods)
            # From the narrowest limit to the widest: what the queue's own limit
            # holds back needs no slot of its namespace.
            for key, limit in binding:
                waits[key] = waits.get(key, 0) + count
                oldest_s[key] = max(age_s, oldest_s.get(key, 0.0))
                count = max(0, min(count, limit - used.get(key, 0)))
        return {
            key: Need(used=used.get(key, 0), waits=waits.get(key, 0), oldest_s=oldest_s.get(key, 0.0))
            for key in {*used, *waits}
        }

    def _begin(self, attempt: Attempt, now_mono_s: float) -> None:
        # Token, move and slot in one step without an await: the next head is asked against what this one has taken.
        self._bucket.take(now_mono_s)
        self._attempts.admit(attempt)
        self.slots.begin(attempt.namespace, attempt.pod.name, attempt.queue)

    def _unpark(self, now_mono_s: float) -> None:
        for attempt in [attempt for attempt, until_mono_s in self._parked.items() if until_mono_s <= now_mono_s]:
            del self._parked[attempt]
            if attempt.state is states.State.PARKED:
                self._attempts.queue(attempt)
            self.queues.add(attempt)

    def _blocked_for_all(self, now_mono_s: float) -> BlockedReason | None:
        under_way = self._attempts.launching()
        paused = self.holdoff.blocked_reason(EVERYWHERE, now_mono_s=now_mono_s, under_way=under_way)
        if paused is not None:
            return paused
        if self._bucket.wait_s(now_mono_s) > 0:
            rate = f"{self._bucket.rate:g} a second, {self._bucket.burst} at once"
            return BlockedReason("CreateRate", f"kubernetes.create_rate is reached: {rate}")
        if under_way >= self._most_launching:
            return BlockedReason("CreatesUnderWay", f"{under_way} creates have not been answered yet")
        return None

    def _blocked_for_one(self, attempt: Attempt, now_mono_s: float) -> BlockedReason | None:
        namespace = attempt.namespace
        paused = self.holdoff.blocked_reason(
            namespace, now_mono_s=now_mono_s, under_way=self._attempts.launching(namespace)
        )
        if paused is not None:
            return paused
        forbidden = self._seen_pods.forbidden.get(namespace)
        if forbidden is not None:
            return BlockedReason(
                "NotPermitted", f"nobody would see its pod, the API server refuses to list them: {forbidden}"
            )
        # Before the limits, which count that slot: one that is repeated would wait for itself where the limit is 1.
        if self.slots.has(namespace, attempt.pod.name):
            return None  # a create of it may have worked already: its pod counts
        here = self.slots.count(limits.ALL)
        if here >= self.own_limit:
            return BlockedReason("DispatcherLimit", f"this dispatcher may have {self.own_limit} pods, and has {here}")
        return self._limit_of(attempt)

    def _limit_of(self, attempt: Attempt) -> BlockedReason | None:
        binding = self._bounds.binding(
            queue=attempt.queue, namespace=attempt.namespace, max_pods=attempt.profile.max_pods
        )
        for key, limit in reversed(binding):
            here = self.slots.count(key)
            allowed = self._shared.allowed(key, limit)
            # Not known: whoever creates then may take slots that others hold.
            if isinstance(allowed, BlockedReason):
                return allowed
            if here >= allowed:
                return limits.full(key, limit, here=here, others=max(0, limit - allowed))
        return None
