"""Following a run as it goes: its rows again and again, and what has changed in between."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from routing.store import Store, rows, states

INTERVAL_S = 0.3
FINAL = states.final(states.RUN_MOVES)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a run."""

    run: rows.RunRow
    tasks: tuple[rows.TaskRow, ...]
    changed: tuple[rows.TaskRow, ...]
    """Tasks whose state is another than at the look before."""

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.run.state in FINAL


def follow(store: Store, run: rows.RunRow, *, interval_s: float = INTERVAL_S) -> Iterator[Look]:
    """Looks at a run until it has ended; the last look shows how."""
    before: Mapping[str, str] = {}
    while True:
        now = store.run(run.run_id, dag_id=run.dag_id) or run
        tasks = tuple(store.tasks(run.run_id, dag_id=run.dag_id))
        changed = tuple(task for task in tasks if before.get(task.task_id, "none") != task.state)
        look = Look(run=now, tasks=tasks, changed=changed)
        yield look
        if look.is_final:
            return
        before = {task.task_id: task.state for task in tasks}
        time.sleep(interval_s)
