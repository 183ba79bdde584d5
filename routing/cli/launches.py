"""Launches of plain Celery tasks: what the table of pods knows of a task by its id, in lines for people.

A task of a DAG has a record of its own (`routing.cli.tasks` shows that). Any other task that ran in a pod has a row for
each launch: one for each Celery retry.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dispatcher.attempts import wait_rules
from dispatcher.attempts.status_store import PodRow
from dispatcher.protocol import outcome
from dispatcher.status import diagnosis, reasons
from routing import commands
from routing.cli import lookup
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session
from routing.worker import task_log

_SEARCHED = 10_000
_CAUSES: dict[str, reasons.Cause] = {
    "application": "application",
    "infrastructure": "infrastructure",
    "unknown": "unknown",
}
_WHOSE = {
    "application": "the task's author's",
    "infrastructure": "the infrastructure's",
    "unknown": "nobody can say",
    None: "nobody's",
}
_NOT_ENDED = ("Waiting", "Pending", "Running", "Unknown")


def find(session: Session, task_id: str) -> list[PodRow]:
    """The launches of the task with this id, or whose id begins so, the first one first; none where there is none.

    Raises Failure where several tasks fit.
    """
    rows = session.pod_store.pods(attempt_ids=[task_id])
    if not rows and lookup.may_be_id(task_id):
        rows = [row for row in session.pod_store.pods(limit=_SEARCHED) if row.attempt_id.startswith(task_id)]
    ids = sorted({row.attempt_id for row in rows})
    if len(ids) > 1:
        raise Failure(f"{len(ids)} tasks fit {task_id!r}: {', '.join(ids[:5])}; give more of the id")
    return sorted(rows, key=lambda row: row.retries)


def facts(session: Session, launches: Sequence[PodRow]) -> dict[str, Any]:
    """All that is known, for programs."""
    found = diagnosed(launches[-1])
    return {
        "id": launches[-1].attempt_id,
        "task": launches[-1].task,
        "deployment": launches[-1].deployment,
        "launches": launches,
        "diagnosis": found,
        "log": _log(session, launches[-1]),
        "error": _error(launches[-1]),
        "next": list(_next(session, launches[-1], found)),
    }


def lines(session: Session, launches: Sequence[PodRow]) -> Iterator[str]:
    """What happened, why, whose it is and what to do, each once and of the last launch; then a line for each launch."""
    last = launches[-1]
    found = diagnosed(last)
    yield f"{last.task} ({last.attempt_id}), deployment {last.deployment}: {last.phase}"
    if happened := _happened(last):
        yield f"{'what happened' if has_ended(last) else 'what happens'}: {happened}"
    if found is not None:
        yield f"why: {found.explanation}"
        yield f"whose: {_WHOSE[found.cause]}"
    yield from (f"what to do: {step}" for step in _next(session, last, found))
    for launch in launches:
        yield from _launch(launch, is_shown=launch is last)
    log = _log(session, last)
    if log:
        yield f"log {log}"


def diagnosed(row: PodRow) -> diagnosis.Diagnosis | None:
    """Why it waits or failed; None where there is nothing to explain."""
    if not row.reason or row.phase in ("Running", "Succeeded"):
        return None
    return diagnosis.diagnose(
        diagnosis.Symptoms(
            reason=row.reason,
            cause=_CAUSES.get(row.cause or ""),
            exit_code=row.exit_code,
            message=_error(row) or "",
            node=row.node,
        )
    )


def _error(row: PodRow) -> str | None:
    """What the pod, or who would make it, says in words: of an outcome that the pod left, its exception."""
    if not row.message:
        return None
    try:
        found = outcome.decode(row.message, task_id=row.attempt_id, retries=row.retries)
    except outcome.UnreadableOutcome:
        return row.message
    if isinstance(found, outcome.Frame) or found.failure is None:
        return None  # it stood in the log, or was no failure
    said = ", ".join(map(str, found.failure.args))
    return f"{found.failure.type}: {said}" if said else found.failure.type


def has_ended(row: PodRow) -> bool:
    """Whether a launch is over."""
    return row.phase not in _NOT_ENDED or row.deleted_at is not None


def saved_log(session: Session, row: PodRow) -> Path:
    """Where its log is, if it was saved on this machine."""
    return Path(row.log) if row.log else task_log.path_of(session.settings.logs, row.attempt_id)


def _state(row: PodRow) -> str:
    code = None if row.exit_code in (None, 0) else f"exit code {row.exit_code}"
    return ", ".join(word for word in (row.phase, row.reason, code) if word)


def _happened(row: PodRow) -> str:
    """How it ended, or what it waits for; of reason and exit code only what its own message does not say."""
    error = _error(row) or ""
    wait = "" if row.waiting_since is None or has_ended(row) else _wait(row, row.waiting_since)
    code = None if row.exit_code in (None, 0) else f"exit code {row.exit_code}"
    known = ", ".join(word for word in (row.reason, code) if word and word not in error)
    return ": ".join(words for words in (wait, known, error) if words)


def _wait(row: PodRow, since: datetime) -> str:
    kind = wait_rules.kind_of(reason=row.reason or "", is_pod=row.phase != "Waiting", is_scheduled=row.node is not None)
    for_s = max(0.0, (datetime.now(UTC) - since).total_seconds())
    bound = ""
    if row.deadline_at is not None and row.at_deadline is not None:
        then = wait_rules.Rule(action=wait_rules.action(row.at_deadline)).consequence
        bound = f"; until {out.clock(row.deadline_at)}, then {then} (waits.{kind} of the queue {row.queue})"
    return f"it waits for {wait_rules.KINDS[kind].what}, for {for_s:.0f} s{bound}"


def _launch(row: PodRow, *, is_shown: bool) -> Iterator[str]:
    where = f"pod {row.name} in {row.namespace}" if row.created_at else "no pod yet"
    node = f" on {row.node}" if row.node else ""
    yield f"retry {row.retries} on {row.queue}: {row.phase if is_shown else _state(row)}, {where}{node}"
    names = ("received_at", "created_at", "started_at", "ended_at", "deleted_at")
    times = {name.removesuffix("_at"): getattr(row, name) for name in names}
    yield "  " + ", ".join(f"{word} {out.clock(at)}" for word, at in times.items() if at is not None)


def _log(session: Session, row: PodRow) -> str | None:
    path = saved_log(session, row)
    return str(path) if path.exists() else None


def _next(session: Session, row: PodRow, found: diagnosis.Diagnosis | None) -> Iterator[str]:
    if found is not None and found.what_to_do:
        app = ("--app", session.app) if session.app else ()
        logs = commands.shown("tasks", "logs", *app, row.attempt_id)
        yield found.what_to_do.replace("`podyard tasks logs`", logs)
