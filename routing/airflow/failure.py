"""Failures: why a task of the Celery side or of a dispatcher ended without success, as the result backend has it.

The Celery provider's bulk reader knows states only. The executor and the log reader ask here for the text of one task.
"""

from dataclasses import dataclass
from typing import Any

EXPIRED = "WorkloadExpired"
"""The reason that a dispatcher stores where no pod was launched, or one came too late, for a token that had expired."""

_IN_AIRFLOW = (
    (": `podyard tasks logs`", ""),  # who reads this looks at the log
    ("; `podyard dags render` shows the result without running it", ""),
    ("; `podyard dags render --validate` asks without creating", ""),
    (
        (
            "a DAG tries again by itself, up to scheduler.infra_retries times; a Celery task may ask for that by"
            " retry_on_worker_lost"
        ),
        "Airflow tries again as often as the task's `retries` say",
    ),
    ("`podyard queues list`", "`podyard airflow check`"),
    ("`podyard config check`", "`podyard config check`, where the dispatcher runs,"),
)
"""What remedies say to users of Podyard's own DAGs -> what it is for those of Airflow, where that has no record."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a task failed."""

    text: str
    """One line for people."""
    is_expired: bool = False
    """Nothing of the task ran, because its token expired in the queue: it may be queued again."""
    remedy: str = ""
    """What to do about it, where that is known."""


def read(backend: Any, task_id: str) -> Failure | None:
    """What a result backend of Celery says about a task that failed; None where it says nothing.

    Raises what the backend raises when it cannot be reached.
    """
    meta = backend.get_task_meta(task_id)
    error = meta.get("result")
    return of(error) if isinstance(error, BaseException) else None


def of(error: BaseException) -> Failure:
    """A stored exception in words. It may be of a class that this process does not have. Pure."""
    args = error.args
    text = args[0] if args and isinstance(args[0], str) else str(error)
    details = args[1] if len(args) > 1 and isinstance(args[1], dict) else {}
    is_expired = details.get("reason") == EXPIRED or (type(error).__name__, text) == ("TaskRevokedError", "expired")
    line = " ".join(text.split())
    return Failure(
        text=line if details else f"{type(error).__name__}: {line}" if line else type(error).__name__,
        is_expired=is_expired,
        remedy=in_airflow(str(details.get("what_to_do") or "")),
    )


def in_airflow(text: str) -> str:
    """A remedy, or a line of a log that holds one, with Airflow's own ways in the place of Podyard's. Pure."""
    for said, here in _IN_AIRFLOW:
        text = text.replace(said, here)
    return text.removesuffix(",")
