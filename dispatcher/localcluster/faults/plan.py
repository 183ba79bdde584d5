"""The plan: which fault meets which call, event or pod, and what is due when. Pure but for its own dice.

The same seed, faults and calls in the same order give the same decisions. Time is a number of seconds that the caller
brings; nothing here sleeps, answers or kills.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from dispatcher.localcluster.faults import kinds
from dispatcher.localcluster.objects import fault_points

T = TypeVar("T")
KEPT = 200
GARBAGE = b'{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1","meta\xff\xfe#\n'
"""A line that is neither JSON nor UTF-8."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What becomes of a call."""

    delay_s: float = 0.0
    failure: kinds.Fail | kinds.Garble | None = None


@dataclass(eq=False, kw_only=True)
class Entry:
    """A fault in the plan. `hits` counts its uses; `due_at` is a happening's next time."""

    number: int
    fault: kinds.Fault
    added_at: float
    hits: int = 0
    due_at: float = 0.0

    def stands(self, at: float) -> bool:
        """Whether a standing fault is at work."""
        fault = self.fault
        if not isinstance(fault, kinds.STANDING) or at < self.added_at + fault.after_s:
            return False
        if fault.times is not None and self.hits >= fault.times:
            return False
        return fault.for_s is None or at < self.added_at + fault.after_s + fault.for_s


class Plan:
    """All faults of one cluster."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        # One generator for all decisions: with the seed and the same calls a chaos run makes the same ones.
        self._dice = random.Random(seed)
        self._entries: dict[int, Entry] = {}
        self._numbers = itertools.count(1)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is planned, as most often."""
        return not self._entries

    def add(self, fault: kinds.Fault, *, at: float) -> Entry:
        """Takes a fault into the plan. A happening that is due now is given by `due`."""
        entry = Entry(number=next(self._numbers), fault=fault, added_at=at)
        if not isinstance(fault, kinds.STANDING):
            entry.due_at = at + fault.after_s + self._jitter(fault.jitter_s)
        self._entries[entry.number] = entry
        self._forget(at)
        return entry

    def _forget(self, at: float) -> None:
        """Of faults that are over only the newest are kept, to be read."""
        over = [entry.number for entry in self._entries.values() if self._is_over(entry, at)]
        for number in over[:-KEPT]:
            del self._entries[number]

    def _is_over(self, entry: Entry, at: float) -> bool:
        if not isinstance(entry.fault, kinds.STANDING):
            return not self._is_open(entry)
        return at >= entry.added_at + entry.fault.after_s and not entry.stands(at)

    def remove(self, number: int) -> bool:
        """Takes one out; False where there is none of that number."""
        return self._entries.pop(number, None) is not None

    def clear(self) -> None:
        """Takes all out."""
        self._entries.clear()

    def reseed(self, seed: int) -> None:
        """Begins a new series of decisions."""
        self.seed = seed
        self._dice.seed(seed)

    def entries(self) -> list[Entry]:
        """All that is planned, in the order in which it was asked for."""
        return list(self._entries.values())

    # --- standing faults ---

    def effect(self, call: fault_points.Call, *, at: float) -> Effect:
        """What becomes of a call: all delays that match, and the first failure or garbled answer."""
        delay_s = 0.0
        failure: kinds.Fail | kinds.Garble | None = None
        for entry in self._standing(at):
            fault = entry.fault
            if isinstance(fault, kinds.Delay) and _meets(fault, call) and self._use(entry):
                delay_s += fault.seconds + self._jitter(fault.jitter_s)
            elif failure is None and isinstance(fault, kinds.Fail | kinds.Garble):
                # Asked only while no failure was found: a fault that does not come to act is not used up.
                failure = fault if _meets(fault, call) and self._use(entry) else None
        return Effect(delay_s=delay_s, failure=failure)

    def disturb(self, resource: str, lines: Sequence[bytes], *, at: float) -> list[bytes]:
        """The events of one watch as they are sent; most often as they are."""
        sent = list(lines)
        for entry in self._standing(at):
            if isinstance(entry.fault, kinds.Disturb) and fnmatchcase(resource, entry.fault.resource):
                sent = self._disturbed(entry, sent, at)
        return sent

    def _disturbed(self, entry: Entry, lines: list[bytes], at: float) -> list[bytes]:
        sent: list[bytes] = []
        how = entry.fault.how if isinstance(entry.fault, kinds.Disturb) else ""
        for line in lines:
            # Asked for each line: `times` may be used up in the middle of a batch.
            if not entry.stands(at) or (how == "reorder" and not sent) or not self._use(entry):
                sent.append(line)
            elif how == "duplicate":
                sent += [line, line]
            elif how == "reorder":
                sent.insert(-1, line)
            elif how == "garbage":
                sent += [GARBAGE, line]
        return sent

    def unpullable(self, image: str, *, at: float) -> kinds.Unpullable | None:
        """Why an image cannot be pulled this time."""
        for entry in self._standing(at):
            fault = entry.fault
            if isinstance(fault, kinds.Unpullable) and fnmatchcase(image, fault.image) and self._use(entry):
                return fault
        return None

    def unschedulable(self, namespace: str, pod: str, *, at: float) -> kinds.Unschedulable | None:
        """Why no node takes a pod now."""
        for entry in self._standing(at):
            fault = entry.fault
            if (
                isinstance(fault, kinds.Unschedulable)
                and fnmatchcase(pod, fault.pod)
                and fnmatchcase(namespace, fault.namespace)
                and self._use(entry)
            ):
                return fault
        return None

    def denies(self, verb: str, resource: str, namespace: str, *, at: float) -> bool:
        """Whether RBAC refuses a verb on a resource (`pods/log`)."""
        for entry in self._standing(at):
            fault = entry.fault
            if (
                isinstance(fault, kinds.Deny)
                and fnmatchcase(verb, fault.verb)
                and fnmatchcase(resource, fault.resource)
                and fnmatchcase(namespace, fault.namespace)
                and self._use(entry)
            ):
                return True
        return False

    def _standing(self, at: float) -> Iterator[Entry]:
        return (entry for entry in tuple(self._entries.values()) if entry.stands(at))

    def _use(self, entry: Entry) -> bool:
        fault = entry.fault
        if isinstance(fault, kinds.STANDING) and fault.probability < 1 and self._dice.random() >= fault.probability:
            return False
        entry.hits += 1
        return True

    # --- happenings ---

    def due(self, *, at: float) -> list[tuple[int, kinds.Happening]]:
        """The happenings whose time has come, with their numbers, in order; the next time of each is set."""
        ready = [entry for entry in self._entries.values() if self._is_open(entry) and entry.due_at <= at]
        # In the order of their times, not of their numbers: a script may name what comes later first.
        return [(entry.number, self._happen(entry, at)) for entry in sorted(ready, key=lambda entry: entry.due_at)]

    def next_at(self) -> float | None:
        """When the next happening is due; None where none is planned."""
        return min((entry.due_at for entry in self._entries.values() if self._is_open(entry)), default=None)

    def choose(self, found: Sequence[T], count: int | None) -> list[T]:
        """So many of them at random, in their order; None: all."""
        if count is None or count >= len(found):
            return list(found)
        return [found[index] for index in sorted(self._dice.sample(range(len(found)), count))]

    def _is_open(self, entry: Entry) -> bool:
        fault = entry.fault
        if isinstance(fault, kinds.STANDING):
            return False
        times = 1 if fault.every_s is None else fault.times
        return times is None or entry.hits < times

    def _happen(self, entry: Entry, at: float) -> kinds.Happening:
        fault = entry.fault
        assert not isinstance(fault, kinds.STANDING)  # only happenings are due
        entry.hits += 1
        if fault.every_s is not None:
            # From now where it is late: a loop that stood still must not make up for all that it missed at once.
            entry.due_at = max(at, entry.due_at) + fault.every_s + self._jitter(fault.jitter_s)
        return fault

    def _jitter(self, seconds: float) -> float:
        return self._dice.uniform(0.0, seconds) if seconds else 0.0


def _meets(fault: kinds.OfCalls, call: fault_points.Call) -> bool:
    return (
        fnmatchcase(call.verb, fault.verb)
        and fnmatchcase(call.resource, fault.resource)
        and fnmatchcase(call.namespace, fault.namespace)
        and fnmatchcase(call.name, fault.name)
    )
