"""Sentences that say why a task instance is where it is. Pure: rows in, text out."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from dispatcher.attempts import wait_rules
from dispatcher.manifests import retry_hints
from dispatcher.status import diagnosis, reasons
from routing import commands
from routing.store import messagewaits, rows

WAITING = frozenset({"recorded", "sent"})
LOGS = "`podyard tasks logs`"
"""The command that prints a log, as the table of reasons names it."""


def lines(facts: rows.Explanation, *, trigger_rule: str, at: datetime) -> tuple[str, ...]:
    """The story of one task instance as of `at`: its state first, then why, then each attempt."""
    return tuple(_lines(facts, trigger_rule, at))


def diagnosed(facts: rows.Explanation) -> Mapping[str, Any] | None:
    """Why the latest attempt waits or failed: reason, cause, explanation and what_to_do; None where all is well.

    A pod that waits is judged by its row of now; what ended keeps the diagnosis that it got.
    """
    if not facts.attempts:
        return None
    latest, pod = facts.attempts[-1], facts.pod or {}
    # Judged now, not when it began to wait: what a pod waits for changes with every look of the cluster's scheduler.
    if latest.state in WAITING and pod.get("reason"):
        found = diagnosis.diagnose(
            diagnosis.Symptoms(reason=pod["reason"], message=pod.get("message") or "", node=pod.get("node"))
        )
    elif latest.state in ("failed", "lost", "revoked"):
        found = diagnosis.diagnose(
            diagnosis.Symptoms(
                reason=latest.reason,
                cause=_CAUSES.get(latest.cause or ""),
                exit_code=latest.exit_code,
                message=(latest.error or "").partition("\n")[0],
                place="container" if latest.side == "kubernetes" else "worker",
            )
        )
    else:
        return None
    found_facts = {name: getattr(found, name) for name in ("reason", "cause", "explanation", "what_to_do")}
    # What was stored counts before what is made again here: the dispatcher knew the container, its node and its events.
    return found_facts if latest.state in WAITING else {**found_facts, **(latest.diagnosis or {})}


_CAUSES: Mapping[str, reasons.Cause] = {
    "application": "application",
    "infrastructure": "infrastructure",
    "unknown": "unknown",
}


def _lines(facts: rows.Explanation, trigger_rule: str, at: datetime) -> Iterator[str]:
    task = facts.task
    latest = facts.attempts[-1] if facts.attempts else None
    yield f"{task.task_id} of {task.dag_id}, run {task.run_id}: {task.state}"
    if task.state == "none":
        yield from _not_ready(facts, trigger_rule)
    elif task.state in ("queued", "running"):
        yield from _open(facts, at)
    elif task.state == "cancelled":
        yield from _cancelled(task, latest)
    elif task.state in ("upstream_failed", "skipped") and latest is None:
        yield from _left_out(facts, trigger_rule)
    elif latest is not None and latest.state not in (*WAITING, "running", "succeeded"):
        yield from _ended(facts, latest)
    elif task.reason:
        yield f"what happened: {task.reason}"
    if task.state == "up_for_retry" and task.next_try_at is not None:
        yield f"the next attempt starts in {max(0.0, (task.next_try_at - at).total_seconds()):.0f} s"
    for attempt in facts.attempts:
        is_shown = attempt is latest and task.state not in ("queued", "running")
        yield _attempt(attempt, is_shown=is_shown)
        if attempt.lessons:
            yield f"  its pod: {retry_hints.RetryHints.read(attempt.lessons).words}"
        if attempt.diagnosis and not is_shown:
            yield f"  why: {attempt.diagnosis['explanation']}"
        yield from (f"  later: {_evidence(entry)}" for entry in attempt.evidence)


def _cancelled(task: rows.TaskRow, latest: rows.AttemptRow | None) -> Iterator[str]:
    what = (
        "it had not been sent"
        if latest is None
        else f"attempt {latest.number} {_STOPPED.get(latest.state, 'is stopped')}"
    )
    yield f"what happened: {task.reason or 'it was cancelled'}; {what}"
    yield "why: somebody asked for it (`podyard runs cancel`)"
    yield f"whose: {_whose(task, None)}"
    yield "what to do: nothing"


_STOPPED = {"succeeded": "had succeeded", "failed": "had failed", "lost": "had been lost", "revoked": "was stopped"}


def _left_out(facts: rows.Explanation, trigger_rule: str) -> Iterator[str]:
    yield "what happened: it did not run"
    yield f"why: its trigger rule is {trigger_rule}, and upstream {_states(facts)}"
    failed = [name for name, state in facts.upstream.items() if state in ("failed", "upstream_failed")]
    if failed and facts.task.state == "upstream_failed":
        yield f"whose: not its own; that of {', '.join(failed)}"
        yield "what to do: see why that failed, then run it again"


def _ended(facts: rows.Explanation, latest: rows.AttemptRow) -> Iterator[str]:
    """The end of the latest attempt, each thing once: what happened, why, whose it is, what to do."""
    yield f"what happened: {_happened(latest)}"
    found = facts.diagnosis
    if found is None:
        return
    yield f"why: {found['explanation']}"
    yield f"whose: {_whose(facts.task, latest.cause)}"
    yield f"what to do: {_named(found['what_to_do'], facts)}"


def _named(advice: str, facts: rows.Explanation) -> str:
    """The advice, with this task in the command that prints a log."""
    return advice.replace(LOGS, commands.shown("tasks", "logs", facts.run.run_id, facts.task.task_id))


def _happened(attempt: rows.AttemptRow) -> str:
    what = "was stopped" if attempt.state == "revoked" else "was lost" if attempt.state == "lost" else "failed"
    end = _end(attempt)
    return f"attempt {attempt.number} {what}" + (f": {end}" if end else "")


def _end(attempt: rows.AttemptRow) -> str:
    """Its own message, and of reason and exit code what that does not say. The remedy in it stands further down."""
    message = (attempt.error or "").partition("\n")[0].partition(wait_rules.TO_DO)[0].strip()
    extra = []
    if attempt.reason and attempt.state == "failed" and attempt.reason not in message:
        extra.append(attempt.reason)
    if attempt.exit_code is not None and f"exit code {attempt.exit_code}" not in message:
        extra.append(f"exit code {attempt.exit_code}")
    return ": ".join(words for words in (", ".join(extra), message) if words)


def _whose(task: rows.TaskRow, cause: str | None) -> str:
    """Whose failure it is, and who pays for it: the record's own verdict where that is final."""
    whose, budget = _WHOSE.get(cause, _WHOSE[None])
    verdict = _VERDICT.search(task.reason or "")
    return f"{whose}; {verdict[1] or verdict[2] if verdict else budget}"


_WHOSE: Mapping[str | None, tuple[str, str]] = {
    "application": ("the task's author's", "charged to `retries`"),
    "infrastructure": ("the infrastructure's", "charged to scheduler.infra_retries and not to `retries`"),
    "unknown": ("nobody can say", "charged to `retries`"),
    None: ("nobody's", "nothing is charged"),
}
_VERDICT = re.compile(r"; (tried again with [^;()]+)$| \(((?:failed|the infrastructure failed)\b[^()]*)\)$")
"""What `routing.scheduling` says at the end of a task's reason: how it is tried again, or why not."""


def _not_ready(facts: rows.Explanation, trigger_rule: str) -> Iterator[str]:
    if facts.run.state == "queued":
        yield "what happens: its run has not started: the scheduler is not running, or the DAG is paused"
        return
    open_tasks = [name for name, state in facts.upstream.items() if state not in _ENDED]
    if open_tasks:
        yield f"what happens: it waits for {', '.join(open_tasks)} (trigger rule {trigger_rule})"
    else:
        yield "what happens: nothing before it is open: it waits for the scheduler, or for scheduler.max_active_tasks"


_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "cancelled"})


def wait(facts: rows.Explanation) -> rows.WaitRow | None:
    """What the latest attempt of a task waits for; None where it does not."""
    latest = facts.attempts[-1] if facts.attempts else None
    if latest is None or latest.state not in WAITING or facts.task.state not in ("queued", "running"):
        return None
    # A row that says `Waiting` is old where nobody consumes the queue: its
    # dispatcher is gone, and the message came back.
    if facts.pod is not None and (facts.consumers or facts.pod["phase"] != "Waiting"):
        return _pods_wait(facts.pod)
    kind = _messages_wait(latest, is_consumed=bool(facts.consumers))
    return rows.WaitRow(
        kind=kind,
        reason=latest.waiting_reason if kind == "queued" else None,
        detail=None,
        since=latest.waiting_since or latest.created_at,
        deadline_at=latest.deadline_at,
        at_deadline=latest.at_deadline,
    )


def _messages_wait(latest: rows.AttemptRow, *, is_consumed: bool) -> str:
    """The kind that the scheduler wrote down with its deadline; before that, what is seen now."""
    if latest.state == "recorded":
        return "sending"
    # Written together with the kind; while it is missing, the scheduler has not looked at this attempt yet.
    if latest.at_deadline is not None:
        return messagewaits.kind_of(latest.wait_kind)
    return "queued" if is_consumed else "consumer"


def _pods_wait(pod: Mapping[str, Any]) -> rows.WaitRow | None:
    if pod["waiting_since"] is None:
        return None
    is_pod = pod["phase"] != "Waiting"
    return rows.WaitRow(
        kind=wait_rules.kind_of(reason=pod["reason"], is_pod=is_pod, is_scheduled=pod["node"] is not None),
        reason=pod["reason"],
        detail=pod["message"],
        since=pod["waiting_since"],
        deadline_at=pod["deadline_at"],
        at_deadline=pod["at_deadline"],
    )


def _open(facts: rows.Explanation, at: datetime) -> Iterator[str]:
    if not facts.attempts:
        return
    latest, found = facts.attempts[-1], facts.wait
    if latest.state == "running":
        yield from _running(facts)
        return
    if found is not None:
        yield f"what happens: {_waits(facts, found, at)}"
        yield _deadline(found, latest.queue, at)
    if facts.pod is not None:
        yield _pod(facts, is_shown=found is not None)
    if facts.diagnosis is not None:
        yield f"why: {facts.diagnosis['explanation']}"
        yield f"whose: {_WAIT_OF.get(facts.diagnosis['cause'], _WAIT_OF[None])}"
        yield f"what to do: {facts.diagnosis['what_to_do']}"
    elif found is not None:
        yield f"whose: {_WAIT_OF[None]}"
        yield f"what to do: {_remedy(found, latest)}"


def _remedy(found: rows.WaitRow, latest: rows.AttemptRow) -> str:
    if found.kind != "consumer":
        return wait_rules.KINDS[found.kind].remedy
    return f"start a consumer of its queue: {commands.shown(_PROGRAM[latest.side], '--queues', latest.queue)}"


_PROGRAM = {"celery": "worker", "kubernetes": "dispatcher"}


_WAIT_OF: Mapping[str | None, str] = {
    "application": "the task's author can end the wait; nothing is charged yet",
    "infrastructure": "the cluster's operator can end the wait; nothing is charged yet",
    "unknown": "nobody can say; nothing is charged yet",
    None: "nobody's; a wait costs nothing",
}


def _waits(facts: rows.Explanation, found: rows.WaitRow, at: datetime) -> str:
    latest = facts.attempts[-1]
    for_s = f"{max(0.0, (at - found.since).total_seconds()):.0f} s"
    if found.kind == "sending":
        return f"its message is not sent yet, for {for_s}: the broker or the scheduler is away"
    if found.kind == "consumer":
        return f"no worker consumes the queue {latest.queue!r} ({latest.side}); it has waited for {for_s}"
    why = ": ".join(word for word in (found.reason, found.detail) if word)
    return f"it waits for {wait_rules.KINDS[found.kind].what}, for {for_s}" + (f": {why}" if why else "")


def _deadline(found: rows.WaitRow, queue: str, at: datetime) -> str:
    """When the wait is over, and what happens then."""
    since = f"since {_clock(found.since)}"
    bound = f"waits.{found.kind} of the queue {queue}"
    if found.at_deadline is None:
        return f"{since}; its deadline is not known yet: the scheduler has not looked at it"
    if found.deadline_at is None:
        return f"{since}; there is no deadline ({bound})"
    left_s = (found.deadline_at - at).total_seconds()
    then = wait_rules.Rule(action=wait_rules.action(found.at_deadline)).consequence
    if left_s > 0:
        return f"{since}, until {_clock(found.deadline_at)}, that is for {left_s:.0f} s more; then {then} ({bound})"
    return f"{since}; its deadline was {_clock(found.deadline_at)}, {-left_s:.0f} s ago: {then} ({bound})"


def _clock(at: datetime) -> str:
    return f"{at.astimezone():%H:%M:%S}"


def _running(facts: rows.Explanation) -> Iterator[str]:
    if facts.pod is not None and facts.pod["phase"] in ("Succeeded", "Failed"):
        yield f"{_pod(facts)}; its outcome is not here yet: the result backend, the dispatcher or the scheduler is away"


def _pod(facts: rows.Explanation, *, is_shown: bool = False) -> str:
    """Where its pod stands; the reason only where no line before has it."""
    pod = facts.pod or {}
    why = ": ".join(str(pod[name]) for name in ("reason", "message") if pod.get(name) and not is_shown)
    return f"its pod {pod.get('name')} in {pod.get('namespace')} is {pod.get('phase')}" + (f" ({why})" if why else "")


def _attempt(attempt: rows.AttemptRow, *, is_shown: bool) -> str:
    """One attempt in a line: where, how long; how it ended only where the lines before do not say it."""
    where = attempt.pod or attempt.host
    words = [f"attempt {attempt.number} ({attempt.id}) on {attempt.queue} ({attempt.side}): {attempt.state}"]
    if where:
        words.append(f"at {where}")
    if attempt.runtime_s is not None:
        words.append(f"after {attempt.runtime_s:.1f} s")
    if not is_shown and attempt.state not in (*WAITING, "running", "succeeded"):
        words.append(f"{_end(attempt)} ({attempt.cause})" if attempt.cause else _end(attempt))
    return ", ".join(words)


def _evidence(entry: object) -> str:
    return ", ".join(f"{key} {value}" for key, value in dict(entry).items() if value is not None)  # type: ignore[call-overload]


def _states(facts: rows.Explanation) -> str:
    return ", ".join(f"{name} is {state}" for name, state in facts.upstream.items()) or "has no tasks"
