"""What to do next about a task that waits or failed. Pure: the explanation's rows in, sentences out."""

import shlex
from collections.abc import Iterator

from dispatcher.attempts import wait_rules
from routing.store import rows

_PROGRAM = {"celery": "worker", "kubernetes": "dispatcher"}


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
        return
    if not facts.consumers and facts.pod is None:
        program = _PROGRAM.get(latest.side, "worker")
        yield f"start a consumer of its queue: `podyard {program} --queues {shlex.quote(latest.queue)}`"
    if facts.diagnosis is not None:
        yield str(facts.diagnosis["what_to_do"])
    elif facts.wait is not None and facts.wait.kind not in ("consumer", "queued"):
        yield wait_rules.KINDS[facts.wait.kind].way_out


def _failed(facts: rows.Explanation) -> Iterator[str]:
    latest = facts.attempts[-1] if facts.attempts else None
    if latest is not None:
        if facts.diagnosis is not None:
            yield str(facts.diagnosis["what_to_do"])
        if latest.cause == "infrastructure":
            yield "the fault was not the task's; its extra attempts (scheduler.infra_retries) are used up"
        if latest.started_at is not None:
            yield f"what it printed: `podyard tasks logs {_name(facts)}`"
    yield f"then run it again: `podyard dags trigger {shlex.quote(facts.run.dag_id)}`"


def _name(facts: rows.Explanation, task_id: str | None = None) -> str:
    return f"{shlex.quote(facts.run.run_id)} {shlex.quote(task_id or facts.task.task_id)}"
