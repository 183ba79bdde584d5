"""The history checker: what was seen of a run of tests -> which of our guarantees it breaks. Pure, written once.

Whoever tests (the chaos ring, the contract with an API server, a soak) collects events by paths of its own, not through
the code under test: lines that task bodies appended to a file, the API server's list of pods, rows read by plain SQL.
`check` knows nothing of where they came from. Times are seconds of one clock.

| guarantee | what is checked here |
|---|---|
| G1 accepted is durable | every accepted task has a final verdict; every success has the effects of its body |
| G2 one verdict | no task and no attempt shows two verdicts; a success has exactly one attempt that succeeded |
| G3 one run at a time | no attempt runs twice or has two pods; none starts after its verdict, or beside another one |
| G4 row before call | no body and no pod of an attempt that nobody recorded; nothing is left over |
| G5 the right budget | a task whose body is sound does not fail by faults of the infrastructure |
| G6 bounded recovery | work went on within the bound after a fault |
| G7 waits have reasons | no attempt waits without a reason |
| G9 limits hold | no sample above its limit |
| API | what the API server promises, and G2 to G4 rest on (`tests/apihistory.py`) |

G8 (one task cannot stop another) and G10 (mixed versions) need runs of their own and cannot be seen in a history.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests import apihistory

TASK_FINAL = frozenset({"success", "failed", "skipped", "upstream_failed", "cancelled"})
ATTEMPT_FINAL = frozenset({"succeeded", "failed", "lost", "revoked"})
CLOCK_SLACK_S = 0.05
"""Rows and bodies take the time of one machine's clock at different moments of what they do."""
WHOLE_SECONDS_S = 1.5
"""The end of a pod's container is told in whole seconds."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A task was accepted. `wanted`: the verdict that its body earns, whatever the infrastructure does."""

    task: str
    wanted: str = "success"
    has_body: bool = True


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A row of an attempt, as it stood when it was looked at; the last look counts, earlier ones must agree with it."""

    attempt: str
    task: str
    number: int
    state: str
    ended_at: float | None = None
    cause: str | None = None
    waiting_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The state of a task, as it stood when it was looked at."""

    task: str
    state: str


@dataclass(frozen=True, kw_only=True)
class BodyStarted:
    """A body began, by its own word."""

    attempt: str
    at: float


@dataclass(frozen=True, kw_only=True)
class BodyEnded:
    """A body came to its end, by its own word."""

    attempt: str
    at: float


@dataclass(frozen=True, kw_only=True)
class PodSeen:
    """A pod was there. `launch`: the attempt, and Celery's count of retries where that makes a pod of its own."""

    attempt: str
    uid: str
    launch: int = 0


@dataclass(frozen=True, kw_only=True)
class LeftOver:
    """Something that should be gone when all is quiet: a pod, a message, an open row, a slot."""

    kind: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """After a fault of a part, work went on after `seconds`."""

    part: str
    seconds: float
    bound_s: float


@dataclass(frozen=True, kw_only=True)
class Held:
    """A sample of something that has a limit."""

    what: str
    count: int
    limit: int


Event = (
    Submitted | Recorded | Verdict | BodyStarted | BodyEnded | PodSeen | LeftOver | Recovered | Held | apihistory.Event
)


@dataclass(frozen=True, order=True)
class Violation:
    """One broken guarantee: which, in what way (`lost`, `doubled`, `stuck`, `left over`, …), of what, and why."""

    guarantee: str
    kind: str
    subject: str
    why: str


@dataclass(kw_only=True)
class _Seen:
    """The events, sorted by what they speak of."""

    submitted: dict[str, Submitted] = field(default_factory=dict)
    verdicts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, Recorded] = field(default_factory=dict)
    states: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    starts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pods: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    others: list[LeftOver | Recovered | Held] = field(default_factory=list)
    of_api: list[apihistory.Event] = field(default_factory=list)

    @property
    def attempts_of(self) -> dict[str, list[Recorded]]:
        """Task -> its attempts in the order of their numbers."""
        found: dict[str, list[Recorded]] = defaultdict(list)
        for row in sorted(self.rows.values(), key=lambda row: row.number):
            found[row.task].append(row)
        return found


def check(events: Iterable[Event]) -> list[Violation]:
    """Every violation that the events prove, sorted. An empty history has none: count your events, too."""
    seen = _sorted(events)
    attempts_of = seen.attempts_of
    found: list[Violation] = []
    for task, submitted in seen.submitted.items():
        found += _of_task(submitted, seen.verdicts[task], attempts_of.get(task, []), seen)
    for task, rows in attempts_of.items():
        found += _beside_each_other(task, rows, seen)
    for attempt in sorted({*seen.rows, *seen.starts, *seen.ends, *(attempt for attempt, _ in seen.pods)}):
        found += _of_attempt(attempt, seen)
    for event in seen.others:
        found += _of_other(event)
    found += (Violation("API", kind, what, why) for kind, what, why in apihistory.violations(seen.of_api))
    return sorted(found)


def summary(violations: Sequence[Violation]) -> dict[str, int]:
    """How many of each kind; the four of the audit are always there."""
    counts = Counter(violation.kind for violation in violations)
    return {**{kind: counts[kind] for kind in ("lost", "doubled", "stuck", "left over")}, **counts}


def _sorted(events: Iterable[Event]) -> _Seen:
    seen = _Seen()
    for event in events:
        match event:
            case Submitted():
                seen.submitted[event.task] = event
            case Verdict():
                seen.verdicts[event.task].append(event.state)
            case Recorded():
                seen.rows[event.attempt] = event
                seen.states[event.attempt].append(event.state)
            case BodyStarted():
                seen.starts[event.attempt].append(event.at)
            case BodyEnded():
                seen.ends[event.attempt].append(event.at)
            case PodSeen():
                seen.pods[(event.attempt, event.launch)].add(event.uid)
            case LeftOver() | Recovered() | Held():
                seen.others.append(event)
            case _:
                seen.of_api.append(event)
    return seen


def _of_task(
    submitted: Submitted, verdicts: Sequence[str], attempts: Sequence[Recorded], seen: _Seen
) -> Iterator[Violation]:
    task, state = submitted.task, verdicts[-1] if verdicts else None
    if state is None:
        yield Violation("G1", "lost", task, "it was accepted and nothing is known of it")
        return
    if state not in TASK_FINAL:
        why = ", ".join(f"{row.attempt} {row.state}" for row in attempts) or "it has no attempt"
        yield Violation("G1", "stuck", task, f"its state is {state}: {why}")
        return
    finals = list(dict.fromkeys(one for one in verdicts if one in TASK_FINAL))
    if len(finals) > 1 or any(one not in TASK_FINAL for one in verdicts[verdicts.index(finals[0]) :]):
        yield Violation("G2", "changed", task, f"its verdict went {' → '.join(dict.fromkeys(verdicts))}")
    if state != submitted.wanted:
        causes = ", ".join(f"{row.number} {row.state} {row.cause}" for row in attempts)
        yield Violation("G5", "failed", task, f"{state} instead of {submitted.wanted}; attempts: {causes}")
    if state == "success" and submitted.has_body:
        yield from _success(task, attempts, seen)


def _success(task: str, attempts: Sequence[Recorded], seen: _Seen) -> Iterator[Violation]:
    good = [row.attempt for row in attempts if row.state == "succeeded"]
    if len(good) != 1:
        yield Violation("G2", "verdict", task, f"a success with {len(good)} attempts that succeeded: {good}")
    for attempt in good:
        if not seen.starts.get(attempt) or not seen.ends.get(attempt):
            yield Violation("G1", "lost", task, f"the attempt {attempt} succeeded, but its body left no effect")


def _beside_each_other(task: str, rows: Sequence[Recorded], seen: _Seen) -> Iterator[Violation]:
    """An attempt begins only after the one before it has its verdict."""
    for number, count in Counter(row.number for row in rows).items():
        if count > 1:
            yield Violation("G3", "doubled", task, f"{count} attempts have the number {number}")
    good = next((place for place, row in enumerate(rows) if row.state == "succeeded"), len(rows))
    for row in rows[good + 1 :]:
        if seen.starts.get(row.attempt):
            yield Violation(
                "G3", "doubled", task, f"attempt {row.number} ({row.attempt}) began after one had succeeded"
            )
    for before, after in itertools.pairwise(rows):
        began = min(seen.starts.get(after.attempt, ()), default=None)
        if began is None:
            continue
        if before.ended_at is None or began + CLOCK_SLACK_S < before.ended_at:
            why = f"attempt {after.number} ({after.attempt}) began before attempt {before.number} had its verdict"
            yield Violation("G3", "doubled", task, why)


def _of_attempt(attempt: str, seen: _Seen) -> Iterator[Violation]:
    row, starts, ends = seen.rows.get(attempt), seen.starts.get(attempt, []), seen.ends.get(attempt, [])
    if row is None:
        yield Violation("G4", "unrecorded", attempt, "it ran or had a pod, and there is no row of it")
    if len(starts) > 1 or len(ends) > 1:
        yield Violation("G3", "doubled", attempt, f"its body began {len(starts)} times and ended {len(ends)} times")
    if ends and not starts:
        yield Violation("G3", "doubled", attempt, "its body ended and never began")
    for (one, launch), uids in seen.pods.items():
        if one == attempt and len(uids) > 1:
            yield Violation("G3", "doubled", attempt, f"launch {launch} had {len(uids)} pods: {sorted(uids)}")
    if starts and ends and max(ends) + CLOCK_SLACK_S < min(starts):
        yield Violation("G3", "doubled", attempt, "its body ended before it began: one of another life")
    if row is not None:
        yield from _of_row(row, starts, seen.states[attempt])
        if (
            row.state == "succeeded"
            and row.ended_at is not None
            and ends
            and max(ends) > row.ended_at + WHOLE_SECONDS_S
        ):
            yield Violation("G2", "early", attempt, "it had succeeded before its body came to its end")


def _of_row(row: Recorded, starts: Sequence[float], states: Sequence[str]) -> Iterator[Violation]:
    finals = list(dict.fromkeys(state for state in states if state in ATTEMPT_FINAL))
    if len(finals) > 1 or (finals and row.state not in ATTEMPT_FINAL):
        yield Violation("G2", "changed", row.attempt, f"its verdict went {' → '.join(dict.fromkeys(states))}")
    if row.state not in ATTEMPT_FINAL:
        yield Violation("G1", "stuck", row.attempt, f"attempt {row.number} of {row.task} is {row.state}")
        if row.state != "running" and not row.waiting_reason:
            yield Violation("G7", "unexplained", row.attempt, f"it is {row.state} and nobody says why")
    is_late = row.ended_at is not None and starts and min(starts) > row.ended_at + CLOCK_SLACK_S
    if is_late and row.state != "lost":  # a worker that stood still may begin what was given up; its result is fenced
        yield Violation("G3", "doubled", row.attempt, f"its body began after its verdict {row.state}")


def _of_other(event: LeftOver | Recovered | Held) -> Iterator[Violation]:
    match event:
        case LeftOver():
            yield Violation("G4", "left over", event.name, f"a {event.kind} that should be gone")
        case Recovered() if event.seconds > event.bound_s:
            why = f"work went on after {event.seconds:.1f} s, the bound is {event.bound_s:g} s"
            yield Violation("G6", "slow", event.part, why)
        case Held() if event.count > event.limit:
            yield Violation("G9", "overshoot", event.what, f"{event.count} of {event.limit}")
        case _:
            pass
