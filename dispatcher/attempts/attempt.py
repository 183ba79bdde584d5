"""An attempt: one task message that has, or will have, a pod of its own; and the register of those in flight.

All fields are changed on the loop's thread only. `callbacks` are Celery's and are called on the hub's thread only. The
register is a cache: the pods in the cluster are the truth, and adoption rebuilds it from them.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from dispatcher.attempts import wait_rules
from dispatcher.manifests import builder
from dispatcher.manifests.container_pod_options import PodOptions
from dispatcher.options import QueueProfile
from dispatcher.protocol.message import Message
from dispatcher.status import pod_events
from dispatcher.status.observation import Observation


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """What Celery's Request wants to hear, as `BasePool.apply_async` receives it."""

    accept: Callable[..., Any]
    done: Callable[..., Any]
    error: Callable[..., Any]
    timeout: Callable[..., Any]

    @property
    def request(self) -> Any:
        """Celery's Request, whose methods these are."""
        return getattr(self.accept, "__self__", None)


@dataclass(kw_only=True, eq=False)
class Attempt:
    """One launch. Its `stage` goes `waiting`, `creating`, `created`, `ended`; a parked create is `waiting` again."""

    message: Message
    profile: QueueProfile
    callbacks: Callbacks
    received_at: datetime
    delivery: str = field(default_factory=lambda: uuid4().hex)
    """Names this delivery of its message, in a claim."""
    pod: str = ""
    namespace: str = ""
    manifest: bytes = b""
    uid: str | None = None
    stage: str = "waiting"
    reason: str | None = None
    """Why it waits, in one CamelCase word, as Kubernetes gives reasons."""
    detail: str | None = None
    is_accepted: bool = False
    is_any_image: bool = False
    """A pod of any image: its exit code decides, it leaves no outcome."""
    timeout_s: float | None = None
    task_wishes: Mapping[str, Any] = field(default_factory=dict)
    """What the task itself asks of its pods; the message may ask for more."""
    has_payload: bool = False
    """Its message travels in a Secret that is created after the pod."""
    create_failures: int = 0
    """Creates of its pod that the server refused for now, or did not answer."""
    created_at: datetime | None = None
    ours_mono: float = 0.0
    """When it was certain last that no other dispatcher has it, on the monotonic clock; 0 is our own start."""
    created_mono: float = 0.0
    """The same on the monotonic clock, to compare with the time of a list."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_timed_out: bool = False
    """Celery has stored that its hard limit passed: how the pod ends does not count any more."""
    scheduled_mono: float | None = None
    """When its node was known, on the monotonic clock."""
    phase: str = "Pending"
    """Of its pod, as Kubernetes has it."""
    seen: Observation | None = None
    """What its pod said last."""
    heard_mono: float = 0.0
    """When that was, on the monotonic clock."""
    wait: wait_rules.Wait | None = None
    """What it waits for, as of the last note (`dispatcher.attempts.status_notes`); times are of the monotonic clock."""
    first_waits: dict[str, float] = field(default_factory=dict)
    """Kind of wait -> when it was first seen."""
    clue: pod_events.Event | None = None
    """What the cluster's events said last about a pod that does not start."""
    doubt_mono: float | None = None
    """When the first create was sent of which it is not known whether it worked."""
    is_in_doubt: bool = False
    """A create had no clear answer: there may be a pod that nobody saw yet."""
    is_given_up: bool = False
    """Its deadline has come and it is being ended: that takes calls to the API server."""
    awaits_result_mono: float | None = None
    """Since when its container has ended and the result sidecar has not."""
    is_pod_gone: bool = False
    """Its pod was deleted before its outcome was told: there is nothing left to clean up."""
    epilogue: tuple[str, ...] = ()
    """What is added to its log: how it failed, and what the cluster said about its pod."""
    timer: Any = None
    on_terminate: Callable[["Attempt"], None] = field(default=lambda _: None, repr=False)

    @property
    def key(self) -> tuple[str, int]:
        """(task id, Celery retries): what makes a launch one and the same."""
        return (self.message.id, self.message.retries)

    @functools.cached_property
    def wanted(self) -> PodOptions:
        """What its sender asked for around the pod."""
        return builder.wanted_of(self.message)

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self.message.queue

    def left_s(self, now: datetime) -> float | None:
        """Seconds until its hard time limit; None where there is none, or it has not begun.

        Never more than the limit itself: a node whose clock is ahead must not give it more.
        """
        if self.timeout_s is None or self.started_at is None:
            return None
        return min(self.timeout_s, max(0.0, self.timeout_s - (now - self.started_at).total_seconds()))

    def terminate(self, signal: Any = None) -> None:  # noqa: ARG002 - the signature is Celery's
        """Ends it wherever it is; Celery calls this on `revoke(terminate=True)`."""
        self.on_terminate(self)


class Register:
    """The attempts in flight, found by key and by pod, and counted by stage."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, int], Attempt] = {}
        self._by_pod: dict[tuple[str, str], Attempt] = {}

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def has(self, key: tuple[str, int]) -> bool:
        """Whether an attempt of this key is in flight."""
        return key in self._by_key

    def add(self, attempt: Attempt) -> bool:
        """Registers it, unless one of the same key is there. Says whether it did."""
        if attempt.key in self._by_key:
            return False
        self._by_key[attempt.key] = attempt
        return True

    def move(self, attempt: Attempt, stage: str) -> None:
        """Brings an attempt to another stage."""
        attempt.stage = stage

    def stages(self) -> Counter[str]:
        """How many attempts are in each stage."""
        return Counter(attempt.stage for attempt in self._by_key.values())

    def name_pod(self, attempt: Attempt) -> None:
        """Makes it found by the pod's name, before the pod is created: events may be faster than answers."""
        self._by_pod[(attempt.namespace, attempt.pod)] = attempt

    def by_pod(self, namespace: str, pod: str) -> Attempt | None:
        """The attempt that owns a pod, if it is one of ours."""
        return self._by_pod.get((namespace, pod))

    def remove(self, attempt: Attempt) -> None:
        """Ends and forgets it. A second time does nothing."""
        if self._by_key.get(attempt.key) is attempt:
            self.move(attempt, "ended")
            del self._by_key[attempt.key]
        if self._by_pod.get((attempt.namespace, attempt.pod)) is attempt:
            del self._by_pod[(attempt.namespace, attempt.pod)]
