"""A launch claim: what says that a pod may have been created for an attempt, and what follows for who finds it. Pure.

A pod's name is a claim only as long as the pod is there. Where the result backend knows claims (`routing`'s does), a
dispatcher writes one before it sends a create, so that a message that is delivered again after its pod has gone, though
nobody stored an outcome, runs no second time: docs/adr/0006-claim-before-create.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

LEASE_S = 10.0
"""A claim that was not renewed for so long belongs to a dispatcher that is dead, stopped or cut off."""
RENEW_S = 2.5
FRESH_S = 5.0
"""So long after it was asked for, a claim entitles to send a create. Below the lease: a dispatcher that was stopped in
between asks again, and a create that was sent is settled when the lease is over."""

LAUNCHING, LOST = "launching", "lost"

Action = Literal["create", "replace", "look", "wait", "lose", "report", "drop"]
"""`create`: it is ours. `replace`: an earlier launch of the same task stands there, put ours in its place. `look`: ask
for the pod. `wait`: somebody is at it. `lose`: nobody can say what became of it; who manages to note that reports it.
`report`: that was noted, perhaps not reported. `drop`: the message is done with, and no verdict is missing."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Who asks, or asked, for the pod of a launch. `token` is that of one delivery in one process."""

    token: str
    retries: int
    owner: str
    state: str = LAUNCHING
    replaced: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """The order of the launches of one task id, as `message.LaunchKey.place`."""
        return (self.replaced, self.retries)

    def encode(self) -> str:
        """The JSON that the result backend keeps."""
        return json.dumps(vars(self), separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the result backend says to a claim. `held` is what stands there instead of ours, None where ours does now.

    `age_s` are the seconds since that was written or renewed, `has_outcome` whether the task's outcome is stored.
    """

    held: str | None = None
    age_s: float = 0.0
    has_outcome: bool = False


@dataclass(frozen=True)
class Step:
    """What to do, and why: a word for people and logs."""

    action: Action
    reason: str
    owner: str = ""
    """The dispatcher whose claim was found."""


def decide(answer: Answer, *, place: tuple[int, int], was_ours: bool, is_pod_missing: bool = False) -> Step:
    """What a dispatcher does with a message whose claim was answered so. Pure.

    `place` is that of its launch (`LaunchKey.place`). `was_ours`: this delivery held the claim before.
    `is_pod_missing`: the pod was looked for and is not there.
    """
    # Before all else: behind an outcome no claim matters, not even our own.
    if answer.has_outcome:
        return Step("drop", "Ended")
    if answer.held is None:
        return Step("create", "Claimed")
    fields = _fields(answer.held)
    claim = _claim(fields)
    if claim is None:  # a Celery worker's: the body runs there, or ran
        return Step("drop", "Blocked" if "blocked" in fields else "RunsElsewhere")
    # Celery sends a retry, or what replaces a task, when the body of the launch before is done: its claim is no doubt.
    if claim.place < place:
        return Step("replace", "EarlierLaunch", claim.owner)
    if claim.place > place:
        return Step("drop", "LaterLaunch", claim.owner)
    return Step(*_of_same_launch(answer, claim, was_ours=was_ours, is_pod_missing=is_pod_missing), claim.owner)


def _of_same_launch(answer: Answer, claim: Claim, *, was_ours: bool, is_pod_missing: bool) -> tuple[Action, str]:
    """Another delivery, or another dispatcher, has asked for the pod that we want."""
    if claim.state == LOST:
        # Whoever has noted the loss reports it; another delivery reports again, for the first may have died in
        # between. The first verdict stands, so twice does no harm.
        return ("drop" if was_ours else "report", "PodLost")
    if not is_pod_missing:
        return ("look", "ClaimedBefore")
    # Its dispatcher may be between the claim and the create; it renews every RENEW_S.
    if answer.age_s < LEASE_S:
        return ("wait", "ClaimedBefore")
    return ("lose", "PodLost")


def is_of_launch(held: str | None, *, place: tuple[int, int]) -> bool:
    """Whether a text is the claim of a dispatcher for this launch."""
    claim = _claim(_fields(held)) if held is not None else None
    return claim is not None and claim.place == place


def _fields(text: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    # Whoever can write to the result backend can write nonsense: that must not end the loop.
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _claim(fields: Mapping[str, Any]) -> Claim | None:
    """The claim of a dispatcher; None for that of a Celery worker, whose body runs or ran."""
    try:
        return Claim(**fields["launch"])
    except (KeyError, TypeError):
        return None
