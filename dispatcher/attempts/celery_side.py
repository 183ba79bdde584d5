"""Celery's side as the cluster's side sees it: events that go up, commands that come down, and questions.

Events and commands are values, and the bridge carries them between the two threads: neither side holds an object of
the other. They name an attempt by its delivery. Implemented by `worker.bridge` and `worker.backend_questions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.status_store import PodRow
from dispatcher.options import QueueProfile
from dispatcher.protocol.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Launched:
    """The pod exists and stands in the record: the message may be acknowledged."""

    delivery: str
    pod: str


@dataclass(frozen=True, kw_only=True)
class Started:
    """The container runs, or ran."""

    delivery: str
    pod: str
    started_at: datetime
    created_at: datetime | None
    # Celery's side compares it with the end of its last stall: what is older has to be asked for again (D11).
    owned_mono_s: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The outcome is known and wants to be replayed; `Close` or `Requeue` follows."""

    delivery: str
    pod: str
    result: Outcome | BaseException
    started_at: datetime | None
    ended_at: datetime | None
    owned_mono_s: float


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Another dispatcher has this attempt, or it came twice: the request ends without a result."""

    delivery: str
    pod: str


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """It was revoked before it had a pod."""

    delivery: str
    owned_mono_s: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """A pod of ours that nobody here knows: adopt it, or clean up behind it."""

    pod: Mapping[str, Any]
    is_ended: bool


@dataclass(frozen=True, kw_only=True)
class Owned:
    """The answer to `ConfirmOwner`: the attempt is still ours."""

    delivery: str


@dataclass(frozen=True, kw_only=True)
class Released:
    """The answer to `Requeue`: nothing stands in the way of the message any more. Also to a `Terminate` that has ended
    an attempt with a pod: nothing will follow."""

    delivery: str


@dataclass(frozen=True, kw_only=True)
class Broken:
    """The cluster's side fails again and again, and has given up."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Housekept:
    """A task of Celery's own has ended, in a helper thread."""

    name: str
    answer: Any
    """(failed, value, seconds), as Celery's pools say it."""


# By delivery, not by the task's id: two deliveries of one id may be here at once, and a retry has the same id.
Event = Housekept | Launched | Started | Ended | Dropped | Withdrawn | Found | Owned | Released | Broken


@dataclass(frozen=True, kw_only=True)
class Submit:
    """A message was received; the attempt is the cluster's side's from now on."""

    attempt: Attempt


@dataclass(frozen=True, kw_only=True)
class Adopt:
    """The request of a pod that was found is rebuilt; the attempt is the cluster's side's from now on."""

    attempt: Attempt
    pod: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Terminate:
    """Celery ends it (revoke, time limit), and stores the result itself."""

    delivery: str


@dataclass(frozen=True, kw_only=True)
class Close:
    """The outcome is stored: only now may the pod go."""

    delivery: str
    is_success: bool


@dataclass(frozen=True, kw_only=True)
class Requeue:
    """Its message is about to be requeued: claim and pod must go, whatever the policy."""

    delivery: str


@dataclass(frozen=True, kw_only=True)
class ConfirmOwner:
    """After a stall: is the attempt still ours? `Owned` or `Dropped` follows."""

    delivery: str
    attempt_id: str
    """For one that was withdrawn: it is in flight no longer."""


@dataclass(frozen=True, kw_only=True)
class Clean:
    """The outcome of this pod had been stored by a dispatcher before us."""

    pod: Mapping[str, Any]
    profile: QueueProfile
    is_success: bool


@dataclass(frozen=True, kw_only=True)
class SetLimit:
    """So many pods may be in flight."""

    limit: int


Command = Submit | Adopt | Terminate | Close | Requeue | ConfirmOwner | Clean | SetLimit


class CelerySide(Protocol):
    """The way to and from Celery's thread."""

    def post(self, event: Event) -> None:
        """Hands an event to Celery's thread; returns at once."""

    async def commands(self) -> list[Command]:
        """The commands that came since the last call, as soon as there are any."""


class Questions(Protocol):
    """What only Celery's application can answer. Each call blocks and may raise what its backend or broker raise."""

    def has_outcome(self, attempt_id: str, *, besides: str | None = None) -> bool:
        """Whether a final outcome of a task is stored, but for one of this time; False where nothing stores any."""

    def alive(self) -> set[str] | None:
        """The names of the workers that answer a ping; None where not even this one's answer arrives."""

    def store_lost(self, row: PodRow) -> str | None:
        """Stores the failure of an attempt whose pod is gone, unless an outcome is stored; the state stored then."""

    def is_revoked(self, attempt_id: str) -> bool:
        """Whether a task was revoked. Does not block."""
