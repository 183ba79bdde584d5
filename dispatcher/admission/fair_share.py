"""Fair shares: how the slots of one limit are divided between the dispatchers of a deployment. Pure.

Each dispatcher writes an `Entry` into one object that all of them change only if nobody else has meanwhile
(`shared_limits`). It holds what it may use at most, its shares. A dispatcher grants itself no more than the others
leave, so the shares of one limit never add up to more than the limit. What it should have, its target, is the same for
whoever works it out: all get what they need; where that is too much all get the same, and a rest goes to whoever waits
longest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

WAIT_STEP_S = 1.0
"""Differences in waiting below this do not move a slot."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one dispatcher has and wants of one limit."""

    used: int = 0
    waits: int = 0
    oldest_s: float = 0.0
    """How long its oldest attempt waits."""


# Defaults are left out: all dispatchers' entries are in one object, which etcd keeps to 1 MiB.
class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one dispatcher says of itself. The keys are those of `limits`."""

    beat: int
    """Changes with every writing: who stands still is gone."""
    shares: dict[str, int] | None = {}
    """None: everything, because nobody else is there."""
    used: dict[str, int] = {}
    waits: dict[str, int] = {}
    oldest_s: dict[str, float] = {}

    def held(self, key: str, limit: int) -> int:
        """Slots that nobody else may have."""
        share = limit if self.shares is None else self.shares.get(key, 0)
        # A share that was lowered below the pods there are frees nothing before these have ended.
        return max(share, self.used.get(key, 0))

    def need(self, key: str) -> Need:
        """What it has and wants."""
        return Need(used=self.used.get(key, 0), waits=self.waits.get(key, 0), oldest_s=self.oldest_s.get(key, 0.0))


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a dispatcher grants itself of one limit."""

    share: int
    """What it keeps the others from using: never less than its pods."""
    allowed: int
    """It creates while it has fewer pods than this."""
    is_short: bool = False
    """It should have more, and waits for others to release some."""


def encode(entry: Entry) -> str:
    """As text."""
    return msgspec.json.encode(entry).decode()


def decode(text: str) -> Entry | None:
    """An entry as it was written, or None where it cannot be read."""
    try:
        return msgspec.json.decode(text, type=Entry)
    except msgspec.MsgspecError:
        # Anybody may write into a ConfigMap, and a later version may: one odd key must not stop admission.
        return None


def grant(me: str, needs: Mapping[str, Need], *, limit: int, held: int, lost: int) -> Grant:
    """What `me` grants itself.

    `needs` are those of all dispatchers that live, by name, `held` is what the others of them hold, and `lost` are the
    pods of dispatchers that are gone.
    """
    used = needs[me].used
    target = targets(needs, limit=max(0, limit - lost))[me]
    # By what the others hold, not by what they should: a grant must be true before they have let go of anything.
    room = max(0, limit - lost - held)
    allowed = min(target, room)
    return Grant(share=max(used, allowed), allowed=allowed, is_short=allowed < min(target, used + needs[me].waits))


def targets(needs: Mapping[str, Need], *, limit: int) -> dict[str, int]:
    """What each dispatcher should have; never more than the limit in all, and all of it is given out."""
    wanted = {name: need.used + need.waits for name, need in needs.items()}
    given: dict[str, int] = {}
    left = limit
    # Max-min fairness: whoever wants no more than an equal part gets it, and the rest is divided among the others.
    while wanted:
        level = left // len(wanted)
        modest = [name for name, count in wanted.items() if count <= level]
        if not modest:
            break
        for name in modest:
            given[name] = wanted.pop(name)
            left -= given[name]
    # Where all have what they want the rest is given out, too: a free slot then needs no asking for.
    # Sorted by name last: each works this out alone from the same entries, and all must come to the same.
    by_wait = sorted(wanted or given, key=lambda name: (-int(needs[name].oldest_s // WAIT_STEP_S), name))
    for place, name in enumerate(by_wait):
        given[name] = given.get(name, 0) + left // len(by_wait) + (place < left % len(by_wait))
    return given
