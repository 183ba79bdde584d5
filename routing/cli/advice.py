"""What to do next about a task that waits or failed. Pure: the explanation's rows in, sentences out."""

import shlex
from collections.abc import Iterator

from dispatcher import waits
from routing.store import rows

_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ImageInspectError",
        "ErrImageNeverPull",
        "RegistryUnavailable",
    }
)
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
    if not facts.consumers:
        program = _PROGRAM.get(latest.side, "worker")
        yield f"start a consumer of its queue: `podyard {program} --queues {shlex.quote(latest.queue)}`"
    reason = str((facts.pod or {}).get("reason") or latest.waiting_reason or "")
    known = tuple(_about_reason(reason))
    yield from known
    if not known and facts.wait is not None and facts.wait.kind not in ("consumer", "queued"):
        yield waits.KINDS[facts.wait.kind].way_out


def _failed(facts: rows.Explanation) -> Iterator[str]:
    latest = facts.attempts[-1] if facts.attempts else None
    if latest is not None:
        yield from _about_reason(latest.reason or "")
        if latest.cause == "infrastructure":
            yield "the fault was not the task's; its extra attempts (scheduler.infra_retries) are used up"
        if latest.started_at is not None:
            yield f"what it printed: `podyard tasks logs {_name(facts)}`"
    yield f"then run it again: `podyard dags trigger {shlex.quote(facts.run.dag_id)}`"


def _about_reason(reason: str) -> Iterator[str]:
    if "OOMKilled" in reason:
        yield "give it more memory: resources.limits.memory of the container base, in the template or a pod_override"
    elif any(word in reason for word in _IMAGE):
        yield "check the image: its name, its tag, and whether the cluster may pull it (imagePullSecrets)"
    elif "CreateContainerConfigError" in reason:
        yield "check that the secrets and config maps that the pod names exist in its namespace"
    elif "Unschedulable" in reason:
        yield "no node takes the pod: lower its requests, correct its node selector or tolerations, or add a node"
    elif "DeadlineExceeded" in reason or "TimeLimit" in reason:
        yield "it took longer than it may: raise execution_timeout or activeDeadlineSeconds, or make it shorter"


def _name(facts: rows.Explanation, task_id: str | None = None) -> str:
    return f"{shlex.quote(facts.run.run_id)} {shlex.quote(task_id or facts.task.task_id)}"
