"""Entries of the ledger: what the scheduler's statements take and give. Pure values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class AttemptFacts:
    """The columns that merging may change; the same names as `routing.results.report_merge.Facts`."""

    state: str
    started_at: datetime | None
    ended_at: datetime | None
    host: str | None
    pid: int | None
    pod: str | None
    exit_code: int | None
    reason: str | None
    cause: str | None
    error: str | None
    runtime_s: float | None
    evidence: Sequence[Mapping[str, Any]]
    diagnosis: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class OpenAttempt:
    """An attempt with the task instance that it belongs to, as they stand in this transaction."""

    id: str
    facts: AttemptFacts
    number: int
    queue: str
    side: str
    task_instance: int
    run: int
    task_id: str
    task_state: str
    infra_failures: int


@dataclass(frozen=True, kw_only=True)
class NewAttempt:
    """An attempt to insert, in the state `recorded`."""

    id: str
    task_instance: int
    number: int
    side: str
    queue: str
    rule: str
    message: Mapping[str, Any]
    created_at: datetime
    waiting_reason: str | None
    wait_kind: str | None


@dataclass(frozen=True, kw_only=True)
class TaskMove:
    """A task instance that goes to `state`. What is None stays as it is, but `next_try_at` and `reason` are set."""

    task_instance: int
    state: str
    attempts: int | None = None
    infra_failures: int | None = None
    next_try_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    lessons: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """A task instance as the cache of a run needs it."""

    id: int
    task_id: str
    state: str
    attempts: int
    infra_failures: int
    next_try_at: datetime | None
    lessons: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run with its task instances."""

    id: int
    run_id: str
    dag_id: str
    version_id: int
    state: str
    logical_date: datetime
    conf: Mapping[str, Any]
    tasks: Sequence[TaskState] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True)
class Unsent:
    """An attempt whose message is to be sent (again)."""

    id: str
    queue: str
    message: Mapping[str, Any]
    pod_end: Mapping[str, Any] | None = None
    """What the table of pods says of the pod that it had, if that has ended."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """An open attempt as the sweep sees it."""

    id: str
    state: str
    side: str
    queue: str
    sent_at: datetime | None
    sends: int
    is_unwanted: bool
    """Its task instance has ended without it (the run was cancelled): it must be stopped."""
    has_pod: bool
    """The dispatcher knows of it."""
    is_launched: bool
    """Its pod was created: it does not only wait for one."""
    is_end_seen: bool
    """Its pod ended a while ago, and the dispatcher saw that."""


@dataclass(frozen=True, kw_only=True)
class Overdue:
    """An attempt whose message was not read by its deadline."""

    id: str
    side: str
    queue: str
    waiting_reason: str | None
    wait_kind: str | None
    at_deadline: str
