"""Admission: which of the waiting attempts may be created now, and what holds the others. Pure; time is given.

Limits count pods (`slots`) against what this dispatcher may use of each limit (`allowed`: all of it while it is alone,
its share while there are others). What holds everybody is asked first, then each line's head in its turn
(`wait_queues`).
"""

from collections.abc import Callable
from datetime import datetime

from dispatcher.admission.fair_share import Need
from dispatcher.admission.holdoff import EVERYWHERE, Pauses
from dispatcher.admission.slots import Slots
from dispatcher.admission.token_bucket import TokenBucket
from dispatcher.admission.wait_queues import Lines
from dispatcher.attempts import limits
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.limits import Hold, Limits

Allowed = Callable[[str, int], int | Hold]
"""Key and limit -> how many pods of that key this dispatcher may have, or why that is not known."""


class Admission:
    """The waiting lines, and the gates before the API server."""

    def __init__(
        self,
        *,
        slots: Slots,
        bounds: Limits,
        allowed: Allowed,
        bucket: TokenBucket,
        own_limit: int,
        create_concurrency: int,
    ) -> None:
        self.slots = slots
        self._bounds = bounds
        self.lines: Lines[Attempt] = Lines()
        self.pauses = Pauses()
        self.own_limit = own_limit
        """Pods of this dispatcher over all queues: the pool's limit."""
        self._allowed = allowed
        self._bucket = bucket
        self._create_concurrency = create_concurrency
        self._creating: set[Attempt] = set()
        self._doubtful: set[Attempt] = set()
        """Parked ones whose pod may exist: they keep their slots."""
        self._aside: dict[Attempt, float] = {}
        """Parked ones that wait by themselves, and until when."""

    def take(self, now_s: float) -> Attempt | None:
        """The next attempt to create, which now counts as being created; None where none may."""
        self._bring_back(now_s)
        if self._hold_of_all(now_s) is not None:
            return None
        attempt = self.lines.take(lambda head: self._hold_of_one(head, now_s) is None)
        if attempt is not None:
            self._bucket.take(now_s)
            self._creating.add(attempt)
            self._doubtful.discard(attempt)
            self.slots.begin(attempt.namespace, attempt.pod, attempt.queue)
        return attempt

    def created(self, attempt: Attempt, *, uid: str, now_s: float) -> None:
        """Its pod is there."""
        self.slots.created(attempt.namespace, attempt.pod, attempt.queue, uid=uid, now_s=now_s)

    def park(self, attempt: Attempt, *, is_in_doubt: bool, until_s: float | None = None) -> None:
        """Back into its place in its line, at once or at `until_s`; with its slot where its pod may have been made."""
        if until_s is None:
            self.lines.add(attempt)
        else:
            self._aside[attempt] = until_s
        if is_in_doubt:
            self._doubtful.add(attempt)

    def _bring_back(self, now_s: float) -> None:
        for attempt in [attempt for attempt, until_s in self._aside.items() if until_s <= now_s]:
            del self._aside[attempt]
            self.lines.add(attempt)

    def answered(self, attempt: Attempt) -> None:
        """Its create is over, or was not begun after all. Where no pod was made its slot is free."""
        self._creating.discard(attempt)
        if attempt not in self._doubtful:
            self.slots.give_back(attempt.namespace, attempt.pod)

    def withdraw(self, attempt: Attempt) -> bool:
        """Out of its line, for good. Says whether it was there."""
        if self._aside.pop(attempt, None) is None and not self.lines.remove(attempt):
            return False
        self._doubtful.discard(attempt)
        self.slots.give_back(attempt.namespace, attempt.pod)
        return True

    def hold(self, attempt: Attempt, now_s: float) -> Hold | None:
        """Why a waiting attempt is not created now; None where it is about to be."""
        return self._hold_of_all(now_s) or self._hold_of_one(attempt, now_s)

    def again_in_s(self, now_s: float) -> float | None:
        """In how long time alone may open a gate; None where it takes an event."""
        waits = [until_s - now_s for until_s in self._aside.values()]
        if not len(self.lines):
            return max(0.0, min(waits)) if waits else None
        until = self.pauses.next_end(now_s)
        waits += [until - now_s] if until is not None else []
        if wait_s := self._bucket.wait_s(now_s):
            waits.append(wait_s)
        return max(0.0, min(waits)) if waits else None

    def needs(self, now: datetime, now_s: float) -> dict[str, Need]:
        """What there is and what could use a slot, by key, for sharing the limits out.

        What waits for something else wants no slot: a namespace that pauses, the limit of its queue.
        """
        used = self.slots.used()
        waits: dict[str, int] = {}
        oldest_s: dict[str, float] = {}
        left = max(0, self.own_limit - used.get(limits.ALL, 0))
        for line in self.lines:
            head = line[0]
            if self.pauses.hold(head.namespace, now_s=now_s, under_way=0) is not None:
                continue
            age_s = max(0.0, (now - head.received_at).total_seconds())
            count = min(len(line), left)
            binding = self._bounds.binding(queue=head.queue, namespace=head.namespace, max_pods=head.profile.max_pods)
            for key, limit in binding:
                waits[key] = waits.get(key, 0) + count
                oldest_s[key] = max(age_s, oldest_s.get(key, 0.0))
                count = max(0, min(count, limit - used.get(key, 0)))
        return {
            key: Need(used=used.get(key, 0), waits=waits.get(key, 0), oldest_s=oldest_s.get(key, 0.0))
            for key in {*used, *waits}
        }

    def _hold_of_all(self, now_s: float) -> Hold | None:
        under_way = len(self._creating)
        paused = self.pauses.hold(EVERYWHERE, now_s=now_s, under_way=under_way)
        if paused is not None:
            return paused
        if self._bucket.wait_s(now_s) > 0:
            rate = f"{self._bucket.rate:g} a second, {self._bucket.burst} at once"
            return Hold("CreateRate", f"kubernetes.create_rate is reached: {rate}")
        if under_way >= self._create_concurrency:
            return Hold("CreatesUnderWay", f"{under_way} creates have not been answered yet")
        return None

    def _hold_of_one(self, attempt: Attempt, now_s: float) -> Hold | None:
        namespace = attempt.namespace
        under_way = sum(other.namespace == namespace for other in self._creating) if namespace in self.pauses else 0
        paused = self.pauses.hold(namespace, now_s=now_s, under_way=under_way)
        if paused is not None:
            return paused
        if self.slots.has(namespace, attempt.pod):
            return None  # a create of it may have worked already: its pod counts
        here = self.slots.count(limits.ALL)
        if here >= self.own_limit:
            return Hold("DispatcherLimit", f"this dispatcher may have {self.own_limit} pods, and has {here}")
        return self._limit_of(attempt)

    def _limit_of(self, attempt: Attempt) -> Hold | None:
        binding = self._bounds.binding(
            queue=attempt.queue, namespace=attempt.namespace, max_pods=attempt.profile.max_pods
        )
        for key, limit in reversed(binding):
            here = self.slots.count(key)
            allowed = self._allowed(key, limit)
            if isinstance(allowed, Hold):
                return allowed
            if here >= allowed:
                return limits.full(key, limit, here=here, others=max(0, limit - allowed))
        return None
