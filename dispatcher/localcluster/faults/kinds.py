"""The language of faults: what can go wrong, as values with a JSON form. Pure.

Two families. A *standing* fault changes how calls, watches or pods fare while it stands: until it was used `times`
times, until `for_s` seconds are over, or until it is removed. A *happening* takes place at once, or `after_s` seconds
from now, and again every `every_s` seconds. Names are patterns as in a shell: `*`, `train-*`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class FaultError(ValueError):
    """A fault cannot be understood, or met nothing; the message says which field, and what to write."""


class _Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    after_s: Seconds = 0.0
    """Begins so many seconds after it was asked for."""


class _Standing(_Fault, frozen=True, kw_only=True):
    times: Count | None = None
    """Used at most so often; None: for ever."""
    for_s: Seconds | None = None
    """Ends so many seconds after it began."""
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Of each use."""


class _OfCalls(_Standing, frozen=True, kw_only=True):
    verb: str = "*"
    """create, get, list, watch, update, patch, delete, deletecollection, log, evict."""
    resource: str = "*"
    """pods, secrets, configmaps, events …, selfsubjectaccessreviews; what is no object by its path: /version."""
    namespace: str = "*"
    name: str = "*"
    """Of the object; a create is matched by the name in its body, lists and watches have an empty name."""


class Fail(_OfCalls, frozen=True, kw_only=True, tag="fail"):
    """Calls fail."""

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 500
    how: Literal["answer", "cut", "hang"] = "answer"
    """`answer` with the status; `cut` the connection without an answer; `hang` until the caller gives up."""
    done: bool = False
    """True: it succeeded, but the caller sees the failure. False: nothing was done."""
    retry_after_s: Annotated[int, msgspec.Meta(ge=0)] | None = None
    reason: str = ""
    """Kubernetes' word; empty: the usual one of the status."""
    message: str = ""


class Garble(_OfCalls, frozen=True, kw_only=True, tag="garble"):
    """Calls are answered with success, and with a body that is not what was asked for, as broken proxies do."""

    body: Literal["null", "object", "list", "latin1", "empty", "truncated", "broken_off", "html"] = "null"
    """JSON's `null`, `{}` or `[]`; JSON in Latin-1 bytes; nothing at all; JSON that ends too early; an answer whose
    connection is closed before the promised length; a page for people."""
    status: Annotated[int, msgspec.Meta(ge=200, le=299)] | None = None
    """None: 204 for an `empty` body, else 201 of what creates and 200 of all others."""
    done: bool = False
    """True: what was asked for is done nevertheless. False: nothing was done. Streams (watch, log) are never begun."""


class Delay(_OfCalls, frozen=True, kw_only=True, tag="delay"):
    """Calls take longer: `seconds`, and up to `jitter_s` more. Several delays of one call add up."""

    seconds: Seconds
    jitter_s: Seconds = 0.0


class Disturb(_Standing, frozen=True, kw_only=True, tag="disturb"):
    """Events of watches come twice, two neighbours in the wrong order, after a line of garbage, or not at all."""

    how: Literal["duplicate", "reorder", "garbage", "drop"]
    resource: str = "*"


class Unpullable(_Standing, frozen=True, kw_only=True, tag="unpullable"):
    """Images cannot be pulled: ErrImagePull, then ImagePullBackOff; `times` counts attempts."""

    image: str = "*"
    cause: Literal["not_found", "denied", "rate_limit", "unreachable"] = "not_found"
    message: str = ""
    """Empty: as a runtime words the cause."""


class Unschedulable(_Standing, frozen=True, kw_only=True, tag="unschedulable"):
    """No node takes pods, for one of the four usual reasons (`selector` stands for affinity too)."""

    pod: str = "*"
    namespace: str = "*"
    cause: Literal["cpu", "memory", "selector", "taint", "volume"] = "cpu"
    message: str = ""


class Deny(_Standing, frozen=True, kw_only=True, tag="deny"):
    """RBAC refuses: calls are 403, and a SelfSubjectAccessReview says no. In RBAC's words, not in those of `fail`."""

    verb: str = "*"
    """get (also of pods/log), create (also of pods/eviction), list, watch, update, patch, delete, deletecollection."""
    resource: str = "*"
    """pods, pods/log, secrets …"""
    namespace: str = "*"


class _Happening(_Fault, frozen=True, kw_only=True):
    every_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Again and again; None: once."""
    jitter_s: Seconds = 0.0
    """Up to so many seconds more before each of them."""
    times: Count | None = None
    """With `every_s`: how often at most."""


class CutWatches(_Happening, frozen=True, kw_only=True, tag="cut_watches"):
    """All open watches end now: `abort` resets the connection, `end` ends the stream cleanly."""

    resource: str = "*"
    how: Literal["abort", "end"] = "abort"


class SilenceWatches(_Happening, frozen=True, kw_only=True, tag="silence_watches"):
    """All open watches send nothing, with their connection open, as half-open TCP does. New ones are not touched."""

    resource: str = "*"
    for_s: Seconds | None = None
    """None: until somebody closes them."""


class ExpireVersions(_Happening, frozen=True, kw_only=True, tag="expire_versions"):
    """Every resourceVersion so far is 410. Open watches end: with an ERROR event, or cleanly."""

    how: Literal["event", "status"] = "event"
    """How a watch from an old version is refused from now on: by an ERROR event of code 410, or by HTTP 410."""


class _ToPods(_Happening, frozen=True, kw_only=True):
    pod: str = "*"
    namespace: str = "*"
    pick: Count | None = None
    """So many of those that match, at random; None: all of them."""


class Evict(_ToPods, frozen=True, kw_only=True, tag="evict"):
    """The kubelet ends pods for a reason of the node: phase Failed, containers killed, the object stays."""

    reason: str = "Evicted"
    """Others that kubelets give: NodeShutdown, UnexpectedAdmissionError, NodeAffinity, Preempting."""
    message: str = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 12Mi. "


class Preempt(_ToPods, frozen=True, kw_only=True, tag="preempt"):
    """The scheduler makes room: condition DisruptionTarget, then a delete with the pod's grace period."""


class Oom(_ToPods, frozen=True, kw_only=True, tag="oom"):
    """A container is killed for its memory: 137, OOMKilled."""

    container: str = ""
    """Empty: the first one."""


class Kill(_ToPods, frozen=True, kw_only=True, tag="kill"):
    """A container's process gets SIGKILL: 137, Error."""

    container: str = ""
    """Empty: the first one."""


class Delete(_ToPods, frozen=True, kw_only=True, tag="delete"):
    """Somebody deletes pods by hand."""

    grace_s: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """None: the pod's own."""


class LoseNode(_Happening, frozen=True, kw_only=True, tag="lose_node"):
    """The node answers no longer: NotReady and tainted, its pods go on unseen, new ones stay Pending."""

    evict_after_s: Seconds | None = None
    """Then pods are marked for deletion (TaintManagerEviction), and stay Terminating; None: never."""
    phase: Literal["Running", "Unknown"] = "Running"
    """What its pods are said to be: as it was, or `Unknown` with reason NodeLost, as older clusters say."""


class RestoreNode(_Happening, frozen=True, kw_only=True, tag="restore_node"):
    """The node is back: what happened meanwhile is reported, pods that were deleted meanwhile end."""


class RemoveNode(_Happening, frozen=True, kw_only=True, tag="remove_node"):
    """A lost node is given up: its pods are Failed and deleted (DeletionByPodGC). Their processes run on, unseen,
    until `restore_node`."""


class RestartApiserver(_Happening, frozen=True, kw_only=True, tag="restart_apiserver"):
    """The API server restarts under running pods: connections are cut, calls get no answer for a while, then 403.

    Objects stay, as in a real cluster whose etcd lives on. An API server that has just started may not have read its
    roles yet, and refuses what it allowed before and will allow again.
    """

    down_s: Seconds = 1.0
    """Connections are closed without an answer for so long."""
    forbidden_s: Seconds = 0.0
    """Then everything is 403 Forbidden in RBAC's words, access reviews too, for so long."""


OfCalls = Fail | Garble | Delay
Standing = Fail | Garble | Delay | Disturb | Unpullable | Unschedulable | Deny
ToPods = Evict | Preempt | Oom | Kill | Delete
Happening = (
    CutWatches
    | SilenceWatches
    | ExpireVersions
    | Evict
    | Preempt
    | Oom
    | Kill
    | Delete
    | LoseNode
    | RestoreNode
    | RemoveNode
    | RestartApiserver
)
Fault = Standing | Happening
STANDING = (Fail, Garble, Delay, Disturb, Unpullable, Unschedulable, Deny)


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of faults."""

    seed: int | None = None
    faults: tuple[Fault, ...] = ()


def read(thing: Any) -> Fault:
    """One fault from its JSON form; raises FaultError that names the field."""
    found: Fault = _convert(thing, Fault)
    return found


def read_all(thing: Any) -> Sequence[Fault]:
    """One fault, or a list of them; raises FaultError that names the entry and the field."""
    found: tuple[Fault, ...] = _convert([thing] if isinstance(thing, dict) else thing, tuple[Fault, ...])
    return found


def read_script(thing: Any) -> Script:
    """A file's content: `{"seed": 7, "faults": [...]}` or the list alone; raises FaultError."""
    found: Script = _convert({"faults": thing} if isinstance(thing, list) else thing, Script)
    return found


def _convert(thing: Any, shape: Any) -> Any:
    try:
        return msgspec.convert(thing, shape)
    except msgspec.ValidationError as error:
        raise FaultError(f"not a fault: {error}; docs/testing.md lists the kinds and their fields") from None


def write(fault: Fault) -> dict[str, Any]:
    """The JSON form; what is as by default is left out."""
    plain: dict[str, Any] = msgspec.to_builtins(fault)
    defaults = dict(zip(fault.__struct_fields__[::-1], fault.__struct_defaults__[::-1], strict=False))
    return {key: value for key, value in plain.items() if key == "kind" or defaults.get(key, plain) != value}
