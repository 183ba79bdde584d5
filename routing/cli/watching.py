"""Following a run as it goes: its rows again and again, and what has changed in between."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from routing.scheduling import lease_holder
from routing.store import Store, rows, states

INTERVAL_S = 0.3
SCHEDULER_S = 1.0
"""How often it is asked whether a scheduler is at work."""
FINAL = states.final(states.RUN_MOVES)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a run."""

    run: rows.RunRow
    tasks: tuple[rows.TaskRow, ...]
    changed: tuple[rows.TaskRow, ...]
    """Tasks whose state is another than at the look before."""
    is_scheduled: bool
    """Whether a scheduler is at work, which alone moves runs on."""

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.run.state in FINAL


def follow(store: Store, run: rows.RunRow, *, interval_s: float = INTERVAL_S) -> Iterator[Look]:
    """Looks at a run until it has ended; the last look shows how."""
    before: Mapping[str, str] = {}
    asked_mono_s, scheduled = float("-inf"), True
    while True:
        if time.monotonic() - asked_mono_s > SCHEDULER_S:
            asked_mono_s, scheduled = time.monotonic(), is_scheduled(store)
        now = store.run(run.run_id, dag_id=run.dag_id) or run
        tasks = tuple(store.tasks(run.run_id, dag_id=run.dag_id))
        # At the first look everything that has moved already is a change, and what has not begun is none.
        changed = tuple(task for task in tasks if before.get(task.task_id, "none") != task.state)
        look = Look(run=now, tasks=tasks, changed=changed, is_scheduled=scheduled)
        yield look
        if look.is_final:
            return
        before = {task.task_id: task.state for task in tasks}
        time.sleep(interval_s)


def is_scheduled(store: Store) -> bool:
    """Whether a scheduler is at work: one has the role and renewed it, and its process is not known to be gone."""
    with store.reading() as book:
        holder = book.holder(lease_holder.ROLE, now=datetime.now(UTC))
    return holder is not None and not lease_holder.is_dead_here(holder)
