"""Celery's side, as the cluster's side sees it: what `pool` does for `controller`, over the bridge."""

from collections.abc import Mapping
from typing import Any, Protocol

from dispatcher.attempts.attempt import Attempt
from dispatcher.protocol import outcome


class Hub(Protocol):
    """What the pool does for us on Celery's side. Each call is passed to the hub's thread and returns at once."""

    def named(self, attempt: Attempt) -> None:
        """The pod exists, and its name is known."""

    def created(self, attempt: Attempt) -> None:
        """The pod exists and stands in the record: the message may be acknowledged."""

    def started(self, attempt: Attempt) -> None:
        """The container runs, or ran: `attempt.started_at` is known."""

    def ended(self, attempt: Attempt, result: outcome.Outcome | BaseException) -> None:
        """The outcome is known and wants to be replayed; `closed` must follow."""

    def dropped(self, attempt: Attempt) -> None:
        """Another dispatcher owns this attempt now, or it came twice: forget it without a result."""

    def withdrawn(self, attempt: Attempt) -> None:
        """It was revoked before it had a pod."""

    def found(self, pod: Mapping[str, Any], *, is_ended: bool) -> None:
        """A pod of ours that nobody here knows: adopt it."""
