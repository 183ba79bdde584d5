"""The tables of the record, as SQLAlchemy models. Only `routing.store` imports this module.

Times are aware UTC, durations float seconds. JSON columns hold plain JSON values. The table `pod` belongs
to `dispatcher.attempts.status_store` and is migrated together with these.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dispatcher.attempts import status_store
from routing.store import columns

STATE = String(16)


class Base(DeclarativeBase):
    """The parent of all models; its metadata is what Alembic compares with the database."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as is
        str: columns.PlainText,
        datetime: status_store.UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        Any: JSON,
    }


class Dag(Base):
    """A DAG that authors wrote; `version_id` is its newest structure."""

    __tablename__ = "dag"
    dag_id: Mapped[str] = mapped_column(primary_key=True)
    file: Mapped[str]
    description: Mapped[str | None]
    version_id: Mapped[int | None] = mapped_column(ForeignKey("dag_version.id"))
    is_paused: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    loaded_at: Mapped[datetime]


class DagVersion(Base):
    """The structure of a DAG at one time; a run keeps the version that it started with."""

    __tablename__ = "dag_version"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    dag_id: Mapped[str]
    fingerprint: Mapped[str] = mapped_column(String(64))
    structure: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("dag_id", "fingerprint", name="uq_dag_version_fingerprint"),)


class DagError(Base):
    """Why a DAG file cannot be used, as of its last load."""

    __tablename__ = "dag_error"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    file: Mapped[str]
    line: Mapped[int | None]
    message: Mapped[str]
    seen_at: Mapped[datetime]


class DagRun(Base):
    """One run of one DAG."""

    __tablename__ = "dag_run"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str]
    dag_id: Mapped[str]
    version_id: Mapped[int] = mapped_column(ForeignKey("dag_version.id"))
    run_type: Mapped[str] = mapped_column(String(32), default="manual")
    logical_date: Mapped[datetime]
    conf: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(STATE)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    __table_args__ = (
        UniqueConstraint("dag_id", "run_id", name="uq_dag_run_run_id"),
        Index("ix_dag_run_state", "state"),
        Index("ix_dag_run_run_id", "run_id"),
    )


class TaskInstance(Base):
    """One task of one run; it follows its latest attempt."""

    __tablename__ = "task_instance"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run: Mapped[int] = mapped_column(ForeignKey("dag_run.id", ondelete="CASCADE"))
    task_id: Mapped[str]
    # Airflow's value for a task that is not mapped.
    map_index: Mapped[int] = mapped_column(default=-1)
    state: Mapped[str] = mapped_column(STATE)
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempts so far, whoever is charged for them: the number of the latest."""
    infra_failures: Mapped[int] = mapped_column(default=0)
    """Attempts that ended by a fault of the infrastructure: charged to its own budget, not to `retries`."""
    next_try_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    # Else None would become the JSON value `null`, which COALESCE takes for something to write.
    lessons: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What earlier attempts teach the next one, as `dispatcher.manifests.retry_hints` writes it."""
    __table_args__ = (
        UniqueConstraint("run", "task_id", "map_index", name="uq_task_instance_task"),
        Index("ix_task_instance_state", "state", "next_try_at"),
    )


class Attempt(Base):
    """One attempt of one task instance. Its id is the Celery task id."""

    __tablename__ = "attempt"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    task_instance: Mapped[int] = mapped_column(ForeignKey("task_instance.id", ondelete="CASCADE"))
    number: Mapped[int]
    """1 for the first attempt of the task instance, whoever is charged."""
    side: Mapped[str] = mapped_column(STATE)
    queue: Mapped[str]
    rule: Mapped[str]
    """The routing rule that decided the side: the router is the only writer."""
    message: Mapped[dict[str, Any]]
    """Name, kwargs and headers of the Celery message, so that it can be sent again under the same id."""
    state: Mapped[str] = mapped_column(STATE)
    waiting_reason: Mapped[str | None]
    """For people; programs read `wait_kind`."""
    wait_kind: Mapped[str | None] = mapped_column(String(16))
    """What it waits for, of `dispatcher.attempts.wait_rules.KINDS`; None where it does not wait."""
    waiting_since: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    """When the wait is over; None for never, and where the pod's own row says it."""
    at_deadline: Mapped[str | None] = mapped_column(String(8))
    """What happens then: `wait` (on), `retry` or `fail`."""
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    sends: Mapped[int] = mapped_column(default=0)
    """How often the message was sent; the claim makes a second delivery harmless."""
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    host: Mapped[str | None]
    pid: Mapped[int | None]
    pod: Mapped[str | None]
    exit_code: Mapped[int | None]
    reason: Mapped[str | None]
    cause: Mapped[str | None] = mapped_column(STATE)
    error: Mapped[str | None]
    runtime_s: Mapped[float | None]
    diagnosis: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Why it failed and what to do, for people; and what is known of container, node and memory."""
    evidence: Mapped[list[Any]] = mapped_column(default=list)
    """Reports that came after the verdict, oldest first."""
    __table_args__ = (
        # Two schedulers that both think that they act cannot record one try twice.
        UniqueConstraint("task_instance", "number", name="uq_attempt_number"),
        Index("ix_attempt_state", "state", "queue"),
    )


class XCom(Base):
    """A result that a task left for others."""

    __tablename__ = "xcom"
    task_instance: Mapped[int] = mapped_column(ForeignKey("task_instance.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True, default="return_value")
    value: Mapped[Any] = mapped_column(JSON)
    attempt: Mapped[str] = mapped_column(String(36))


class QueueConsumer(Base):
    """A worker that was seen to consume a queue, by Celery's own inspection."""

    __tablename__ = "queue_consumer"
    queue: Mapped[str] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(primary_key=True)
    pool: Mapped[str]
    seen_at: Mapped[datetime]


class Process(Base):
    """A long-running part of this installation, by its last heartbeat."""

    __tablename__ = "process"
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class Lease(Base):
    """Who may act in a role that only one process may have; every write of the holder renews it."""

    __tablename__ = "lease"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str]
    renewed_at: Mapped[datetime]
    expires_at: Mapped[datetime]
