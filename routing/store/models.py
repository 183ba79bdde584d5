"""The tables of the record, as SQLAlchemy models. Only `routing.store` imports this module.

Times are aware UTC (`UtcDateTime`), durations float seconds. JSON columns hold plain JSON values. The tables `pod` and
`watch_checkpoint` belong to `dispatcher.podstore` and are migrated together with these.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite keeps none of the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The parent of all models; its metadata is what Alembic compares with the database."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON, Any: JSON}  # noqa: RUF012 - SQLAlchemy reads it as is


class Dag(Base):
    """A DAG that authors wrote; `version_id` is its newest structure."""

    __tablename__ = "dag"
    dag_id: Mapped[str] = mapped_column(String(512), primary_key=True)
    file: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    version_id: Mapped[int | None] = mapped_column(ForeignKey("dag_version.id", use_alter=True))
    is_paused: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    loaded_at: Mapped[datetime]


class DagVersion(Base):
    """The structure of a DAG at one time; a run keeps the version that it started with."""

    __tablename__ = "dag_version"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    dag_id: Mapped[str] = mapped_column(String(512), index=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    structure: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("dag_id", "fingerprint"),)


class DagError(Base):
    """Why a DAG file cannot be used, as of its last load."""

    __tablename__ = "dag_error"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    file: Mapped[str] = mapped_column(Text)
    line: Mapped[int | None]
    message: Mapped[str] = mapped_column(Text)
    seen_at: Mapped[datetime]


class DagRun(Base):
    """One run of one DAG."""

    __tablename__ = "dag_run"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(String(512))
    dag_id: Mapped[str] = mapped_column(String(512))
    version_id: Mapped[int] = mapped_column(ForeignKey("dag_version.id"))
    run_type: Mapped[str] = mapped_column(String(32), default="manual")
    logical_date: Mapped[datetime]
    conf: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)
    __table_args__ = (UniqueConstraint("dag_id", "run_id"), Index("ix_dag_run_state", "state"))


class TaskInstance(Base):
    """One task of one run; it follows its latest attempt."""

    __tablename__ = "task_instance"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run: Mapped[int] = mapped_column(ForeignKey("dag_run.id", ondelete="CASCADE"))
    task_id: Mapped[str] = mapped_column(String(512))
    map_index: Mapped[int] = mapped_column(default=-1)
    state: Mapped[str] = mapped_column(String(16))
    try_number: Mapped[int] = mapped_column(default=0)
    """Attempts so far that are charged to `retries`, the current one included."""
    infra_failures: Mapped[int] = mapped_column(default=0)
    """Attempts that ended by a fault of the infrastructure: charged to its own budget."""
    next_try_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)
    __table_args__ = (UniqueConstraint("run", "task_id", "map_index"), Index("ix_task_instance_state", "state"))


class Attempt(Base):
    """One attempt of one task instance. Its id is the Celery task id."""

    __tablename__ = "attempt"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    task_instance: Mapped[int] = mapped_column(ForeignKey("task_instance.id", ondelete="CASCADE"), index=True)
    number: Mapped[int]
    """1 for the first attempt of the task instance, whoever is charged."""
    side: Mapped[str] = mapped_column(String(16))
    queue: Mapped[str] = mapped_column(String(256))
    rule: Mapped[str] = mapped_column(String(256))
    """The routing rule that decided the side: the router is the only writer."""
    message: Mapped[dict[str, Any]]
    """Name, kwargs and headers of the Celery message, so that it can be sent again under the same id."""
    state: Mapped[str] = mapped_column(String(16))
    waiting_reason: Mapped[str | None] = mapped_column(Text)
    waiting_since: Mapped[datetime | None]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    host: Mapped[str | None] = mapped_column(String(256))
    pod: Mapped[str | None] = mapped_column(String(253))
    exit_code: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(String(256))
    cause: Mapped[str | None] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)
    runtime_s: Mapped[float | None]
    evidence: Mapped[list[Any]] = mapped_column(default=list)
    """Reports that came after the verdict, oldest first."""
    __table_args__ = (UniqueConstraint("task_instance", "number"), Index("ix_attempt_state", "state"))


class XCom(Base):
    """A result that a task left for others."""

    __tablename__ = "xcom"
    task_instance: Mapped[int] = mapped_column(ForeignKey("task_instance.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(256), primary_key=True, default="return_value")
    value: Mapped[Any] = mapped_column(JSON)
    attempt: Mapped[str] = mapped_column(String(36))


class QueueConsumer(Base):
    """A worker that was seen to consume a queue, by Celery's own inspection."""

    __tablename__ = "queue_consumer"
    queue: Mapped[str] = mapped_column(String(256), primary_key=True)
    worker: Mapped[str] = mapped_column(String(256), primary_key=True)
    pool: Mapped[str] = mapped_column(String(128))
    seen_at: Mapped[datetime]


class Process(Base):
    """A long-running part of this installation, by its last sign of life."""

    __tablename__ = "process"
    name: Mapped[str] = mapped_column(String(256), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(256))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
