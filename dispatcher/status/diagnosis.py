"""Diagnosis: why an attempt waits or failed, in sentences for people, and what to do about it. Pure.

One path for everybody: the exception of a result, the record, `podyard tasks explain`, Flower. What is known of an
attempt goes in as `Symptoms`; the table of `dispatcher.status.reasons` says what it means.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dispatcher.status import pod_events, reasons
from dispatcher.status.reasons import Cause, Place

DULL = frozenset({"ContainerCreating", "PodInitializing", "NotStarted", ""})
"""Reasons that say so little that the events of the pod say more."""


@dataclass(frozen=True, kw_only=True)
class Symptoms:
    """What is known of an attempt that waits or failed."""

    reason: str | None = None
    cause: Cause | None = None
    exit_code: int | None = None
    message: str = ""
    """In the words of whoever gave the reason."""
    container: str | None = None
    node: str | None = None
    memory_limit: str | None = None
    """Of the container that ended, as a quantity."""
    place: Place = "container"
    """What failed: a container, or a body that ran in a pod or on a worker."""
    events: Sequence[pod_events.Event] = ()
    """What the cluster said about its pod, oldest first."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why, and what to do."""

    reason: str
    cause: Cause | None
    """Whose failure it is; None for a wait."""
    explanation: str
    what_to_do: str
    is_of_node: bool = False
    """The node is at fault: another one may do better."""


def diagnose(symptoms: Symptoms) -> Diagnosis:
    """The diagnosis of what is known; a reason that nobody knows stands as it is."""
    known = _by_events(symptoms)
    reason, text = known.reason or "", known.message
    found = list(_meanings(reason, exit_code=known.exit_code, text=text, place=known.place))
    image = _IMAGE.search(text) if reason in reasons.IMAGE_WAITS else None
    facts = {
        "container": known.container,
        "who": _WHO[known.place] if known.place != "container" else f"the container {known.container or ''}".strip(),
        "where": _WHERE[known.place],
        "image": image and image[1],
        "node": known.node,
        "limit": known.memory_limit,
        "code": None if known.exit_code is None else str(known.exit_code),
    }
    if not found:
        return Diagnosis(
            reason=reason or "Unknown",
            cause=symptoms.cause,
            explanation=f"{_UNKNOWN[known.place]} {reason}" if reason else "nobody gives a reason",
            what_to_do="its message, its error and its log say more: `podyard tasks logs`",
        )
    means = dict.fromkeys(worded(known.means, {**facts, **groups}) for known, groups in found)
    first = found[0][0]
    return Diagnosis(
        # Found by its exit code alone it has no reason of its own, and is called Error as the kubelet does.
        reason=reason if first.reasons != ("Error",) else symptoms.reason or "Error",
        cause=symptoms.cause or first.cause,
        explanation=_joined(reason, list(means)),
        what_to_do="; or ".join(dict.fromkeys(worded(known.to_do, {**facts, **groups}) for known, groups in found)),
        is_of_node=first.is_of_node,
    )


_WHO: Mapping[Place, str] = {"pod": "the task", "worker": "the task"}
_WHERE: Mapping[Place, str] = {"container": "in its image", "pod": "in the image of its pod", "worker": "on its worker"}
_UNKNOWN: Mapping[Place, str] = {
    "container": "it ended with",
    "pod": "the task's own code raised",
    "worker": "the task's own code raised",
}
_IMAGE = re.compile(r'image "([^"]+)"')


def cause_of(reason: str | None, *, message: str = "", exit_code: int | None = None) -> Cause | None:
    """Whose failure a reason usually is; None where the table does not know it, or it is no failure."""
    found = next(_meanings(reason or "", exit_code=exit_code, text=message, place="container"), None)
    return found[0].cause if found else None


def _by_events(symptoms: Symptoms) -> Symptoms:
    """Where the reason says little, and the newest warning that the table knows says more, that is the reason."""
    if (symptoms.reason or "") not in DULL:
        return symptoms
    # The newest: what went wrong first may have been got over.
    for event in reversed(symptoms.events):
        if event.is_warning and _entries(event.reason):
            return Symptoms(**{**vars(symptoms), "reason": event.reason, "message": event.message})
    return symptoms


def _entries(reason: str) -> list[reasons.Known]:
    return [known for known in reasons.TABLE if any(_fits(pattern, reason) for pattern in known.reasons)]


def _fits(pattern: str, reason: str) -> bool:
    return reason.startswith(pattern[:-1]) if pattern.endswith("*") else reason == pattern


def _meanings(
    reason: str, *, exit_code: int | None, text: str, place: Place
) -> Iterator[tuple[reasons.Known, Mapping[str, str | None]]]:
    """The entry that holds, with what its pattern found; for the scheduler's words all that hold, node by node."""
    entries = _entries(reason)
    # An exit code that comes without a reason is looked up as what the kubelet would have called it.
    if not entries and not reason and exit_code:
        entries = _entries("Error")
    if reason == reasons.UNSCHEDULABLE:
        # What follows says of the same nodes once more why nobody's eviction there would help.
        text = text.partition("preemption:")[0]
    elif reason in reasons.IMAGE_WAITS:
        text = _NAMES.sub(" ", text)
    is_found = False
    for known in entries:
        if known.exit_code not in (None, exit_code) or place not in known.places:
            continue
        if known.says is None:
            # An entry without a pattern is what is said where no other fits, so it ends the search either way.
            if not is_found:
                yield known, {}
            return
        for match in known.says.finditer(text):
            is_found = True
            yield known, match.groupdict()
            # The scheduler names each node's reason; all other messages speak of one thing.
            if reason != reasons.UNSCHEDULABLE:
                return


_NAMES = re.compile(
    r'"[^"]*"|(?<!\S)(?!(?:i/o|net/http|input/output)\b)[^\s"]+/[^\s"]*|(?<!\S)[\w.-]+:[\w.-]+:?(?=\s|$)'
)
"""Names of images and addresses, which may hold any word: one called rate-limiter is limited by nobody."""


def _joined(reason: str, means: Sequence[str]) -> str:
    # The last entry is a whole sentence: it holds where the scheduler gave no reason of any node.
    if reason != reasons.UNSCHEDULABLE or means[0].startswith("the scheduler"):
        return means[0]
    return f"no node takes the pod: {'; '.join(means)}"


def worded(text: str, found: Mapping[str, str | None]) -> str:
    """A text of the table with what was found in the places of its names."""
    words = {}
    for name, (with_it, without) in reasons.WORDED.items():
        value = found.get(name)
        # What was not found still needs words: "its memory limit of None" is nothing for people.
        words[name] = with_it.format(value.strip()) if value and value.strip() else without
    return text.format_map(words)
