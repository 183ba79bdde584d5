"""What a quota has no room for is held by resource: only pods of the same queue that ask for the same wait behind it.

A quota refuses a pod for what it asks for, so that pod waits by itself, and the others of its namespace go on. Those of
its queue that ask for the exhausted resource keep their order: they are tried when it has been created, or is not there
any more. Pure; the time is passed in.
"""

from dataclasses import dataclass

from dispatcher.attempts import states
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.limits import BlockedReason

REASON = "QuotaExceeded"


@dataclass(frozen=True, kw_only=True)
class _Held:
    first: Attempt
    """The one that was refused, before which no other of its queue is tried."""
    text: str


class QuotaHolds:
    """By namespace, queue and resource."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, str], _Held] = {}

    def refused(self, attempt: Attempt, resources: frozenset[str], text: str) -> None:
        """A quota has no room for these resources of an attempt's pod."""
        for resource in resources:
            held = self._held.get((attempt.namespace, attempt.queue, resource))
            # The one that came first keeps the hold: that is the order in which they are to get what becomes free.
            if held is None or _is_over(held) or held.first.received_at >= attempt.received_at:
                self._held[(attempt.namespace, attempt.queue, resource)] = _Held(first=attempt, text=text)

    def blocked_reason(self, attempt: Attempt) -> BlockedReason | None:
        """Why an attempt is not tried now: an earlier one of its queue waits for the same resource."""
        # Asked for each launch, and nearly always there is none.
        if not self._held:
            return None
        for resource in attempt.launch.resources:
            place = (attempt.namespace, attempt.queue, resource)
            held = self._held.get(place)
            if held is None:
                continue
            if _is_over(held):
                del self._held[place]
            elif held.first is not attempt and held.first.received_at <= attempt.received_at:
                return BlockedReason(
                    REASON, f"it asks for {resource} like {held.first.id}, which came before it: {held.text}"
                )
        return None


def _is_over(held: _Held) -> bool:
    return held.first.state not in states.UNLAUNCHED
