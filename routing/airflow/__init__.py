"""The executor for Airflow 3 that routes by queue: some queues to Celery workers, some to pods of a dispatcher.

`[core] executor = routing.airflow.PodyardExecutor`. It runs in Airflow's own environment (scheduler and API server),
beside the Celery provider, on what Airflow brings along; the dispatcher (`podyard dispatcher --airflow`) runs in an
environment of its own and never imports Airflow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routing.airflow.executor import PodyardExecutor

__all__ = ["PodyardExecutor"]


def __getattr__(name: str) -> Any:
    if name != "PodyardExecutor":
        raise AttributeError(f"module 'routing.airflow' has no attribute {name!r}; it has {', '.join(__all__)}")
    from routing.airflow import versions

    trouble = versions.trouble(versions.installed())
    if trouble:
        raise ImportError(trouble)
    from routing.airflow import executor

    return executor.PodyardExecutor
