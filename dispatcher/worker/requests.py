"""The requests of Celery that wait for their pods, on Celery's thread alone.

The other half of an attempt: the callbacks of Celery's Request, and which of them were called. Found by the delivery
that the events and commands of `attempts.celery_side` name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dispatcher.attempts.celery_side import Terminate
from dispatcher.manifests import builder
from dispatcher.options import QueueProfile
from dispatcher.protocol import message
from dispatcher.protocol.message import Message
from dispatcher.worker.bridge import Bridge

STATUS_TIME_S = 1.0
"""Times in a pod's status are cut to whole seconds."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """The callbacks of Celery's Request, as `BasePool.apply_async` receives them."""

    accept: Callable[..., Any]
    done: Callable[..., Any]
    error: Callable[..., Any]
    timeout: Callable[..., Any]

    @property
    def request(self) -> Any:
        """Celery's Request, whose methods these are."""
        return getattr(self.accept, "__self__", None)


@dataclass(frozen=True, kw_only=True)
class TimeLimits:
    """Seconds, or None for no limit."""

    hard_s: float | None = None
    soft_s: float | None = None

    def or_else(self, other: "TimeLimits") -> "TimeLimits":
        """These, and those of another where there is none of a kind, as far as they can be kept."""
        return TimeLimits(
            hard_s=message.kept_limit_s(self.hard_s or other.hard_s),
            soft_s=message.kept_limit_s(self.soft_s or other.soft_s),
        )


# By identity: two deliveries of one message differ in nothing else that would count.
@dataclass(kw_only=True, eq=False)
class HeldRequest:
    """One request, from its delivery to its end. Celery knows it as the result of `apply_async`."""

    delivery: str
    message: Message
    profile: QueueProfile
    callbacks: Callbacks
    bridge: Bridge
    timeout_s: float | None = None
    """Its hard time limit."""
    pod: str = ""
    is_accepted: bool = False
    is_timed_out: bool = False
    """Celery has stored, or is about to store, that its hard limit passed: how the pod ends does not count any more."""
    is_ended: bool = False
    """Its outcome is known here."""
    answer: Callable[[], Any] | None = None
    """The callback that follows once nothing stands in the way of its message any more."""
    began_at: datetime | None = None
    """When its container started, but not before its pod was made: a pod's status has whole seconds."""
    timer: Any = None
    copies: "list[HeldRequest]" = field(default_factory=list)
    """What was delivered again while this one waited, under another tag: acknowledged with it, and not before."""

    @property
    def request(self) -> Any:
        """Celery's Request."""
        return self.callbacks.request

    def has_tag_of(self, other: "HeldRequest") -> bool:
        """Whether the broker knows both by one tag, so that acknowledging one acknowledges the other.

        On Redis a message keeps its tag, a text, for ever; a number counts the deliveries of one channel.
        """
        tag, others = (getattr(one.request.message, "delivery_tag", None) for one in (self, other))
        return isinstance(tag, str) and tag == others

    def terminate(self, signal: Any = None) -> None:
        """Ends it wherever it is; Celery calls this on `revoke(terminate=True)`."""
        self.stop_timer()
        self.bridge.send(Terminate(delivery=self.delivery))

    def left_s(self, started_at: datetime) -> float | None:
        """Seconds until it is ended from outside for its hard time limit; None where there is none.

        A task's pod keeps its limit itself, and is ended from outside only if it fails to: its body begins some time
        after its container, when the application is imported. A pod of any image is ended by nobody else; its container
        began within the second that its status names.
        """
        if self.timeout_s is None:
            return None
        is_any_image = self.message.name in builder.JUDGED_BY_EXIT_CODE
        limit_s = self.timeout_s + (STATUS_TIME_S if is_any_image else builder.START_ALLOWANCE_S)
        return left_s(started_at, limit_s=limit_s, now=datetime.now(UTC))

    def stop_timer(self) -> None:
        """Its hard time limit counts no longer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class HeldRequests:
    """All of them."""

    def __init__(self) -> None:
        self._by_delivery: dict[str, HeldRequest] = {}

    def __iter__(self) -> Iterator[HeldRequest]:
        return iter(list(self._by_delivery.values()))

    def __len__(self) -> int:
        return len(self._by_delivery)

    def hold(self, held: HeldRequest) -> None:
        """Takes one in."""
        self._by_delivery[held.delivery] = held

    def get(self, delivery: str) -> HeldRequest | None:
        """The request of a delivery, while it is held."""
        return self._by_delivery.get(delivery)

    def of_pod(self, pod: str) -> HeldRequest | None:
        """The request whose pod Celery knows as a process of this name. It looks at all: only a revocation asks."""
        return next((held for held in self._by_delivery.values() if held.pod == pod), None)

    def first_of(self, copy: HeldRequest) -> HeldRequest | None:
        """The request that `copy` is a second delivery of. Looks at all: it is rare."""
        key = copy.message.key
        return next((held for held in self._by_delivery.values() if held is not copy and held.message.key == key), None)

    def release(self, held: HeldRequest) -> None:
        """It is done with."""
        held.stop_timer()
        self._by_delivery.pop(held.delivery, None)


def left_s(started_at: datetime, *, limit_s: float, now: datetime) -> float:
    """Seconds until a hard time limit. Never more than all of it: a node whose clock is ahead must not give it more."""
    return min(limit_s, max(0.0, limit_s - (now - started_at).total_seconds()))
