"""Finding what an argument means: a run by a part of its id, a task by its id, an attempt by the start of its id."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click

from routing import commands
from routing.cli.failure import Failure
from routing.store import Store, rows

_SEARCHED_RUNS = 5_000
_ATTEMPT = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A task of a run, and the attempt of it that is meant; no attempt where it has none yet."""

    run: rows.RunRow
    task: rows.TaskRow
    attempts: tuple[rows.AttemptRow, ...]
    attempt: rows.AttemptRow | None


dag_option = click.option("--dag", metavar="DAG", help="Look only at runs of this DAG.")


def find_run(store: Store, text: str | None, *, dag: str | None = None) -> rows.RunRow:
    """The run with this id, else the one whose id begins with it, else contains it; the latest for None."""
    if text is None:
        latest = store.runs(dag, limit=1)
        if not latest:
            of = f" of the DAG {dag!r}" if dag else ""
            raise Failure(f"there is no run{of} yet; start one with {commands.shown('dags', 'trigger', dag or 'DAG')}")
        return latest[0]
    exact = store.run(text, dag_id=dag)
    if exact is not None:
        return exact
    runs = store.runs(dag, limit=_SEARCHED_RUNS)
    # Beginnings first: `manual__2026` means the ids that begin so, though others may hold it, too.
    found = [run for run in runs if run.run_id.startswith(text)] or [run for run in runs if text in run.run_id]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failure(f"{len(found)} runs fit {text!r}: {_some(run.run_id for run in found)}; give more of the id")
    raise Failure(f"there is no run {text!r}; `podyard runs list` lists them")


def find_target(store: Store, words: Sequence[str], *, dag: str | None = None, number: int | None = None) -> Target:
    """What `RUN TASK`, `TASK` (of the latest run) or the start of an attempt's id means; `number` picks an attempt."""
    if len(words) == 1 and (attempt := find_attempt(store, words[0], dag=dag)):
        run = find_run(store, attempt.run_id, dag=attempt.dag_id)
        return _target(store, run, attempt.task_id, attempt=attempt, number=number)
    if len(words) == 1:
        return _target(store, find_run(store, None, dag=dag), words[0], number=number)
    if len(words) == 2:
        return _target(store, find_run(store, words[0], dag=dag), words[1], number=number)
    raise click.UsageError("name a task: TASK (of the latest run), RUN TASK, or the id of an attempt")


def _target(
    store: Store, run: rows.RunRow, task_id: str, *, attempt: rows.AttemptRow | None = None, number: int | None = None
) -> Target:
    tasks = {task.task_id: task for task in store.tasks(run.run_id, dag_id=run.dag_id)}
    if task_id not in tasks:
        near = difflib.get_close_matches(task_id, tasks, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {_some(tasks)}"
        raise Failure(f"run {run.run_id} of {run.dag_id} has no task {task_id!r}; {hint}")
    attempts = tuple(store.attempts(run.run_id, task_id, dag_id=run.dag_id))
    if number is not None:
        attempt = next((one for one in attempts if one.number == number), None)
        if attempt is None:
            has = f"it has {len(attempts)}" if attempts else "it has none yet"
            raise Failure(f"task {task_id!r} has no attempt {number}; {has}")
    return Target(
        run=run, task=tasks[task_id], attempts=attempts, attempt=attempt or (attempts[-1] if attempts else None)
    )


def may_be_id(text: str) -> bool:
    """Whether this may be the id of an attempt, or its beginning: eight characters and more of a UUID."""
    return _ATTEMPT.fullmatch(text) is not None


def find_attempt(store: Store, text: str, *, dag: str | None = None) -> rows.AttemptRow | None:
    """An attempt by its whole id, or by the start of it among the attempts of the latest runs."""
    if not may_be_id(text):
        return None
    whole = store.attempt(text)
    if whole is not None or len(text) == 36:
        return whole
    for run in store.runs(dag, limit=20):
        found = [one for one in store.attempts(run.run_id, dag_id=run.dag_id) if one.id.startswith(text)]
        if found:
            return found[0]
    return None


def _some(words: Iterable[str]) -> str:
    listed = list(words)
    return ", ".join(listed[:8]) + (", …" if len(listed) > 8 else "")
