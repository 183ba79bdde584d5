"""The runs at work, as this process remembers them: a cache of the record that may be dropped at any time.

A run that is not here, or whose transaction failed, is built again from the database.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dispatcher.manifests.retry_hints import RetryHints
from routing.authoring import spec
from routing.scheduling import ready
from routing.store import entries, ledger

VERSIONS_MAX = 200


@dataclass(kw_only=True)
class Instance:
    """What is remembered of a task instance."""

    id: int
    attempts: int
    infra_failures: int
    lessons: RetryHints = field(default_factory=RetryHints)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A DAG version, read once for all its runs."""

    dag: spec.DagSpec
    tasks: dict[str, spec.TaskSpec]
    graph: ready.Graph


@dataclass(kw_only=True)
class Run:
    """A run that has started and not ended."""

    row: entries.RunState
    version: Version
    instances: dict[str, Instance]
    progress: ready.Progress
    ready: dict[str, None] = field(default_factory=dict)
    """Tasks to send, in order; a mapping because a task must not be in it twice."""
    built_mono_s: float = 0.0


class Runs:
    """The cache."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._versions: dict[int, Version] = {}

    def __iter__(self) -> Iterator[Run]:
        # A copy: whoever goes through the runs drops some of them.
        return iter(list(self._runs.values()))

    def __contains__(self, run: int) -> bool:
        return run in self._runs

    def drop(self, runs: Iterable[int]) -> None:
        """Forget runs; they are read again when they are needed."""
        for run in list(runs):
            self._runs.pop(run, None)

    def clear(self) -> None:
        """Forget all runs."""
        self._runs.clear()

    def get(self, book: ledger.Ledger, run: int, *, now_mono_s: float) -> tuple[Run | None, ready.Settled]:
        """A run, from the cache or the record, and what was found to be ready if it had to be read.

        None for a run that has ended.
        """
        if run in self._runs:
            return self._runs[run], _NOTHING
        row = book.run(run)
        if row is None or row.state != "running":
            return None, _NOTHING
        version = self._version(book, row.version_id)
        known = {task.task_id: task.state for task in row.tasks}
        progress, settled = ready.Progress.of(version.graph, known)
        instances = {
            task.task_id: Instance(
                id=task.id,
                attempts=task.attempts,
                infra_failures=task.infra_failures,
                lessons=RetryHints.read(task.lessons),
            )
            for task in row.tasks
        }
        built = Run(row=row, version=version, instances=instances, progress=progress, built_mono_s=now_mono_s)
        self._runs[run] = built
        return built, settled

    def oldest(self) -> Run | None:
        """The run that was read longest ago."""
        return min(self._runs.values(), key=lambda run: run.built_mono_s, default=None)

    def _version(self, book: ledger.Ledger, version_id: int) -> Version:
        if version_id not in self._versions:
            if len(self._versions) >= VERSIONS_MAX:
                # A version that is still needed is read again by one query; what was
                # used last is not worth keeping count of.
                self._versions.clear()
            dag = spec.DagSpec.from_json(book.structure(version_id))
            self._versions[version_id] = Version(
                dag=dag, tasks={task.task_id: task for task in dag.tasks}, graph=ready.Graph(map(_node, dag.tasks))
            )
        return self._versions[version_id]


_NOTHING = ready.Settled((), ())


def _node(task: spec.TaskSpec) -> ready.Node:
    return ready.Node(
        task_id=task.task_id,
        upstream=task.upstream,
        rule=task.trigger_rule,
        is_instant=task.operator == "empty",
    )
