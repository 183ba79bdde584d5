"""The commands that help next with a task that waits or failed. Pure: the explanation's rows in, sentences out.

What to do about the failure itself stands in the explanation (`routing.store.explanation`), and not here again.
"""

import shlex
from collections.abc import Iterator

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
        yield f"why the last attempt failed: `podyard tasks logs {_name(facts)}`"
    elif state == "cancelled":
        yield f"run it again: `podyard dags trigger {shlex.quote(facts.run.dag_id)}`"
    elif state == "failed":
        yield from _failed(facts)
    elif state == "upstream_failed":
        failed = [name for name, upstream in facts.upstream.items() if upstream in ("failed", "upstream_failed")]
        for name in failed[:3]:
            yield f"why: `podyard tasks explain {_name(facts, name)}`"


def _not_started(facts: rows.Explanation) -> Iterator[str]:
    if facts.run.state == "queued":
        yield "start the scheduler, if none runs: `podyard scheduler`"
    for name, upstream in facts.upstream.items():
        if upstream in ("queued", "running", "up_for_retry"):
            yield f"what it waits for: `podyard tasks explain {_name(facts, name)}`"
            return


def _open(facts: rows.Explanation) -> Iterator[str]:
    if not facts.attempts:
        return
    latest = facts.attempts[-1]
    if latest.state == "running":
        yield f"what it prints: `podyard tasks logs --follow {_name(facts)}`"


def _failed(facts: rows.Explanation) -> Iterator[str]:
    latest = facts.attempts[-1] if facts.attempts else None
    says_logs = explanation.LOGS in str((facts.diagnosis or {}).get("what_to_do"))
    if latest is not None and latest.started_at is not None and not says_logs:
        yield f"what it printed: `podyard tasks logs {_name(facts)}`"
    yield f"then run it again: `podyard dags trigger {shlex.quote(facts.run.dag_id)}`"


def _name(facts: rows.Explanation, task_id: str | None = None) -> str:
    return f"{shlex.quote(facts.run.run_id)} {shlex.quote(task_id or facts.task.task_id)}"
