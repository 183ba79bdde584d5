"""An attempt: one task message that has, or will have, a pod of its own, and what is known of it.

What was given with it never changes. What becomes known stands in frozen records, one for each stage of its life, which
`registry.Attempts` alone replaces, on the loop's thread. Nothing of Celery hangs on it: what Celery waits for is held
by `worker.requests`, under the same `delivery`, on Celery's thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.states import State
from dispatcher.attempts.wait_rules import Wait
from dispatcher.manifests import builder
from dispatcher.manifests.container_pod_options import PodOptions
from dispatcher.options import QueueProfile
from dispatcher.protocol.message import LaunchKey, Message
from dispatcher.protocol.outcome import Outcome
from dispatcher.status.observation import Observation
from dispatcher.status.pod_events import Event

NOTHING_SEEN = Observation(verdict="none")


@dataclass(frozen=True, kw_only=True)
class Pod:
    """Its pod, by name from the moment at which its manifest is built."""

    namespace: str = ""
    name: str = ""
    uid: str | None = None
    """None until the API server has given it."""
    created_at: datetime | None = None
    created_mono_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is needed to create its pod, and what came of creates so far."""

    manifest: bytes = b""
    """Empty once the API server has it."""
    has_secret: bool = False
    """Its message travels in a Secret that is created after the pod."""
    resources: frozenset[str] = frozenset()
    """What its pod asks for, in the words of a quota: `requests.cpu`, `limits.memory`, `pods` and the like."""
    failures: int = 0
    """Creates that the server refused for now, or did not answer."""
    is_in_doubt: bool = False
    """A create had no clear answer: there may be a pod that nobody has seen yet."""
    doubted_mono_s: float | None = None
    """When the first such create was sent, where it was ours."""

    @property
    def may_have_pod(self) -> bool:
        """Whether a create may have worked, the last or one before it: it does not end before its pod was looked for.

        `is_in_doubt` alone says whether that pod counts as a slot: a server that answers each later create with a no
        gives it back.
        """
        return self.is_in_doubt or self.doubted_mono_s is not None


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What its pod said last."""

    seen: Observation
    phase: str
    """Of the pod, as Kubernetes has it."""
    at_mono_s: float
    started_at: datetime | None = None
    ended_at: datetime | None = None
    scheduled_mono_s: float | None = None
    """When its node was known first."""
    is_last: bool = False
    """The pod object is gone: nothing will follow."""
    is_result_awaited: bool = False
    """The container has ended with 0, and the result sidecar has not reported."""
    result: Any = None
    """What the result sidecar reported: a `SidecarReport`."""
    result_awaited_mono_s: float | None = None
    """Since when the sidecar is waited for."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How it ended: what its row says of it, and the result for Celery, None while that is being read."""

    result: Outcome | BaseException | None = None
    phase: str | None = None
    """Of its row; None: that of its pod."""
    reason: str | None = None
    message: str | None = None
    cause: str | None = None
    node: str | None = None
    is_pod_gone: bool = False
    """There is no pod left to clean up."""
    epilogue: tuple[str, ...] = ()
    """What is added to its log: how it failed, and what the cluster said about its pod."""


class Closed(StrEnum):
    """Why nothing is left to do for an attempt here."""

    STORED = "stored"
    """Its outcome is stored."""
    TERMINATED = "terminated"
    """Celery has ended it, and stores the result itself."""
    WITHDRAWN = "withdrawn"
    """It was revoked, or has expired, before it had a pod."""
    DROPPED = "dropped"
    """It is done with, or another dispatcher's: the request ends without a result."""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """Which events about it Celery's side has got."""

    is_launched: bool = False
    is_started: bool = False
    is_ended: bool = False


# eq=False keeps the identity as the hash: attempts are keys of dicts and sets, and what is known of them changes.
@dataclass(kw_only=True, eq=False)
class Attempt:
    """One launch."""

    message: Message
    profile: QueueProfile
    received_at: datetime
    delivery: str = field(default_factory=lambda: uuid4().hex)
    """Names this delivery of its message: in a claim, and between the two threads."""
    timeout_s: float | None = None
    """Its hard time limit. A task's pod keeps it itself, from the body's begin on."""
    soft_timeout_s: float | None = None
    task_options: Mapping[str, Any] = field(default_factory=dict)
    """What the task itself asks of its pods; the message may ask for more."""
    stores_result: bool = True
    """Whether its outcome is stored; what stores none cannot be claimed."""
    expires_at: datetime | None = None
    state: State = State.QUEUED
    blocked: BlockedReason | None = None
    """Why it has no pod yet."""
    pod: Pod = Pod()
    launch: Launch = Launch()
    sighting: Sighting | None = None
    event: Event | None = None
    """What the cluster's events said last about a pod that does not start."""
    wait: Wait | None = None
    """What it waits for, as of its last row."""
    first_waits: dict[str, float] = field(default_factory=dict)
    """Kind of wait -> when it was first seen, monotonic seconds."""
    ending: Ending | None = None
    closed: Closed | None = None
    reported: Reported = Reported()
    # A time and no flag: whether it still counts depends on when this process stood still last.
    owned_mono_s: float = 0.0
    """When it was certain last that no other dispatcher has it; 0 is our own start."""
    is_missing: bool = False
    """A list of its namespace lacked its pod."""

    def __post_init__(self) -> None:
        self.key: LaunchKey = self.message.key
        self.is_any_image: bool = self.message.name in builder.JUDGED_BY_EXIT_CODE
        """A pod of any image: its exit code decides, it leaves no outcome."""
        self._options: PodOptions | None = None

    @property
    def options(self) -> PodOptions:
        """What its sender asked for around the pod."""
        if self._options is None:
            self._options = builder.pod_options_of(self.message)
        return self._options

    @property
    def id(self) -> str:
        """The attempt's id, which is the Celery task's."""
        return self.message.id

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self.message.queue

    @property
    def namespace(self) -> str:
        """Of its pod."""
        return self.pod.namespace

    @property
    def seen(self) -> Observation:
        """What its pod said last; nothing where it has said nothing."""
        return NOTHING_SEEN if self.sighting is None else self.sighting.seen

    @property
    def started_at(self) -> datetime | None:
        """When its container started."""
        return None if self.sighting is None else self.sighting.started_at

    @property
    def ended_at(self) -> datetime | None:
        """When its container ended."""
        return None if self.sighting is None else self.sighting.ended_at
