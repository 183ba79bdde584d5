"""Waits: what an attempt may wait for, how long it may, and what happens then. Pure.

Every wait has a kind, and every kind a rule such as `fail after 10m`: what the queue says (`[queues.NAME.waits]`), else
a default. Three things can happen at a deadline. `wait`: it goes on, and a warning is logged. `retry`: the attempt ends
as a fault of the infrastructure, whose budget pays for another one. `fail`: it ends as the task's own failure. The
dispatcher keeps the rules of pods, the scheduler those of messages that nobody reads; `tasks explain` shows both.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dispatcher.attempts import limits
from dispatcher.manifests.container_pod_options import PodOptions
from dispatcher.options import QueueProfile

Action = Literal["wait", "retry", "fail"]
ACTIONS: tuple[Action, ...] = get_args(Action)

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RULE = re.compile(rf"({'|'.join(ACTIONS)})\s+after\s+(\d+(?:\.\d+)?)\s*([smhd])")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What happens to one kind of wait, and after how long. `after_s` 0: there is no deadline."""

    action: Action = "wait"
    after_s: float = 0.0

    def __str__(self) -> str:
        """As the settings spell it."""
        return f"{self.action} after {spelled(self.after_s)}" if self.after_s > 0 else "wait"

    @property
    def consequence(self) -> str:
        """What happens at the deadline, for people."""
        return _CONSEQUENCES[self.action]


_CONSEQUENCES: Mapping[Action, str] = {
    "wait": "it goes on waiting",
    "retry": "the attempt ends as a fault of the infrastructure, and another one may follow",
    "fail": "it fails",
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of wait."""

    what: str
    """What for: ends the sentence "it waits for …"."""
    remedy: str
    """What to do about it."""
    # Where a kind says nothing else, nothing ends that may still come right; after an hour people are warned.
    default: Rule = Rule(action="wait", after_s=3600.0)
    reasons: frozenset[str] = frozenset()
    """The words that the record has for it: Kubernetes' own, or ours in the same style."""
    only_wait: str = ""
    """Why nothing but `wait` makes sense; empty where the others do."""
    is_of_messages: bool = False
    """Before a dispatcher or a worker has the message: both sides have it, and the scheduler keeps it."""


KINDS: Mapping[str, Kind] = {
    "sending": Kind(
        what="the broker to take its message",
        remedy="see that the broker and the scheduler run: `podyard config check`",
        only_wait="the message may be with the broker already",
        is_of_messages=True,
    ),
    "consumer": Kind(
        what="a consumer of its queue",
        remedy="start a consumer of the queue (`podyard queues list` says which command)",
        is_of_messages=True,
    ),
    "queued": Kind(
        what="its turn in its queue",
        remedy="start more workers for the queue, or raise their concurrency",
        is_of_messages=True,
    ),
    "slot": Kind(
        what="a free slot",
        remedy="raise the limit that the reason names, or send less at once",
        reasons=limits.SLOT_REASONS | {"CreateRate", "CreatesUnderWay"},
    ),
    "quota": Kind(
        what="the quota of its namespace",
        remedy="raise the ResourceQuota of the namespace, or free what it counts",
        reasons=frozenset({"QuotaExceeded", "QuotaUnknown"}),
    ),
    "api_server": Kind(
        what="the API server",
        remedy="see that the API server answers and is not overloaded",
        reasons=frozenset(
            {
                "ApiServerError",
                "ApiServerUnavailable",
                "Conflict",
                "LimitsUnknown",
                "RequestTimeout",
                "ServiceAccountPending",
                "TooManyRequests",
                "Unauthorized",
                "WebhookDenied",
                "WebhookUnavailable",
            }
        ),
    ),
    "permission": Kind(
        what="the dispatcher's permission to create pods",
        remedy="give the dispatcher's account what it lacks: `podyard config check` names it",
        default=Rule(action="retry", after_s=300.0),  # an API server that has just started knows its roles only later
        reasons=frozenset({"NotPermitted"}),
    ),
    "old_pod": Kind(
        what="the pod of an earlier delivery to go",
        remedy="see why that pod does not end (a node that is gone, a finalizer), and delete it",
        reasons=frozenset({"PodLeaving"}),
        only_wait="the task may still run there",
    ),
    "results": Kind(
        what="the result backend",
        remedy="bring the result backend back",
        reasons=frozenset({"ResultBackendUnavailable"}),
        only_wait="no failure could be stored, and its outcome may stand there already",
    ),
    "unschedulable": Kind(
        what="a node",
        remedy="lower the pod's requests, correct its node selector or tolerations, or add a node",
        default=Rule(action="retry"),
        reasons=frozenset({"Unschedulable", "SchedulingGated", "SchedulerError"}),
    ),
    "image": Kind(
        what="its image",
        remedy="check the image's name and tag, and whether the cluster may pull it (imagePullSecrets)",
        default=Rule(action="fail"),
        reasons=frozenset(
            {
                "ErrImageNeverPull",
                "ErrImagePull",
                "ImageInspectError",
                "ImagePullBackOff",
                "InvalidImageName",
                "RegistryUnavailable",
            }
        ),
    ),
    "config": Kind(
        what="its Secrets and ConfigMaps",
        remedy="make the Secret or ConfigMap that the message names, in the pod's namespace",
        default=Rule(action="fail"),
        reasons=frozenset({"CreateContainerConfigError", "CreateContainerError"}),
    ),
    "volume": Kind(
        what="its volumes",
        remedy="see that the volumes, claims, Secrets and ConfigMaps that the pod mounts exist and can be attached",
        default=Rule(action="retry"),
        reasons=frozenset({"FailedAttachVolume", "FailedMapVolume", "FailedMount"}),
    ),
    "start": Kind(
        what="its container to start",
        remedy="see the events of its pod: `kubectl describe pod`",
        default=Rule(action="retry"),
    ),
}
"""Every kind of wait, in the order in which an attempt may meet them. Those of a pod whose default has no time take it
from `schedule_timeout_s` and `startup_timeout_s`."""

MESSAGE_KINDS = tuple(name for name, kind in KINDS.items() if kind.is_of_messages)
FATAL_KINDS = frozenset({"image", "config"})
"""Waits that Kubernetes' words call failures at once; a rule of the queue gives them time."""

_BY_REASON = {reason: name for name, kind in KINDS.items() for reason in kind.reasons}


def read(text: object) -> Rule:
    """The rule that a text means: `wait`, or `ACTION after TIME` such as `fail after 10m`.

    Raises ValueError whose text ends the sentence "must be …".
    """
    if isinstance(text, str):
        if text.strip() == "wait":
            return Rule()
        found = _RULE.fullmatch(text.strip())
        if found and float(found[2]) > 0:
            return Rule(action=action(found[1]), after_s=float(found[2]) * _UNITS[found[3]])
    raise ValueError('"wait", or "wait", "retry" or "fail" with a time, such as "fail after 10m" (s, m, h, d)')


def action(word: str) -> Action:
    """The action of that name. Raises ValueError."""
    for known in ACTIONS:
        if word == known:
            return known
    raise ValueError(f"{word!r} is none of {', '.join(ACTIONS)}")


def problem(rules: object, *, is_of_messages: bool = False) -> str | None:
    """What is wrong with the `waits` of a queue, if anything. `is_of_messages`: of a queue without pods."""
    if not isinstance(rules, Mapping):
        return 'must be a table of waits, such as { image = "fail after 10m" }'
    known = MESSAGE_KINDS if is_of_messages else tuple(KINDS)
    for name, text in rules.items():
        if name not in known:
            side = ' with side = "celery"' if is_of_messages and name in KINDS else ""
            return f"{name!r} is nothing that is waited for{side}; known are {', '.join(known)}"
        try:
            rule = read(text)
        except ValueError as error:
            return f"{name} must be {error}"
        if rule.action != "wait" and KINDS[name].only_wait:
            return f'{name} can only be "wait" or "wait after …": {KINDS[name].only_wait}'
    return None


def rule_of(kind: str, *, profile: QueueProfile, options: PodOptions | None = None) -> Rule:
    """What the rule of a kind is on a queue. A time limit of the task itself (`options`) wins over its deadline."""
    text = profile.waits.get(kind)
    rule = KINDS[kind].default if text is None else read(text)
    limit_s = _limit_s(kind, options)
    if limit_s is not None:
        # An author's time-out is meant to end the task, though its queue only waits; the kind's default says as what.
        action = rule.action if rule.action != "wait" else KINDS[kind].default.action
        return Rule(action=action, after_s=limit_s)
    if text is None and rule.after_s == 0 and kind in _LIMITS:
        after_s = profile.schedule_timeout_s if kind == "unschedulable" else profile.startup_timeout_s
        return Rule(action=rule.action, after_s=after_s) if after_s > 0 else Rule()
    return rule


_LIMITS = frozenset({"unschedulable", "image", "config", "volume", "start"})
"""The waits of a pod, which `schedule_timeout_s` and `startup_timeout_s` bound."""


def _limit_s(kind: str, options: PodOptions | None) -> float | None:
    if options is None or kind not in _LIMITS:
        return None
    return options.schedule_timeout_s if kind == "unschedulable" else options.startup_timeout_s


def counts_from_its_first_sight(kind: str, *, profile: QueueProfile, options: PodOptions) -> bool:
    """Whether the clock of a pod's wait begins when it is first seen; else when the pod was made, or had its node."""
    return kind in profile.waits and _limit_s(kind, options) is None


def kind_of(*, reason: str | None, is_pod: bool, is_scheduled: bool) -> str:
    """The kind of wait that the record's words mean. `is_pod`: there is a pod; `is_scheduled`: it has a node."""
    known = _BY_REASON.get(reason or "")
    if not is_pod:
        return known or "slot"
    # The scheduler's conditions only: containers of a pod without a node say nothing yet.
    if not is_scheduled:
        return "unschedulable"
    # It has a node: what the scheduler said before is over, whatever word stands there still.
    return known if known in _LIMITS and known != "unschedulable" else "start"


def is_volume(reason: str | None) -> bool:
    """Whether a warning about a pod speaks of its volumes."""
    return _BY_REASON.get(reason or "") == "volume"


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What an attempt waits for now. Times are seconds of one clock."""

    kind: str
    reason: str | None
    detail: str | None
    since_mono_s: float
    rule: Rule
    said_by: str
    """The setting that holds the rule."""

    @property
    def deadline_mono_s(self) -> float | None:
        """When its rule acts; None for never."""
        return self.since_mono_s + self.rule.after_s if self.rule.after_s > 0 else None

    def is_expired(self, now_mono_s: float) -> bool:
        """Whether the deadline has come."""
        return self.deadline_mono_s is not None and self.deadline_mono_s <= now_mono_s


def too_long(wait: Wait, *, subject: str) -> str:
    """The sentence for what ends at a deadline: what it waited for, how long, why, and the remedy."""
    kind = KINDS[wait.kind]
    happened = _NOT_HAPPENED.get(wait.kind)
    begin = f"{subject} {happened} within" if happened else f"{subject} waited for {kind.what} longer than"
    why = ": ".join(word for word in (wait.reason, wait.detail) if word) or "nobody gives a reason"
    limit = f"{begin} {spelled(wait.rule.after_s)} ({wait.said_by})"
    return f"{limit}: {why[:2000]}{TO_DO}{kind.remedy}"


TO_DO = "; to do: "
"""What a message has before its remedy; who shows the remedy by itself cuts the message here."""


_NOT_HAPPENED = {
    "unschedulable": "was not scheduled",
    "image": "was not started",
    "config": "was not started",
    "volume": "was not started",
    "start": "was not started",
}


def said_by(kind: str, *, profile: QueueProfile, options: PodOptions | None = None, queue: str) -> str:
    """Which setting bounds a wait, or could, as people know it."""
    is_of_scheduling = kind == "unschedulable"
    if _limit_s(kind, options) is not None:
        return f"{'schedule' if is_of_scheduling else 'startup'}_timeout_seconds of the task"
    if kind in _LIMITS and kind not in profile.waits:
        return f"{'schedule' if is_of_scheduling else 'startup'}_timeout_s of the queue {queue}"
    return f"waits.{kind} of the queue {queue}"


def details(wait: Wait) -> dict[str, Any]:
    """Reason and cause of an attempt that ends at its deadline, for programs."""
    cause = "infrastructure" if wait.rule.action == "retry" else "application"
    return {"reason": wait.reason or _REASONS.get(wait.kind, "WaitedTooLong"), "cause": cause, "waited_for": wait.kind}


_REASONS = {"unschedulable": "NotScheduled", "start": "NotStarted", "consumer": "NoConsumer", "queued": "NotTaken"}


def spelled(seconds: float) -> str:
    """A time as the rules spell it: the largest unit that keeps it whole."""
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.15g} {unit}"
    return f"{seconds:.15g} s"


def described(rules: Mapping[str, str]) -> Iterable[tuple[str, Rule]]:
    """The rules of a queue that are written, in the order of the kinds."""
    return ((name, read(rules[name])) for name in KINDS if name in rules)
