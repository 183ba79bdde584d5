"""The commands that help next with a task that waits or failed. Pure: the explanation's rows in, sentences out.

What to do about the failure itself stands in the explanation (`routing.store.explanation`), and not here again.
"""

from collections.abc import Iterator

from routing import commands
from routing.store import explanation, rows


def next_steps(facts: rows.Explanation) -> tuple[str, ...]:
    """The next steps, the most useful one first; none for a task that ended well."""
    return tuple(_steps(facts))


def _steps(facts: rows.Explanation) -> Iterator[str]:
    state = facts.task.state
    if state == "none":
        yield from _not_started(facts)
    elif state in ("queued", "running"):
        yield from _open(facts)
    elif state == "up_for_retry":
        yield f"why the last attempt failed: {commands.shown('tasks', 'logs', *_name(facts))}"
    elif state == "cancelled":
        yield f"run it again: {commands.shown('dags', 'trigger', facts.run.dag_id)}"
    elif state == "failed":
        yield from _failed(facts)
    elif state == "upstream_failed":
        failed = [name for name, upstream in facts.upstream.items() if upstream in ("failed", "upstream_failed")]
        for name in failed[:3]:
            yield f"why: {commands.shown('tasks', 'explain', *_name(facts, name))}"


def _not_started(facts: rows.Explanation) -> Iterator[str]:
    if facts.run.state == "queued":
        yield "start the scheduler, if none runs: `podyard scheduler`"
    for name, upstream in facts.upstream.items():
        if upstream in ("queued", "running", "up_for_retry"):
            yield f"what it waits for: {commands.shown('tasks', 'explain', *_name(facts, name))}"
            return


def _open(facts: rows.Explanation) -> Iterator[str]:
    if not facts.attempts:
        return
    latest = facts.attempts[-1]
    if latest.state == "running":
        yield f"what it prints: {commands.shown('tasks', 'logs', '--follow', *_name(facts))}"


def _failed(facts: rows.Explanation) -> Iterator[str]:
    latest = facts.attempts[-1] if facts.attempts else None
    says_logs = explanation.LOGS in str((facts.diagnosis or {}).get("what_to_do"))
    if latest is not None and latest.started_at is not None and not says_logs:
        yield f"what it printed: {commands.shown('tasks', 'logs', *_name(facts))}"
    yield f"then run it again: {commands.shown('dags', 'trigger', facts.run.dag_id)}"


def _name(facts: rows.Explanation, task_id: str | None = None) -> tuple[str, str]:
    return facts.run.run_id, task_id or facts.task.task_id
