"""Hold-off: namespaces, or all of them, in which nothing is created for a while because the server said so. Pure.

A failure among creates that work is about one request: that one waits by itself, and the others go on. Failures in a
row are about the server: nothing is created for a while. The wait grows with every create that fails after the last
pause; failures of creates that were under way together count once. Where one create is as good as many (a quota, a
server that is away), one goes ahead after the pause and the others follow when it has worked.
"""

from dataclasses import dataclass

from dispatcher import retry
from dispatcher.attempts.limits import BlockedReason

EVERYWHERE = ""
"""The scope of a pause of all namespaces."""
_NOT_PROBED = frozenset({"TooManyRequests", "Conflict"})
"""What hits one request and not the next: the others need not wait for one that goes ahead."""
_OF_ONE = _NOT_PROBED | {"ApiServerError", "ApiServerUnavailable", "RequestTimeout", "WebhookUnavailable"}
"""What may be about one request alone. A quota or a token that is refused never is."""
IN_A_ROW = 2
"""So many failures without a success between them may be about single requests; one more is about the server."""
RECENT_S = 10.0
"""A success that is longer ago says nothing of the server as it is now."""


@dataclass(kw_only=True)
class _Pause:
    blocked: BlockedReason
    failures: int = 0
    failed_mono_s: float = float("-inf")
    until_mono_s: float = 0.0


class Holdoff:
    """By scope: a namespace, or EVERYWHERE."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}
        self._in_a_row: dict[str, int] = {}
        """By scope, the failures since the last create that worked."""
        self._worked_mono_s: dict[str, float] = {}

    def __contains__(self, scope: str) -> bool:
        return scope in self._pauses

    def alone_s(
        self, scope: str, blocked: BlockedReason, *, failures: int, now_mono_s: float, wanted_s: float, jitter: float
    ) -> float | None:
        """How long a create that failed waits by itself; None where its scope had better pause.

        To be asked once for each failure. `failures` are those of this create; `wanted_s` as in `pause`.
        """
        in_a_row = self._in_a_row[scope] = self._in_a_row.get(scope, 0) + 1
        pause = self._pauses.get(scope)
        is_working = now_mono_s - self._worked_mono_s.get(scope, float("-inf")) <= RECENT_S
        is_paused = pause is not None and now_mono_s < pause.until_mono_s
        if blocked.reason not in _OF_ONE or not is_working or in_a_row > IN_A_ROW or is_paused:
            return None
        return max(wanted_s, retry.backoff_s(failures, jitter=jitter))

    def pause(
        self,
        scope: str,
        blocked: BlockedReason,
        *,
        begun_mono_s: float,
        now_mono_s: float,
        wanted_s: float,
        jitter: float,
    ) -> float | None:
        """A create that was begun at this time failed. For how long its scope pauses; None where it did so already.

        `wanted_s` is what the server asked for (`Retry-After`), or 0.
        """
        pause = self._pauses.setdefault(scope, _Pause(blocked=blocked))
        pause.blocked = blocked
        # Begun before the last failure it was under way with that one: 64 at once must not make a back-off of minutes.
        if begun_mono_s >= pause.failed_mono_s:
            pause.failures, pause.failed_mono_s = pause.failures + 1, now_mono_s
        delay_s = max(wanted_s, retry.backoff_s(max(1, pause.failures), jitter=jitter))
        # Only `Retry-After` makes a pause longer that lasts already.
        if now_mono_s + delay_s <= pause.until_mono_s or (now_mono_s < pause.until_mono_s and not wanted_s):
            return None
        pause.until_mono_s = now_mono_s + delay_s
        return delay_s

    def worked(self, namespace: str, *, now_mono_s: float) -> None:
        """A create worked: the next failure is the first one again. A pause that lasts still is kept to its end."""
        for scope in (namespace, EVERYWHERE):
            self._in_a_row.pop(scope, None)
            self._worked_mono_s[scope] = now_mono_s
            pause = self._pauses.get(scope)
            # That create was sent before the pause, so it says nothing of what the server wants from then on.
            if pause is not None and now_mono_s < pause.until_mono_s:
                pause.failures = 0
            elif pause is not None:
                del self._pauses[scope]

    def blocked_reason(self, scope: str, *, now_mono_s: float, under_way: int) -> BlockedReason | None:
        """Why nothing is created there now, if so; `under_way` are the creates of that scope."""
        pause = self._pauses.get(scope)
        if pause is None:
            return None
        # After the pause one goes ahead. Its answer ends the pause or begins
        # the next one, which holds all others (K7, K13).
        is_probing = under_way > 0 and pause.blocked.reason not in _NOT_PROBED
        return pause.blocked if now_mono_s < pause.until_mono_s or is_probing else None

    def next_end(self, now_mono_s: float) -> float | None:
        """When the next pause ends that has not ended yet."""
        return min(
            (pause.until_mono_s for pause in self._pauses.values() if pause.until_mono_s > now_mono_s), default=None
        )
