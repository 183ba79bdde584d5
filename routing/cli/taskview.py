"""How tasks of a run are shown: their columns, one line for a change, and the words for where a task ran."""

import json
from collections.abc import Iterable

from rich.text import Text

from routing.cli import output as out
from routing.cli import plaintext
from routing.store import rows

_LONGEST_VALUE = 60


def where(task: rows.TaskRow) -> str | None:
    """The pod or the host that ran it; the scheduler does tasks without a body itself."""
    return task.pod or task.host


def note(task: rows.TaskRow) -> str | None:
    """Why it waits or failed, in short; the result of one that succeeded."""
    if task.state == "success":
        return None if task.result is None else _shortened(json.dumps(task.result, ensure_ascii=False))
    return task.reason or task.waiting_reason


COLUMNS: out.Columns[rows.TaskRow] = {
    "TASK": lambda task: Text(plaintext.line(task.task_id)),
    "STATE": lambda task: task.state,
    "QUEUE": lambda task: Text(plaintext.line(task.queue or "-")),
    "SIDE": lambda task: task.side,
    "WHERE": where,
    "TRY": lambda task: task.try_number or None,
    "SECONDS": lambda task: task.runtime_s,
    "RESULT OR REASON": lambda task: Text(_shortened(plaintext.line(note(task) or "-"))),
}


def table(tasks: Iterable[rows.TaskRow]) -> out.Listing:
    """The tasks as a table."""
    return out.table(tasks, COLUMNS)


def change(task: rows.TaskRow) -> str:
    """One line for a task whose state changed."""
    words = [task.task_id, task.state]
    if task.side:
        words.append(f"({task.side}, queue {task.queue}{f', {where(task)}' if where(task) else ''})")
    if task.state in ("failed", "up_for_retry", "upstream_failed") and task.reason:
        words.append(task.reason)
    return plaintext.line(" ".join(words))


def summary(run: rows.RunRow) -> str:
    """One line for a run: its state and its tasks by state."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(run.task_states.items()))
    return plaintext.line(f"run {run.run_id} of {run.dag_id}: {run.state}" + (f" ({counts})" if counts else ""))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
