"""Pauses: namespaces, or all of them, in which nothing is created for a while because the server said so. Pure.

The wait grows with every create that fails after the last pause; failures of creates that were under way together count
once. Where one create is as good as many (a quota, a server that is away), one goes ahead after the pause and the
others follow when it has worked.
"""

from dataclasses import dataclass

from dispatcher import backoff
from dispatcher.limits import Hold

EVERYWHERE = ""
"""The scope of a pause of all namespaces."""
_NOT_PROBED = frozenset({"TooManyRequests", "Conflict"})
"""What hits one request and not the next: the others need not wait for one that goes ahead."""


@dataclass(kw_only=True)
class _Pause:
    hold: Hold
    failures: int = 0
    failed_at: float = float("-inf")
    until: float = 0.0


class Pauses:
    """By scope: a namespace, or EVERYWHERE."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}

    def __contains__(self, scope: str) -> bool:
        return scope in self._pauses

    def pause(
        self, scope: str, hold: Hold, *, begun_at: float, now_s: float, wanted_s: float, jitter: float
    ) -> float | None:
        """A create that was begun at `begun_at` failed. For how long its scope pauses; None where it did so already.

        `wanted_s` is what the server asked for (`Retry-After`), or 0.
        """
        pause = self._pauses.setdefault(scope, _Pause(hold=hold))
        pause.hold = hold
        if begun_at >= pause.failed_at:
            pause.failures, pause.failed_at = pause.failures + 1, now_s
        delay_s = max(wanted_s, backoff.backoff_s(max(1, pause.failures), jitter=jitter))
        if now_s + delay_s <= pause.until or (now_s < pause.until and not wanted_s):
            return None
        pause.until = now_s + delay_s
        return delay_s

    def worked(self, namespace: str, *, now_s: float) -> None:
        """A create worked: the next failure is the first one again. A pause that lasts still is kept to its end."""
        for scope in (namespace, EVERYWHERE):
            pause = self._pauses.get(scope)
            if pause is not None and now_s < pause.until:
                pause.failures = 0
            elif pause is not None:
                del self._pauses[scope]

    def hold(self, scope: str, *, now_s: float, under_way: int) -> Hold | None:
        """Why nothing is created there now, if so; `under_way` are the creates of that scope."""
        pause = self._pauses.get(scope)
        if pause is None:
            return None
        is_probing = under_way > 0 and pause.hold.reason not in _NOT_PROBED
        return pause.hold if now_s < pause.until or is_probing else None

    def next_end(self, now_s: float) -> float | None:
        """When the next pause ends that has not ended yet."""
        return min((pause.until for pause in self._pauses.values() if pause.until > now_s), default=None)
