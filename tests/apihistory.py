"""The part of the history checker that speaks of an API server: what clients asked, were answered, and saw. Pure.

What our guarantees rest on when a dispatcher takes a name for a claim and a watch for the truth: G2 to G4 hold only as
far as this holds of the server. The contract suite records it at the local cluster and at a real API server alike.
Versions are compared as numbers, which Kubernetes allows within one resource (KEP-5504).

| rule | what is checked here |
|---|---|
| a uid is one object | never of two names, never created twice |
| a name is a claim | a second create of it succeeds only after a delete; no two objects have it at a time |
| versions grow | answers about an object, in their order, and the events of one stream never go back |
| a stream is a life | ADDED, MODIFIED …, DELETED; then nothing, unless a selector was left and is met again |
| nothing is lost | what was created beside an open stream is ADDED in it, what is gone from the server DELETED |
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str, str, str]
"""Plural, namespace and name."""
Found = tuple[str, str, str]
"""Kind of violation, of what, and why."""


@dataclass(frozen=True, kw_only=True)
class Created:
    """A create was answered 201 (no dry run)."""

    place: Place
    uid: str
    version: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A create was answered 409 AlreadyExists."""

    place: Place


@dataclass(frozen=True, kw_only=True)
class Unmade:
    """A delete that covers this place was asked for, or one of its namespace. What is empty covers all."""

    place: Place


@dataclass(frozen=True, kw_only=True)
class Read:
    """An answer showed an object as it was then."""

    place: Place
    uid: str
    version: int


@dataclass(frozen=True, kw_only=True)
class Told:
    """An event of a stream. `is_final`: a DELETED of an object that goes, and does not just leave the selector."""

    stream: str
    type: str
    place: Place
    uid: str
    version: int
    is_final: bool = False


@dataclass(frozen=True, kw_only=True)
class Covered:
    """A stream was open, without a gap, over all that is in the history; `left` are the uids that are there at its end.

    Only such a stream can show that something was lost. It selects all objects of `plural` that were created here.
    """

    stream: str
    plural: str
    left: frozenset[str] = frozenset()


Event = Created | Taken | Unmade | Read | Told | Covered


@dataclass(kw_only=True)
class _Seen:
    """What was seen so far, in order."""

    place_of: dict[str, Place] = field(default_factory=dict)
    version_of: dict[str, int] = field(default_factory=dict)
    holder: dict[Place, str] = field(default_factory=dict)
    """Name -> the uid that was created under it last, and of which nobody asked the end."""
    known: set[Place] = field(default_factory=set)
    created: set[str] = field(default_factory=set)
    state: dict[tuple[str, str], str] = field(default_factory=dict)
    """(stream, uid) -> the type of its last event there; FINAL where nothing may follow."""
    first: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Stream -> uid -> the type of its first event there."""
    gone: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    stream_version: dict[str, int] = field(default_factory=dict)
    stream_holder: dict[tuple[str, Place], str] = field(default_factory=dict)
    """(stream, name) -> the uid that was ADDED under it, until it is DELETED."""


_NEXT: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"ADDED", "MODIFIED", "DELETED"}),  # a stream may begin in the middle of a life
    "ADDED": frozenset({"MODIFIED", "DELETED"}),
    "MODIFIED": frozenset({"MODIFIED", "DELETED"}),
    "DELETED": frozenset({"ADDED"}),
    "FINAL": frozenset(),
}
"""Type of the last event of an object in a stream -> what may come next."""


def violations(events: Sequence[Event]) -> Iterator[Found]:
    """Everything that these events, in the order in which they were recorded, say against the server."""
    seen = _Seen()
    for event in events:
        match event:
            case Created():
                yield from _created(event, seen)
            case Taken() if event.place not in seen.known:
                yield (
                    "conflict",
                    _name(event.place),
                    "a create was refused, though nothing of that name was ever there",
                )
            case Unmade():
                _unmade(event.place, seen)
            case Read():
                yield from _one_object(event, seen)
                yield from _newer(event, seen)
            case Told():
                yield from _told(event, seen)
            case _:
                pass
    yield from _lost([event for event in events if isinstance(event, Covered)], seen)


def _created(event: Created, seen: _Seen) -> Iterator[Found]:
    if event.uid in seen.created:
        yield ("reused", event.uid, f"two creates were answered with it, the second of {_name(event.place)}")
    if event.place in seen.holder:
        why = f"created as {event.uid} while {seen.holder[event.place]} holds the name"
        yield ("conflict", _name(event.place), why)
    yield from _one_object(event, seen)
    yield from _newer(event, seen)
    seen.created.add(event.uid)
    seen.holder[event.place] = event.uid


def _unmade(place: Place, seen: _Seen) -> None:
    for held in [held for held in seen.holder if _covers(place, held)]:
        del seen.holder[held]


def _told(event: Told, seen: _Seen) -> Iterator[Found]:
    last = seen.state.get((event.stream, event.uid))
    if event.type not in _NEXT[last]:
        kind = "late" if last in ("DELETED", "FINAL") else "order"
        yield (kind, event.uid, f"{event.type} after {last or 'nothing'} in the stream {event.stream}")
    if event.version <= seen.stream_version.get(event.stream, 0):
        why = f"{event.type} of version {event.version} after {seen.stream_version[event.stream]} in {event.stream}"
        yield ("backwards", event.uid, why)
    yield from _one_object(event, seen)
    holder = seen.stream_holder.setdefault((event.stream, event.place), event.uid)
    if holder != event.uid:
        yield ("conflict", _name(event.place), f"{event.uid} appears in {event.stream} while {holder} has the name")
    if event.type == "DELETED" and holder == event.uid:
        del seen.stream_holder[event.stream, event.place]
    seen.stream_version[event.stream] = max(event.version, seen.stream_version.get(event.stream, 0))
    seen.state[event.stream, event.uid] = "FINAL" if event.is_final else event.type
    seen.first[event.stream].setdefault(event.uid, event.type)
    if event.type == "DELETED":
        seen.gone[event.stream].add(event.uid)
        if event.is_final and seen.holder.get(event.place) == event.uid:
            del seen.holder[event.place]  # a server deletes by itself, too: owners, nodes, collections


def _one_object(event: Created | Read | Told, seen: _Seen) -> Iterator[Found]:
    seen.known.add(event.place)
    before = seen.place_of.setdefault(event.uid, event.place)
    if before != event.place:
        yield ("reused", event.uid, f"it was {_name(before)}, and is {_name(event.place)}")


def _newer(event: Created | Read, seen: _Seen) -> Iterator[Found]:
    before = seen.version_of.get(event.uid, 0)
    if event.version < before:
        yield ("backwards", event.uid, f"answered in version {event.version} after it was in {before}")
    seen.version_of[event.uid] = max(before, event.version)


def _lost(covered: Iterable[Covered], seen: _Seen) -> Iterator[Found]:
    for stream in covered:
        first, gone = seen.first[stream.stream], seen.gone[stream.stream]
        for uid in sorted(one for one in seen.created if seen.place_of[one][0] == stream.plural):
            what = f"{_name(seen.place_of[uid])} in {stream.stream}"
            if uid not in first:
                yield ("lost", uid, f"created, and never told: {what}")
            elif first[uid] != "ADDED":
                yield ("order", uid, f"created beside it, and first {first[uid]}: {what}")
            elif uid not in gone | stream.left:
                yield ("lost", uid, f"gone, and never DELETED: {what}")


def _covers(place: Place, other: Place) -> bool:
    return all(one in ("", two) for one, two in zip(place, other, strict=True))


def _name(place: Place) -> str:
    return "/".join(place)


def facts(thing: Mapping[str, Any], plural: str) -> dict[str, Any]:
    """Place, uid and version of an object as the server shows it: arguments of the events above."""
    metadata = thing["metadata"]
    return {
        "place": (plural, str(metadata.get("namespace", "")), str(metadata["name"])),
        "uid": str(metadata["uid"]),
        "version": int(metadata["resourceVersion"]),
    }
