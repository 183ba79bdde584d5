"""A logging configuration for Airflow's API server that knows the logs of dispatchers.

`[logging] logging_config_class = routing.airflow.log_config.LOGGING_CONFIG`. All of Airflow's own, and beside it the
object by which Airflow reads logs of finished tasks.
"""

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG as LOGGING_CONFIG

from routing.airflow import remote

REMOTE_TASK_LOG = remote.PodyardTaskLog()
DEFAULT_REMOTE_CONN_ID = None

__all__ = ["DEFAULT_REMOTE_CONN_ID", "LOGGING_CONFIG", "REMOTE_TASK_LOG"]
