"""The storm: a seeded schedule of faults over an installation under load, then quiet, then the audit.

All choices come from one `random.Random(seed)`: the same seed makes the same faults at the same times, though not the
same interleaving of processes. `run` is called by the chaos ring (short) and by `make chaos` (long).
"""

import contextlib
import heapq
import itertools
import json
import random
import shutil
import signal
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis

from dispatcher.localcluster import client
from tests import history, parts
from tests.chaos import audit, installation, load
from tests.chaos.audit import Audit
from tests.chaos.bare import BareLoad
from tests.chaos.load import Load

LAST_LINES = 60
"""Of the log of a part that ended though nobody killed it."""
TICK_S = 0.1
LOOK_S = 5.0
LOAD_S = 0.5
SAMPLE_S = 0.2
RECOVERY_BOUND_S = 30.0
RESEND_PLAIN_S = 45.0
ROLES = {
    "scheduler": ("scheduler-1", "scheduler-2"),
    "worker": ("worker-1", "worker-2", "bareworker"),
    "dispatcher": ("dispatcher-1", "dispatcher-2", "baredispatcher"),
}
SIDE_OF = {"worker": "celery", "dispatcher": "kubernetes", "cluster": "kubernetes"}
AWAY = (OSError, redis.RedisError, psycopg.Error, urllib.error.URLError, json.JSONDecodeError)
"""What looking at a part raises while it is away."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is to be."""

    seed: int
    duration_s: float
    every_s: float = 3.0
    """The mean time between faults."""
    quiet_s: float = 240.0
    """How long it may take until all is quiet after the last fault."""
    database: str = "postgres"
    outages: bool = True
    """Whether broker, database and cluster are killed, too."""
    only: tuple[str, ...] = ()
    """Kinds of faults, where not all are wanted."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault as it happened."""

    at: float
    kind: str
    part: str
    ended_at: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a run went."""

    plan: Plan
    faults: Sequence[Fault]
    violations: Sequence[history.Violation]
    events: int
    figures: dict[str, Any]
    recovery_s: dict[str, list[float]]
    quiet_after_s: float
    deaths: Sequence[str]
    """Parts that ended though nobody killed them."""
    still: str
    """What was still going on when the patience was over; empty where all got quiet."""
    folder: Path

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations and not self.still

    def lines(self) -> list[str]:
        """For people."""
        kinds = Counter(fault.kind for fault in self.faults)
        kills = sum(count for kind, count in kinds.items() if kind.startswith("kill"))
        shown = [
            f"seed {self.plan.seed}, {self.plan.duration_s:g} s of faults on {self.plan.database}",
            f"faults: {len(self.faults)}, of them {kills} SIGKILLs",
            *(f"    {count:4} {kind}" for kind, count in sorted(kinds.items())),
            *(f"{name}: {value}" for name, value in self.figures.items()),
            f"parts that ended by themselves: {dict(Counter(self.deaths)) or 'none'}",
            "recovery, seconds until the next body began (median, worst):",
        ]
        for part, seconds in sorted(self.recovery_s.items()):
            shown.append(f"    {part}: {sorted(seconds)[len(seconds) // 2]:.1f}, {max(seconds):.1f} of {len(seconds)}")
        shown.append(f"quiet after {self.quiet_after_s:.1f} s" + (f"; still: {self.still}" if self.still else ""))
        counts = ", ".join(f"{count} {kind}" for kind, count in history.summary(self.violations).items())
        shown.append(f"audit of {self.events} events: {counts}")
        shown += [f"    {one.guarantee} {one.kind}: {one.subject}: {one.why}" for one in self.violations[:40]]
        return shown


@dataclass(kw_only=True)
class Storm:
    """One run."""

    plan: Plan
    yard: installation.Installation
    dice: random.Random = field(init=False)
    load: Load = field(init=False)
    bare: BareLoad = field(init=False)
    audit: Audit = field(init=False)
    faults: list[Fault] = field(default_factory=list)
    say: Callable[[str], None] = lambda _: None
    deaths: list[str] = field(default_factory=list)
    """Parts that ended though nobody killed them; an operator's supervisor starts them again, and so does the storm."""
    _down: set[str] = field(default_factory=set)
    """Parts that were killed and are not started again yet."""
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)
    _began: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.plan.seed)
        self.load = Load(installation=self.yard, dice=random.Random(self.plan.seed + 1))
        self.bare = BareLoad(installation=self.yard)
        self.audit = Audit(installation=self.yard, load=self.load, bare=self.bare)

    # --- the run

    def run(self) -> None:
        """Faults under load until the time is up; then everything is put back to work."""
        parts.eventually(lambda: len(self.load.store.dags()) == len(load.DAGS), 120, what="the DAGs are loaded")
        self._began = time.time()
        self._at(0, self._submit)
        self._at(1, self._look)
        self._at(1, self._sample)
        self._at(self._pause(), self._strike)
        while time.time() - self._began < self.plan.duration_s:
            self._tick()
        self._put_back()

    def settle(self) -> tuple[float, str]:
        """Wait until all is quiet. Gives how long it took, and what was still going on at the end."""
        began, still = time.monotonic(), "?"
        while still and time.monotonic() - began < self.plan.quiet_s:
            time.sleep(0.5)
            try:
                still = self.audit.is_quiet()
                if "plain messages" in still:
                    self.load.send_again(self._known_plain(), older_than_s=RESEND_PLAIN_S)
            except AWAY as error:
                still = f"a part does not answer: {error!r}"
        return time.monotonic() - began, still

    def _known_plain(self) -> set[str]:
        begun = {attempt for _, attempt, _, _ in audit.bodies(self.yard)}
        with_pod = {pod.attempt for pod in self.audit.pods.values()}
        return {*self.audit.plain_results(), *begun, *with_pod}

    def _tick(self) -> None:
        now = time.time()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
        for name, part in self.yard.parts.items():
            if name not in self._down and part.process is not None and part.process.poll() is not None:
                self.deaths.append(name)
                self.say(
                    f"{now - self._began:6.1f} {name} ended by itself with {part.process.returncode}; its last words:"
                )
                log = (self.yard.folder / f"{name}.log").read_text(errors="replace")
                self.say("\n".join(log.splitlines()[-LAST_LINES:]))
                self._revive(name, 1.0)
        time.sleep(TICK_S)

    def _at(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.time() + delay_s, next(self._order), call))

    def _pause(self) -> float:
        return min(4 * self.plan.every_s, self.dice.expovariate(1 / self.plan.every_s))

    def _submit(self) -> None:
        self._at(LOAD_S, self._submit)
        with contextlib.suppress(*AWAY):
            known = self.audit.plain_results().keys()
            self.load.top_up(open_runs=self.audit.open_runs(), open_plain=len(self.load.plain.keys() - known))
            self.bare.top_up()

    def _look(self) -> None:
        self._at(LOOK_S, self._look)
        with contextlib.suppress(*AWAY):
            self.audit.look()

    def _sample(self) -> None:
        self._at(SAMPLE_S, self._sample)
        with contextlib.suppress(*AWAY):
            self.audit.sample()

    def _put_back(self) -> None:
        """Every part runs again."""
        for _, _, call in sorted(self._due):
            if getattr(call, "is_repair", False):
                call()
        self._due.clear()
        for name in list(self.yard.stopped):
            self.yard.go_on(name)
        for name in self.yard.parts:
            if not self.yard.is_up(name):
                self.yard.start(name)

    # --- faults

    def _strike(self) -> None:
        self._at(self._pause(), self._strike)
        kinds = {kind: weight for kind, weight in WEIGHTS.items() if self._is_wanted(kind)}
        kind = self.dice.choices(list(kinds), weights=list(kinds.values()))[0]
        choice = self.dice.random()  # drawn in any case, so that a fault that cannot be done shifts no later one
        seconds = self.dice.random()
        verb, _, what = kind.partition(" ")
        try:
            struck = VERBS[verb](self, what, choice, seconds)
        except (*AWAY, psutil.Error, ProcessLookupError) as error:
            self.say(f"{kind}: {error!r}")
            return
        if struck is not None:
            part, lasts_s = struck
            now = time.time()
            self.faults.append(Fault(at=now, kind=kind, part=part, ended_at=now + lasts_s))
            self.say(f"{now - self._began:6.1f} {kind} {part} for {lasts_s:.1f} s")

    def _is_wanted(self, kind: str) -> bool:
        what = kind.partition(" ")[2]
        if self.plan.only:
            return kind in self.plan.only
        if what == "database" and "database" not in self.yard.parts:
            return False
        return self.plan.outages or what not in ("broker", "database", "cluster")

    def _one_of(self, what: str, choice: float) -> str | None:
        """A part of this role that is up, where the other one of the pair may be down."""
        up = [name for name in ROLES.get(what, (what,)) if self.yard.is_up(name)]
        return up[int(choice * len(up))] if up else None

    def _kill(self, what: str, choice: float, seconds: float) -> tuple[str, float] | None:
        name = self._one_of(what, choice)
        if name is None:
            return None
        self.yard.kill(name)
        down_s = 0.2 + 5 * seconds**2
        self._revive(name, down_s)
        return name, down_s

    def _revive(self, name: str, delay_s: float) -> None:
        def start() -> None:
            self.yard.start(name)
            self._down.discard(name)

        self._down.add(name)
        self._repair(delay_s, start)

    def _pause_part(self, what: str, choice: float, seconds: float) -> tuple[str, float] | None:
        name = self._one_of(what, choice)
        if name is None:
            return None
        self.yard.stop(name)
        longest_s = 12 if what in ("broker", "database", "cluster") else 45
        stands_s = 0.5 + longest_s * seconds**3
        self._go_on_later(name, stands_s)
        return name, stands_s

    def _go_on_later(self, name: str, delay_s: float) -> None:
        """From a thread of its own: the storm's may be waiting for the very part that stands still."""
        timer = threading.Timer(delay_s, self.yard.go_on, [name])
        timer.daemon = True
        timer.start()

    def _kill_child(self, what: str, choice: float, seconds: float) -> tuple[str, float] | None:
        name = self._one_of("worker", choice)
        children = self.yard.children(name) if name else []
        if not children:
            return None
        children[int(seconds * len(children))].send_signal(signal.SIGKILL)
        return str(name), 0.0

    def _delete_pod(self, what: str, choice: float, seconds: float) -> tuple[str, float] | None:
        pods = sorted(pod["metadata"]["name"] for pod in self.yard.pods())
        if not pods:
            return None
        pod = pods[int(choice * len(pods))]
        self._api("DELETE", f"/api/v1/namespaces/default/pods/{pod}", {"gracePeriodSeconds": 0 if seconds < 0.5 else 2})
        return "pod", 0.0

    def _cut(self, what: str, choice: float, seconds: float) -> tuple[str, float]:
        """Every connection to the broker or the database breaks; the server itself lives on."""
        if what == "broker":
            with self.yard.broker() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        else:
            with self.yard.sql() as ask:
                ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        return what, 0.0

    def _api_fault(self, what: str, choice: float, seconds: float) -> tuple[str, float]:
        """The API server misbehaves for a while; each kind is one of the local cluster's."""
        fault = dict(API_FAULTS[what])
        lasts_s = round(0.5 + 6 * seconds, 1) if fault.pop("lasts", False) else 0.0
        if lasts_s:
            fault["for_s"] = lasts_s
        self._api("POST", "/podyard/faults", fault)
        return "cluster", lasts_s

    def _repair(self, delay_s: float, call: Callable[[], None]) -> None:
        def repair() -> None:
            call()

        repair.is_repair = True  # type: ignore[attr-defined]
        self._at(delay_s, repair)

    def _api(self, method: str, path: str, body: Any) -> None:
        """A request of somebody's to the API server, past the dispatcher."""
        with contextlib.suppress(client.ClientError):  # the pod is gone already
            client.Client.from_kubeconfig(self.yard.kubeconfig).call(method, path, body)

    # --- the end

    def recovery(self) -> dict[str, list[float]]:
        """Part -> seconds from the end of each of its faults until a body began on a side that it serves.

        Only where no other fault came in between: two faults at once have no bound of their own.
        """
        with self.yard.sql() as ask:
            sides = {row["id"]: row["side"] for row in ask(audit.ATTEMPTS)}
        starts = sorted(
            (at, sides.get(one, "kubernetes")) for word, one, _, at in audit.bodies(self.yard) if word == "start"
        )
        found: dict[str, list[float]] = {}
        for number, fault in enumerate(self.faults):
            later = [other.at for other in self.faults[number + 1 :] if other.ended_at > other.at]
            until = min(later, default=self._began + self.plan.duration_s)
            if fault.ended_at > self._began + self.plan.duration_s:
                continue  # nothing was submitted any more
            role = fault.part.partition("-")[0]
            side = SIDE_OF.get(role)
            went_on = next((at for at, on in starts if at > fault.ended_at and side in (None, on)), None)
            if went_on is not None and (went_on < until or until - fault.ended_at > RECOVERY_BOUND_S):
                found.setdefault(f"{fault.kind.partition(' ')[0]} {role}", []).append(went_on - fault.ended_at)
        return found


WEIGHTS = {
    "kill scheduler": 4,
    "kill worker": 5,
    "kill dispatcher": 6,
    "kill broker": 1.5,
    "kill database": 1.5,
    "kill cluster": 0.7,
    "child worker": 3,
    "pause scheduler": 2,
    "pause worker": 2,
    "pause dispatcher": 3,
    "pause broker": 1,
    "pause database": 1,
    "pause cluster": 1,
    "delete pod": 5,
    "cut broker": 2,
    "cut database": 2,
    "api too-many": 1,
    "api quota": 1,
    "api broken": 1,
    "api half-done": 4,
    "api slow": 1,
    "api cut-watches": 2,
    "api silence": 1,
    "api expired": 2,
    "api duplicates": 1,
    "api reorder": 1,
    "api garbage": 1,
    "api evict": 2,
    "api preempt": 1,
    "api oom": 1,
}
"""How often each kind comes, in proportion."""
API_FAULTS: dict[str, dict[str, Any]] = {
    "too-many": {
        "kind": "fail",
        "verb": "create",
        "status": 429,
        "retry_after_s": 1,
        "probability": 0.7,
        "lasts": True,
    },
    "quota": {"kind": "fail", "verb": "create", "resource": "pods", "status": 403, "lasts": True},
    "broken": {"kind": "fail", "status": 500, "resource": "pods", "probability": 0.5, "lasts": True},
    "half-done": {"kind": "fail", "how": "cut", "done": True, "resource": "pods", "times": 4, "lasts": True},
    "slow": {"kind": "delay", "seconds": 0.3, "jitter_s": 1.0, "lasts": True},
    "cut-watches": {"kind": "cut_watches"},
    "silence": {"kind": "silence_watches", "lasts": True},
    "expired": {"kind": "expire_versions"},
    "duplicates": {"kind": "disturb", "how": "duplicate", "lasts": True},
    "reorder": {"kind": "disturb", "how": "reorder", "lasts": True},
    "garbage": {"kind": "disturb", "how": "garbage", "probability": 0.3, "lasts": True},
    "evict": {"kind": "evict", "pick": 1},
    "preempt": {"kind": "preempt", "pick": 1},
    "oom": {"kind": "oom", "pick": 1},
}
"""What the local cluster is asked for (docs/testing.md)."""
VERBS: dict[str, Callable[[Storm, str, float, float], tuple[str, float] | None]] = {
    "kill": Storm._kill,
    "pause": Storm._pause_part,
    "child": Storm._kill_child,
    "delete": Storm._delete_pod,
    "cut": Storm._cut,
    "api": Storm._api_fault,
}


def run(plan: Plan, *, say: Callable[[str], None] = lambda _: None, folder: Path | None = None) -> Report:
    """One run from the start of the parts to the audit. The folder with all logs stays where something was wrong."""
    folder = folder or Path(tempfile.mkdtemp(prefix="podyard-chaos-"))
    say(f"seed {plan.seed}, folder {folder}")
    with installation.running(folder, installation.Shape(database=plan.database, has_bare=True)) as yard:
        storm = Storm(plan=plan, yard=yard, say=say)
        storm.run()
        quiet_after_s, still = storm.settle()
        with contextlib.suppress(*AWAY):
            storm.audit.look()
        events = [*storm.audit.events(), *storm.audit.slots()]
        recovery = storm.recovery()
        bounded = [
            history.Recovered(part=part, seconds=one, bound_s=RECOVERY_BOUND_S)
            for part, seconds in recovery.items()
            for one in seconds
        ]
        report = Report(
            plan=plan,
            faults=storm.faults,
            violations=history.check([*events, *bounded]),
            events=len(events),
            figures={
                **audit.figures(yard),
                **storm.bare.figures(),
                "refused by parts that were away": storm.load.refused,
                "samples of limits": storm.audit.samples,
                "most pods at once": max((one.count for one in storm.audit.held), default=0),
            },
            recovery_s=recovery,
            quiet_after_s=quiet_after_s,
            deaths=storm.deaths,
            still=still,
            folder=folder,
        )
        storm.load.close()
        storm.bare.close()
    if report.is_good:
        shutil.rmtree(folder, ignore_errors=True)
    return report
