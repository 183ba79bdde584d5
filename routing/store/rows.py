"""What readers get from the record: one frozen row per thing, with aware UTC times and durations in seconds.

`routing.store.Store` answers with these; the command line and the web pages render them. Pure values: no database.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SchemaCheck:
    """Whether the database fits this code; `message` says what is wrong and what to do."""

    current: str | None
    """The revision of the database; None for an empty one."""
    wanted: str
    ok: bool
    message: str


@dataclass(frozen=True, kw_only=True)
class DagRow:
    """A DAG with its newest structure (`DagSpec.to_json`)."""

    dag_id: str
    file: str
    description: str | None
    is_paused: bool
    is_active: bool
    """False once its file or its name has gone."""
    loaded_at: datetime
    version: int | None
    structure: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task_count(self) -> int:
        """How many tasks the newest structure has."""
        return len(self.structure.get("tasks", ()))


@dataclass(frozen=True, kw_only=True)
class DagErrorRow:
    """Why a DAG file cannot be used, as of its last load."""

    file: str
    line: int | None
    message: str
    seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run of one DAG. `task_states` counts its task instances by state, where it was asked for."""

    id: int
    run_id: str
    dag_id: str
    run_type: str
    logical_date: datetime
    conf: Mapping[str, Any]
    state: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    reason: str | None
    task_states: Mapping[str, int] = field(default_factory=dict)

    @property
    def runtime_s(self) -> float | None:
        """Seconds from start to end; None before both are known."""
        return _seconds(self.started_at, self.ended_at)


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task of one run, with what is known of its latest attempt."""

    run_id: str
    dag_id: str
    task_id: str
    map_index: int
    state: str
    operator: str
    queue: str | None
    """The queue of the latest attempt, else the one that its author chose."""
    side: str | None
    """`celery` or `kubernetes`; None before the first attempt and for tasks that the scheduler does itself."""
    host: str | None
    pod: str | None
    try_number: int
    started_at: datetime | None
    ended_at: datetime | None
    runtime_s: float | None
    reason: str | None
    waiting_reason: str | None
    next_try_at: datetime | None
    attempt: str | None
    """The id of the latest attempt: the Celery task id."""
    result: Any = None
    """Its XCom `return_value`; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """One attempt: one row, one message, at most one pod."""

    id: str
    run_id: str
    dag_id: str
    task_id: str
    map_index: int
    number: int
    side: str
    queue: str
    rule: str
    state: str
    waiting_reason: str | None
    wait_kind: str | None
    """What it waits for, of `dispatcher.attempts.wait_rules.KINDS`; None where it does not wait."""
    waiting_since: datetime | None
    deadline_at: datetime | None
    """When its wait is over; None for never."""
    at_deadline: str | None
    """What happens then: `wait` (on), `retry` or `fail`."""
    created_at: datetime
    sent_at: datetime | None
    sends: int
    """How often the message was sent; more than one after a fault, always under the same id."""
    started_at: datetime | None
    ended_at: datetime | None
    host: str | None
    pid: int | None
    pod: str | None
    exit_code: int | None
    reason: str | None
    cause: str | None
    """`application`, `infrastructure` or `unknown` for an attempt that did not succeed."""
    error: str | None
    runtime_s: float | None
    evidence: tuple[Mapping[str, Any], ...]
    """Reports that came after the verdict, oldest first."""
    diagnosis: Mapping[str, Any] | None = None
    """Of one that did not succeed: `explanation`, `what_to_do`, and what is known of container, node and memory."""
    lessons: Mapping[str, Any] | None = None
    """What earlier attempts taught this one: how far its memory grew, which nodes it avoids."""


@dataclass(frozen=True, kw_only=True)
class XComRow:
    """A result that a task left for others."""

    run_id: str
    dag_id: str
    task_id: str
    map_index: int
    key: str
    value: Any
    attempt: str


@dataclass(frozen=True, kw_only=True)
class ConsumerRow:
    """A worker that was seen to consume a queue."""

    queue: str
    worker: str
    pool: str
    seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class ProcessRow:
    """A long-running part of this installation, by its last heartbeat. `kind`: scheduler, worker or dispatcher."""

    name: str
    kind: str
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class QueueRow:
    """A queue with attempts that have not begun."""

    queue: str
    waiting: int = 0
    oldest_at: datetime | None = None
    """When the oldest of them was recorded."""


@dataclass(frozen=True, kw_only=True)
class WaitRow:
    """What an attempt waits for now, until when, and what happens then."""

    kind: str
    """One of `dispatcher.attempts.wait_rules.KINDS`, as the settings name it."""
    reason: str | None
    detail: str | None
    since: datetime
    deadline_at: datetime | None
    """None for never, and where nobody has said it yet."""
    at_deadline: str | None
    """`wait` (on), `retry` or `fail`; None where nobody has said it yet."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a task instance is where it is: sentences for people, and the rows that they were made from."""

    task: TaskRow
    run: RunRow
    attempts: tuple[AttemptRow, ...]
    upstream: Mapping[str, str]
    """Upstream task id -> its state."""
    consumers: tuple[ConsumerRow, ...]
    """Workers that consume the task's queue."""
    pod: Mapping[str, Any] | None
    """The pod of the latest attempt as `dispatcher.attempts.status_store` keeps it."""
    wait: WaitRow | None
    """What the latest attempt waits for, if it does."""
    lines: tuple[str, ...]
    diagnosis: Mapping[str, Any] | None = None
    """Why the latest attempt waits or failed: reason, cause, explanation, what_to_do; None where all is well."""


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())
