"""PodyardTaskLog: the logs of finished pods for Airflow's API server, in the place of a remote log store.

It reads what dispatchers have saved, and stores nothing itself: whoever keeps logs in S3 or elsewhere goes on with
that. `routing.airflow.log_config` makes it known to Airflow.
"""

import functools
from typing import Any

from airflow.configuration import conf
from airflow.providers.celery.executors.celery_executor_utils import create_celery_app

from routing.airflow import rules, tasklog


class PodyardTaskLog:
    """Airflow's `RemoteLogIO`, for tasks of pod queues; of all others it knows nothing."""

    processors: tuple[Any, ...] = ()
    """Nothing is done while a log is written."""

    def upload(self, path: Any, ti: Any = None) -> None:
        """Nothing: the dispatcher saves the logs of its pods."""

    def read(self, relative_path: str, ti: Any) -> tuple[list[str], list[str]]:
        """Where the log of a try comes from, and its lines; empty for a task of a Celery worker."""
        if str(ti.state) == "running" or not _logs().has(ti):
            return [], []  # while it runs the executor is asked
        return _logs().read(ti)


@functools.cache
# One app per process: each has pools of connections of its own.
def _logs() -> tasklog.TaskLogs:
    """Made when first asked for: what imports a logging configuration does not need a Celery app."""
    queue = conf.get("celery_kubernetes_executor", "kubernetes_queue", fallback=None)
    return tasklog.TaskLogs(create_celery_app(conf), rules.load(kubernetes_queue=queue))
