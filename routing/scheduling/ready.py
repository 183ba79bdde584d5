"""Which tasks of a run are ready, found from the tasks that just ended.

Each task counts how its direct upstream tasks ended, so that one end costs as much as it has downstream tasks, not as
the run has tasks. Pure: no clock, no database. A `Progress` is a cache of what the record says: it may be thrown away
and built again at any time.

The trigger rules are Airflow's: https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#trigger-rules
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from routing.store import states

FINAL = states.final(states.TASK_MOVES)
FAILED = frozenset({"failed", "upstream_failed", "cancelled"})
RUN = "run"
"""The answer of a rule that lets its task run; any other answer is the state in which the task ends unrun."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One task of the graph. `is_instant`: it has no body, it succeeds as soon as it may run."""

    task_id: str
    upstream: tuple[str, ...] = ()
    rule: str = "all_success"
    is_instant: bool = False


@dataclass(kw_only=True)
class Counts:
    """How the direct upstream tasks of one task ended so far."""

    total: int
    success: int = 0
    failed: int = 0
    upstream_failed: int = 0
    skipped: int = 0

    @property
    def done(self) -> int:
        return self.success + self.failed + self.upstream_failed + self.skipped

    @property
    def is_done(self) -> bool:
        return self.done == self.total

    @property
    def bad(self) -> int:
        """Failed, or not run because something above failed."""
        return self.failed + self.upstream_failed

    def add(self, state: str) -> None:
        """Count one upstream task that ended."""
        # Airflow has no such state for tasks; like a failure it leaves nothing for others to work with.
        name = "failed" if state == "cancelled" else state
        setattr(self, name, getattr(self, name) + 1)


@dataclass(frozen=True)
class Settled:
    """What follows from the ends: tasks to run, in the DAG's order, and tasks that ended without a run."""

    ready: tuple[str, ...]
    ended: tuple[tuple[str, str], ...]


TriggerCheck = Callable[[Counts], str | None]
"""Counts -> RUN, a final state, or None while that is open."""


def decide(rule: str, counts: Counts) -> str | None:
    """What a trigger rule says; a task with nothing before it always runs. Raises KeyError for an unknown rule."""
    return RULES[rule](counts) if counts.total else RUN


def run_state(leaves: Iterable[str]) -> str:
    """How a run ended whose tasks all ended, from the states of the tasks that nothing follows."""
    return "failed" if any(state in FAILED for state in leaves) else "success"


class Graph:
    """The tasks of one DAG version. Immutable, shared by all its runs."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes: Mapping[str, Node] = {node.task_id: node for node in nodes}
        self.downstream: dict[str, list[str]] = {task_id: [] for task_id in self.nodes}
        for node in self.nodes.values():
            for upstream in node.upstream:
                self.downstream[upstream].append(node.task_id)
        self.leaves = tuple(task_id for task_id, after in self.downstream.items() if not after)


@dataclass(kw_only=True)
class Progress:
    """How far one run has come."""

    graph: Graph
    states: dict[str, str] = field(default_factory=dict)
    """State of each task; `none` where missing."""
    counts: dict[str, Counts] = field(default_factory=dict)
    unfinished: int = 0

    @classmethod
    def of(cls, graph: Graph, known: Mapping[str, str]) -> tuple["Progress", Settled]:
        """Build from what the record says, and return what is ready now."""
        counts = {task_id: Counts(total=len(node.upstream)) for task_id, node in graph.nodes.items()}
        progress = cls(graph=graph, counts=counts, unfinished=len(graph.nodes))
        progress.states = {task_id: known.get(task_id, "none") for task_id in graph.nodes}
        for task_id, state in progress.states.items():
            if state in FINAL:
                progress._count(task_id, state)
        return progress, progress._settle(task_id for task_id, state in progress.states.items() if state == "none")

    def end(self, ended: Iterable[tuple[str, str]]) -> Settled:
        """Take in tasks that ended (task id, final state); a task that is known to have ended counts once."""
        touched: dict[str, None] = {}
        for task_id, state in ended:
            # A report may come twice, and an end may be known from the record already: counted twice, the
            # tasks after it would never be done with.
            if self.states[task_id] not in FINAL:
                touched.update(dict.fromkeys(self._finish(task_id, state)))
        return self._settle(touched)

    @property
    def is_done(self) -> bool:
        """Whether all tasks ended."""
        return self.unfinished == 0

    def outcome(self) -> str:
        """The state of the run, once all tasks ended."""
        return run_state(self.states[task_id] for task_id in self.graph.leaves)

    def _settle(self, touched: Iterable[str]) -> Settled:
        ready: list[str] = []
        ended: list[tuple[str, str]] = []
        open_tasks = deque(touched)
        while open_tasks:
            task_id = open_tasks.popleft()
            if self.states[task_id] != "none":
                continue
            node = self.graph.nodes[task_id]
            verdict = decide(node.rule, self.counts[task_id])
            if verdict == RUN and not node.is_instant:
                self.states[task_id] = "queued"
                ready.append(task_id)
            elif verdict is not None:
                state = "success" if verdict == RUN else verdict
                ended.append((task_id, state))
                # What ends without a body decides about others at once: a chain of
                # empty or skipped tasks takes one turn, not many.
                open_tasks.extend(self._finish(task_id, state))
        return Settled(tuple(ready), tuple(ended))

    def _finish(self, task_id: str, state: str) -> list[str]:
        self.states[task_id] = state
        self._count(task_id, state)
        return self.graph.downstream[task_id]

    def _count(self, task_id: str, state: str) -> None:
        self.unfinished -= 1
        for downstream in self.graph.downstream[task_id]:
            self.counts[downstream].add(state)


# As early as Airflow's TriggerRuleDep: one skipped task above is enough, though another may still fail.
def _all_success(c: Counts) -> str | None:
    if c.bad:
        return "upstream_failed"
    if c.skipped:
        return "skipped"
    return RUN if c.is_done else None


def _all_failed(c: Counts) -> str | None:
    if c.success or c.skipped:
        return "skipped"
    return RUN if c.is_done else None


def _all_done(c: Counts) -> str | None:
    return RUN if c.is_done else None


def _one_success(c: Counts) -> str | None:
    if c.success:
        return RUN
    if not c.is_done:
        return None
    # As Airflow's TriggerRuleDep: only where all were skipped is it a choice and no failure.
    return "skipped" if c.skipped == c.total else "upstream_failed"


def _one_failed(c: Counts) -> str | None:
    if c.bad:
        return RUN
    return "skipped" if c.is_done else None


def _one_done(c: Counts) -> str | None:
    if c.success or c.failed:
        return RUN
    return "skipped" if c.is_done else None


def _none_failed(c: Counts) -> str | None:
    if c.bad:
        return "upstream_failed"
    return RUN if c.is_done else None


def _none_failed_min_one_success(c: Counts) -> str | None:
    if c.bad:
        return "upstream_failed"
    if not c.is_done:
        return None
    return "skipped" if c.skipped == c.total else RUN


def _none_skipped(c: Counts) -> str | None:
    if c.skipped:
        return "skipped"
    return RUN if c.is_done else None


def _all_skipped(c: Counts) -> str | None:
    if c.success or c.bad:
        return "skipped"
    return RUN if c.is_done else None


def _always(c: Counts) -> str | None:
    return RUN


RULES: Mapping[str, TriggerCheck] = {
    "all_success": _all_success,
    "all_failed": _all_failed,
    "all_done": _all_done,
    "one_success": _one_success,
    "one_failed": _one_failed,
    "one_done": _one_done,
    "none_failed": _none_failed,
    "none_failed_min_one_success": _none_failed_min_one_success,
    "none_skipped": _none_skipped,
    "all_skipped": _all_skipped,
    "always": _always,
}
