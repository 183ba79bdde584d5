"""What tests of several modules make: messages, attempts as they are after a few moves, manifests and pods."""

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.attempts import sightings
from dispatcher.attempts.attempt import Attempt, Closed, Ending, Launch, Pod
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.options import QueueProfile
from dispatcher.protocol.message import Message
from dispatcher.protocol.outcome import Outcome

START = datetime(2026, 1, 1, tzinfo=UTC)
_numbers = itertools.count(1)


def message(
    task_id: str | None = None, *, name: str = "tests.task", queue: str = "kubernetes", **fields: Any
) -> Message:
    """A task message as Celery sends it; `fields` are those of `Message`."""
    task_id = task_id or f"task-{next(_numbers)}"
    delivery = {"exchange": "", "routing_key": queue, **fields.pop("delivery_info", {})}
    headers = {"id": task_id, "task": name, "retries": 0, **fields.pop("headers", {})}
    return Message(name=name, id=task_id, headers=headers, delivery_info=delivery, **fields)


def attempt(number: int = 0, *, profile: QueueProfile | None = None, **fields: Any) -> Attempt:
    """One that was received as the `number`th; `fields` are those of `Attempt` and of `message`."""
    given = {key: fields.pop(key) for key in ("queue", "headers", "kwargs", "delivery_info") if key in fields}
    task_id = fields.pop("task_id", None)
    return Attempt(
        message=fields.pop("message", None) or message(task_id, **given),
        profile=profile or QueueProfile(),
        received_at=START + timedelta(seconds=number),
        **fields,
    )


def queued(attempts: Attempts, number: int = 0, *, namespace: str = "default", **fields: Any) -> Attempt:
    """One that waits for its turn, with a name for its pod."""
    made = attempt(number, **fields)
    assert attempts.add(made)
    attempts.name_pod(made, Pod(namespace=namespace, name=f"pod-{made.id}"))
    attempts.prepare(made, Launch(manifest=b"{}"))
    return made


def launched(attempts: Attempts, number: int = 0, *, created_mono_s: float = 0.0, **fields: Any) -> Attempt:
    """One whose pod exists."""
    made = queued(attempts, number, **fields)
    assert attempts.admit(made)
    uid = f"uid-{made.id}"
    found = Pod(namespace=made.namespace, name=made.pod.name, uid=uid, created_mono_s=created_mono_s, created_at=START)
    assert attempts.launched(made, found)
    return made


def manifest(name: str = "p", *command: str, labels: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """The manifest of a pod whose task container runs a command; `spec` adds fields to the pod's."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "base", "image": "busybox:1.36", "command": list(command or ("true",))}],
            **spec,
        },
    }


def container_of(pod: Mapping[str, Any], name: str = "base") -> dict[str, Any]:
    """One container of a pod, the task's own unless another is named."""
    return dict(next(container for container in pod["spec"]["containers"] if container["name"] == name))


def pod_of(made: Attempt, status: Mapping[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """The pod of an attempt, as the API server shows it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": made.pod.name,
            "namespace": made.namespace,
            "uid": made.pod.uid or f"uid-{made.id}",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {},
            "annotations": {
                "podyard.dev/attempt-id": made.id,
                "podyard.dev/retries": str(made.key.retries),
                "podyard.dev/queue": made.queue,
                **({"podyard.dev/replaced": str(made.key.replaced)} if made.key.replaced else {}),
                "podyard.dev/message": made.message.encode(),
            },
            **metadata,
        },
        "spec": {"containers": [{"name": "base", "image": "busybox"}]},
        "status": dict(status or {"phase": "Pending"}),
    }


def running(started_at: str = "2026-01-01T00:00:01Z") -> dict[str, Any]:
    """The status of a pod whose container runs."""
    state = {"running": {"startedAt": started_at}}
    return {"phase": "Running", "containerStatuses": [{"name": "base", "state": state}]}


def ended(exit_code: int = 0, *, message: str = "", **terminated: Any) -> dict[str, Any]:
    """The status of a pod whose container has ended."""
    state = {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "startedAt": "2026-01-01T00:00:01Z",
        "finishedAt": "2026-01-01T00:00:02Z",
        "message": message,
        **terminated,
    }
    phase = "Succeeded" if exit_code == 0 else "Failed"
    return {"phase": phase, "containerStatuses": [{"name": "base", "state": {"terminated": state}}]}


def seen(
    made: Attempt, status: Mapping[str, Any] | None = None, *, kind: str = "MODIFIED", now_mono_s: float = 0.0
) -> Any:
    """What a pod of an attempt says in an event of this kind."""
    return sightings.sighting(made, pod_of(made, status), kind, now_mono_s=now_mono_s)


def in_state(attempts: Attempts, state: State, number: int = 0, **fields: Any) -> Attempt:
    """One that has been brought to a state, as it happens in life."""
    if state in (State.QUEUED, State.PARKED, State.LAUNCHING, State.EXPIRING_LAUNCH):
        made = queued(attempts, number, **fields)
    else:
        made = launched(attempts, number, **fields)
    match state:
        case State.LAUNCHING:
            attempts.admit(made)
        case State.PARKED:
            attempts.admit(made)
            attempts.park(made, BlockedReason("Conflict", "later"), made.launch)
        case State.EXPIRING_LAUNCH | State.EXPIRING_POD:
            attempts.expire(made)
        case State.RUNNING:
            attempts.saw(made, seen(made, running()), uid=made.pod.uid or "")
            attempts.started(made)
        case State.COLLECTING:
            attempts.saw(made, seen(made, ended()), uid=made.pod.uid or "")
            attempts.collect(made)
        case State.ENDED:
            attempts.saw(made, seen(made, ended()), uid=made.pod.uid or "")
            attempts.end(made, Ending(result=Outcome(id=made.id, retries=0, state="SUCCESS")))
        case State.CLOSED:
            attempts.close(made, Closed.STORED)
        case _:
            pass
    assert made.state is state
    return made
