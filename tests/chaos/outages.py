"""Outages: database, broker, result backend and API server, each away for a while under load, alone and together.

A part is away in one of two ways: `refuses` (killed, and started again with its data) or `hangs` (stopped, so that
connections stand open and nothing answers). The API server's pods live on meanwhile: it is its wire that is cut or
falls silent. One installation goes through all cases; after each one its backlog must drain, at the end the audit
looks at everything that was ever submitted. `run` is called by the chaos ring (short) and by `make outages` (long).
"""

import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from dispatcher.worker import process_health
from tests import history, parts
from tests.chaos import audit as audits
from tests.chaos import installation
from tests.chaos import load as loads
from tests.chaos.storm import AWAY

PARTS = ("database", "broker", "results", "api")
WAYS = ("refuses", "hangs")
SHAPE = installation.Shape(numbers=(1,), is_split=True)
TICK_S = 0.2
WARM_S = 2.0
CPU_BOUND = 0.5
"""Cores that one process of ours may use on average while a part is away; a loop without a pause takes a whole one."""
GROWTH_BOUND_MB = 64.0
DRAIN_BOUND_S = 60.0
RATE_BOUND = 0.3
"""Bodies per second at least on the half that does not need what is away; its load gives more than one."""
RUNS = {"fan": 1, "chain": 1, "again": 1, "slow": 1, "pods": 1, "swift": 2}
GOES_ON: Mapping[str, frozenset[str]] = {
    "api": frozenset({"plain celery", "dag celery"}),
    "database": frozenset({"plain celery", "plain pods"}),
    "results": frozenset(),
    "broker": frozenset(),
}
"""Part -> the kinds of work that do not need it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Some parts, away at the same time, in one way."""

    parts: tuple[str, ...]
    how: str
    duration_s: float

    def __str__(self) -> str:
        return f"{'+'.join(self.parts)} {self.how}"

    @property
    def goes_on(self) -> frozenset[str]:
        """The kinds of work that must go on."""
        return frozenset.intersection(*(GOES_ON[part] for part in self.parts))


@dataclass(kw_only=True)
class Seen:
    """What one case showed."""

    case: Case
    began_at: float
    ended_at: float = 0.0
    drained_s: float = 0.0
    still: str = ""
    cpu: dict[str, float] = field(default_factory=dict)
    """Process -> cores on average during the outage."""
    growth_mb: dict[str, float] = field(default_factory=dict)
    unnamed: list[str] = field(default_factory=list)
    """Processes whose health does not name what is away, and what that is."""
    begun: dict[str, int] = field(default_factory=dict)
    """Kind of work -> bodies that began during the outage."""
    faults: list[str] = field(default_factory=list)
    """What was wrong, in words."""

    def line(self) -> str:
        """For people."""
        cpu = max(self.cpu.items(), key=lambda one: one[1], default=("", 0.0))
        growth = max(self.growth_mb.items(), key=lambda one: one[1], default=("", 0.0))
        begun = ", ".join(f"{count} {kind}" for kind, count in sorted(self.begun.items())) or "nothing"
        return (
            f"{self.case!s:32} {self.case.duration_s:g} s; began meanwhile: {begun}; "
            f"drained in {self.drained_s:.1f} s; "
            f"most CPU {cpu[1]:.2f} ({cpu[0]}); most growth {growth[1]:.0f} MB ({growth[0]})"
            + "".join(f"\n    WRONG: {fault}" for fault in self.faults)
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a run went."""

    seen: Sequence[Seen]
    violations: Sequence[history.Violation]
    events: int
    figures: Mapping[str, Any]
    still: str
    folder: Path

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations and not self.still and not any(one.faults for one in self.seen)

    def lines(self) -> list[str]:
        """For people."""
        counts = ", ".join(f"{count} {kind}" for kind, count in history.summary(self.violations).items())
        return [
            *(one.line() for one in self.seen),
            *(f"{name}: {value}" for name, value in self.figures.items()),
            *([f"still: {self.still}"] if self.still else []),
            f"audit of {self.events} events: {counts}",
            *(f"    {one.guarantee} {one.kind}: {one.subject}: {one.why}" for one in self.violations[:40]),
        ]


def matrix(duration_s: float) -> list[Case]:
    """Every part alone, each pair, and all at once, in both ways."""
    groups = [*((part,) for part in PARTS), *itertools.combinations(PARTS, 2), PARTS]
    return [Case(parts=group, how=how, duration_s=duration_s) for group in groups for how in WAYS]


def run(
    cases: Sequence[Case], *, say: Callable[[str], None] = lambda _: None, drain_s: float = DRAIN_BOUND_S
) -> Report:
    """All cases, one after the other, and the audit. The folder with all logs stays where something was wrong."""
    folder = Path(tempfile.mkdtemp(prefix="podyard-outages-"))
    say(f"folder {folder}")
    with installation.running(folder, SHAPE) as yard:
        trial = Trial(yard=yard, drain_s=drain_s)
        trial.warm_up()
        seen = []
        for case in cases:
            seen.append(trial.go_through(case))
            say(seen[-1].line())
        still = trial.settle()
        with contextlib.suppress(*AWAY):
            trial.audit.look()
        events = [*trial.audit.events(), *trial.audit.slots()]
        report = Report(
            seen=seen,
            violations=history.check(events),
            events=len(events),
            figures={**audits.figures(yard), "refused": trial.load.refused + trial.plain.refused},
            still=still,
            folder=folder,
        )
        trial.close()
    if report.is_good:
        shutil.rmtree(folder, ignore_errors=True)
    return report


@dataclass(kw_only=True)
class Trial:
    """One installation under load, and what is done to it."""

    yard: installation.Installation
    drain_s: float
    load: loads.Load = field(init=False)
    plain: loads.PlainLoad = field(init=False)
    audit: audits.Audit = field(init=False)
    away: set[str] = field(default_factory=set)
    _dead: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        import random

        self.load = loads.Load(installation=self.yard, dice=random.Random(0))
        self.plain = loads.PlainLoad(installation=self.yard)
        self.audit = audits.Audit(installation=self.yard, load=self.load, plain=self.plain)

    def warm_up(self) -> None:
        """Until each kind of work has run."""
        parts.eventually(lambda: len(self.load.store.dags()) == len(loads.DAGS), 120, what="the DAGs are loaded")
        parts.eventually(lambda: self._under_load(1.0) or self._has_each_kind(), 60, what="each kind of work runs")

    def go_through(self, case: Case) -> Seen:
        """Load, the outage, load again; then the backlog must drain."""
        self._under_load(WARM_S)
        before = _usage(self.yard)
        seen = Seen(case=case, began_at=time.time())
        with self._parts_away(case):
            self._under_load(case.duration_s)
            after = _usage(self.yard)
            seen.unnamed = self._unnamed(case)
        seen.ended_at = time.time()
        self._under_load(WARM_S)
        began = time.monotonic()
        seen.still = self.settle(but="unacked")
        seen.drained_s = time.monotonic() - began + WARM_S
        span_s = seen.ended_at - seen.began_at
        for name, (cpu_s, _) in after.items():
            if name in before:
                seen.cpu[name] = max(0.0, cpu_s - before[name][0]) / span_s
        for name, (_, size_mb) in _usage(self.yard).items():
            if name in before:
                seen.growth_mb[name] = size_mb - before[name][1]
        seen.begun = self._begun(seen.began_at + min(2.0, span_s / 4), seen.ended_at)
        seen.faults = list(self._faults(seen))
        return seen

    def settle(self, *, but: str = "") -> str:
        """Wait until all is quiet; gives what is still going on when the patience is over.

        Messages whose acknowledgement was lost come again after the broker's visibility time-out, and are dropped then:
        they are waited for once, at the end (`but`).
        """
        deadline, still = time.monotonic() + self.drain_s, "?"
        while still and time.monotonic() < deadline:
            time.sleep(TICK_S)
            try:
                still = self.audit.is_quiet(but=but)
            except AWAY as error:
                still = f"a part does not answer: {error!r}"
        return still

    def close(self) -> None:
        """The clients."""
        self.load.close()
        self.plain.close()

    # --- the load

    def _under_load(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            with contextlib.suppress(*AWAY):
                self._top_up()
            time.sleep(max(0.01, TICK_S - (time.monotonic() - began)))

    def _top_up(self) -> None:
        """Whoever submits goes to parts that are there; the others would refuse, or keep the caller waiting."""
        if "database" not in self.away:
            self.load.keep(RUNS, is_woken="results" not in self.away)
        if not {"broker", "results"} & self.away:
            self.plain.top_up(self.audit.plain_results())

    def _has_each_kind(self) -> bool:
        return len(self._begun(0, time.time())) == 4

    # --- what is done

    @contextlib.contextmanager
    def _parts_away(self, case: Case) -> Iterator[None]:
        for part in case.parts:
            self._take_away(part, case.how)
        try:
            yield
        finally:
            for part in case.parts:
                self._bring_back(part, case.how)

    def _take_away(self, part: str, how: str) -> None:
        self.away.add(part)
        if part == "api":
            assert self.yard.wire is not None
            (self.yard.wire.cut if how == "refuses" else self.yard.wire.silence)()
        elif how == "refuses":
            self.yard.kill(part)
        else:
            self.yard.stop(part)

    def _bring_back(self, part: str, how: str) -> None:
        if part == "api":
            assert self.yard.wire is not None
            self.yard.wire.mend()
        elif how == "refuses":
            self.yard.start(part)
        else:
            self.yard.go_on(part)
        self.away.discard(part)

    # --- what was seen

    def _health(self) -> list[process_health.Reading]:
        pids = {part.process.pid for part in self.yard.parts.values() if part.process is not None}
        return [one for one in process_health.read(self.yard.folder / "home" / "health") if one.pid in pids]

    def _unnamed(self, case: Case) -> list[str]:
        """Every process must be alive by its own word, and name what it lacks."""
        readings, now = self._health(), datetime.now(UTC)
        found = [
            f"{one.name} is not alive by its health: {one.trouble(now=now)}" for one in readings if one.trouble(now=now)
        ]
        if len(readings) != sum(name.startswith(_REPORTING) for name in self.yard.parts):
            found.append(f"health of {[one.name for one in readings]} alone")
        for one in readings:
            away = {part.name for part in one.away}
            lacking = {_WORDS[part] for part in case.parts} & {part.name for part in one.parts}
            found += [
                f"the health of {one.name} does not say that the {part} is away" for part in sorted(lacking - away)
            ]
        return found

    def _named_wrongly(self) -> Iterator[str]:
        """When all is back, nobody says that something is away, and every loop turns."""

        def wrong() -> list[str]:
            now = datetime.now(UTC)
            return [
                f"{one.name}: {one.away or one.trouble(now=now)}"
                for one in self._health()
                if one.away or one.trouble(now=now)
            ]

        try:
            parts.eventually(lambda: not wrong(), 15, every_s=0.2)
        except AssertionError:
            yield f"still said to be away: {wrong()}"

    def _begun(self, since: float, until: float) -> dict[str, int]:
        """Kind of work -> bodies that began in this time."""
        with self.yard.sql() as ask:
            sides = {row["id"]: row["side"] for row in ask("SELECT id, side FROM attempt")}
        found: dict[str, int] = {}
        for word, attempt, _, at in audits.bodies(self.yard):
            if word == "start" and since <= at <= until:
                side = sides.get(attempt)
                kind = self.plain.kind_of(attempt) if side is None else _DAG_KINDS[side]
                found[kind] = found.get(kind, 0) + 1
        return found

    def _faults(self, seen: Seen) -> Iterator[str]:
        case = seen.case
        if seen.still:
            yield f"not drained within {self.drain_s:g} s: {seen.still}"
        for kind in sorted(case.goes_on):
            if seen.begun.get(kind, 0) < RATE_BOUND * case.duration_s:
                yield f"{kind} does not need what was away, and only {seen.begun.get(kind, 0)} bodies began"
        yield from seen.unnamed
        yield from self._named_wrongly()
        for name, cores in seen.cpu.items():
            if cores > CPU_BOUND:
                yield f"{name} used {cores:.2f} of a core while it had to wait"
        for name, growth in seen.growth_mb.items():
            if growth > GROWTH_BOUND_MB:
                yield f"{name} grew by {growth:.0f} MB"
        for name, part in self.yard.parts.items():
            if part.process.poll() is not None and name not in self._dead:
                self._dead.add(name)
                yield f"{name} ended with {part.process.returncode}"


_REPORTING = ("scheduler", "worker", "dispatcher", "plaindispatcher")
_WORDS = {"database": "database", "broker": "broker", "results": "result backend", "api": "API server"}
"""Part -> how health calls it."""
_DAG_KINDS = {"celery": "dag celery", "kubernetes": "dag pods"}


def _usage(yard: installation.Installation) -> dict[str, tuple[float, float]]:
    """Process of ours -> (CPU seconds, MB) with its children."""
    found = {}
    for name, part in yard.parts.items():
        if not isinstance(part, installation.Command) or part.process is None:
            continue
        with contextlib.suppress(psutil.Error):
            tree = [psutil.Process(part.process.pid)]
            tree += tree[0].children(recursive=True)
            times = [one.cpu_times() for one in tree]
            found[name] = (
                sum(one.user + one.system for one in times),
                sum(one.memory_info().rss for one in tree) / 1e6,
            )
    return found
