"""The record as people ask for it: DAGs, runs, tasks, attempts, and why a task is where it is.

The command line, the web pages and whoever starts a run call this. What the scheduler writes in bulk is in `ledger`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from routing.store import rows


class RecordError(Exception):
    """The record cannot do what was asked; the message says why and what to do."""


class Store:
    """One database: `Store.open(url)`; `upgrade()` makes or migrates its tables."""

    @classmethod
    def open(cls, url: str) -> "Store":
        """Return a store on `url` (`sqlite:///path` or `postgresql+psycopg://…`); connects when first needed."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all connections."""
        raise NotImplementedError

    def upgrade(self) -> None:
        """Bring the tables to the revision of this code; safe to call by several processes at once.

        Raises RecordError for a database of a newer version than this code.
        """
        raise NotImplementedError

    def check(self) -> rows.SchemaCheck:
        """Say whether the database fits this code."""
        raise NotImplementedError

    def require_schema(self) -> None:
        """Raise RecordError with the way out unless the database fits this code."""
        raise NotImplementedError

    def save_dags(self, loaded: Any, *, at: datetime) -> None:
        """Store what `routing.authoring.loading` found: DAGs, their versions, and errors."""
        raise NotImplementedError

    def dags(self) -> list[rows.DagRow]:
        """All DAGs by name, the ones that have gone included (`is_active` is False)."""
        raise NotImplementedError

    def dag(self, dag_id: str) -> rows.DagRow | None:
        raise NotImplementedError

    def dag_errors(self) -> list[rows.DagErrorRow]:
        raise NotImplementedError

    def pause(self, dag_id: str, paused: bool) -> bool:  # noqa: FBT001
        """Pause or go on; returns whether there is such a DAG."""
        raise NotImplementedError

    def create_run(
        self, dag_id: str, *, run_id: str | None = None, conf: Mapping[str, Any] | None = None, at: datetime
    ) -> rows.RunRow:
        """Queue a run of the newest version. Raises RecordError: unknown DAG, or a run of that id exists."""
        raise NotImplementedError

    def cancel_run(self, run_id: str, *, dag_id: str | None = None, at: datetime) -> bool:
        """End a run and its tasks as cancelled; the scheduler then stops what runs. Returns whether it happened."""
        raise NotImplementedError

    def runs(self, dag_id: str | None = None, limit: int = 100) -> list[rows.RunRow]:
        """The newest runs first."""
        raise NotImplementedError

    def run(self, run_id: str, *, dag_id: str | None = None) -> rows.RunRow | None:
        """One run, with `task_states`. Raises RecordError where several DAGs have a run of that id."""
        raise NotImplementedError

    def tasks(self, run_id: str, *, dag_id: str | None = None) -> list[rows.TaskRow]:
        raise NotImplementedError

    def attempts(self, run_id: str, task_id: str | None = None, *, dag_id: str | None = None) -> list[rows.AttemptRow]:
        raise NotImplementedError

    def attempt(self, attempt_id: str) -> rows.AttemptRow | None:
        raise NotImplementedError

    def xcoms(self, run_id: str, *, dag_id: str | None = None) -> list[rows.XComRow]:
        raise NotImplementedError

    def consumers(self) -> list[rows.ConsumerRow]:
        raise NotImplementedError

    def processes(self) -> list[rows.ProcessRow]:
        raise NotImplementedError

    def explain(self, run_id: str, task_id: str, *, dag_id: str | None = None, at: datetime) -> rows.Explanation:
        """Why a task is where it is. Raises RecordError for an unknown run or task."""
        raise NotImplementedError
