"""Sentences that say why a task instance is where it is. Pure: rows in, text out."""

from collections.abc import Iterator
from datetime import datetime

from routing.store import rows

WAITING = frozenset({"recorded", "sent"})


def lines(facts: rows.Explanation, *, trigger_rule: str, at: datetime) -> tuple[str, ...]:
    """The story of one task instance as of `at`: its state first, then why, then each attempt."""
    return tuple(_lines(facts, trigger_rule, at))


def _lines(facts: rows.Explanation, trigger_rule: str, at: datetime) -> Iterator[str]:
    task = facts.task
    yield f"{task.task_id} of {task.dag_id}, run {task.run_id}: {task.state}"
    if task.state == "none":
        yield from _not_ready(facts, trigger_rule)
    elif task.state in ("queued", "running"):
        yield from _open(facts, at)
    elif task.state == "up_for_retry" and task.next_try_at is not None:
        yield f"the next attempt starts in {max(0.0, (task.next_try_at - at).total_seconds()):.0f} s"
    elif task.state in ("upstream_failed", "skipped"):
        yield f"it did not run: its trigger rule is {trigger_rule}, and upstream {_states(facts)}"
    if task.reason:
        yield f"reason: {task.reason}"
    for attempt in facts.attempts:
        yield _attempt(attempt)
        yield from (f"  later: {_evidence(entry)}" for entry in attempt.evidence)


def _not_ready(facts: rows.Explanation, trigger_rule: str) -> Iterator[str]:
    if facts.run.state == "queued":
        yield "its run has not started: the scheduler is not running, or the DAG is paused"
        return
    open_tasks = [name for name, state in facts.upstream.items() if state not in _ENDED]
    if open_tasks:
        yield f"it waits for {', '.join(open_tasks)} (trigger rule {trigger_rule})"
    else:
        yield "nothing before it is open: it waits for the scheduler, or for scheduler.max_active_tasks"


_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "cancelled"})


def _open(facts: rows.Explanation, at: datetime) -> Iterator[str]:
    if not facts.attempts:
        return
    latest = facts.attempts[-1]
    if latest.state not in WAITING:
        return
    since = latest.waiting_since or latest.created_at
    waited_s = max(0.0, (at - since).total_seconds())
    if latest.state == "recorded":
        yield f"its message is not sent yet, for {waited_s:.0f} s: the broker or the scheduler is away"
    elif not facts.consumers:
        yield f"no worker consumes the queue {latest.queue!r} ({latest.side}); it has waited for {waited_s:.0f} s"
    elif latest.waiting_reason:
        yield f"{latest.waiting_reason}, for {waited_s:.0f} s"
    if facts.pod is not None:
        yield _pod(facts)


def _pod(facts: rows.Explanation) -> str:
    pod = facts.pod or {}
    why = ": ".join(str(pod[name]) for name in ("reason", "message") if pod.get(name))
    return f"its pod {pod.get('name')} in {pod.get('namespace')} is {pod.get('phase')}" + (f" ({why})" if why else "")


def _attempt(attempt: rows.AttemptRow) -> str:
    where = attempt.pod or attempt.host
    words = [f"attempt {attempt.number} ({attempt.id}) on {attempt.queue} ({attempt.side}): {attempt.state}"]
    if where:
        words.append(f"at {where}")
    if attempt.runtime_s is not None:
        words.append(f"after {attempt.runtime_s:.1f} s")
    if attempt.exit_code is not None:
        words.append(f"exit code {attempt.exit_code}")
    if attempt.reason:
        words.append(f"{attempt.reason} ({attempt.cause})" if attempt.cause else attempt.reason)
    if attempt.error:
        words.append(attempt.error.partition("\n")[0])
    return ", ".join(words)


def _evidence(entry: object) -> str:
    return ", ".join(f"{key} {value}" for key, value in dict(entry).items() if value is not None)  # type: ignore[call-overload]


def _states(facts: rows.Explanation) -> str:
    return ", ".join(f"{name} is {state}" for name, state in facts.upstream.items()) or "has no tasks"
