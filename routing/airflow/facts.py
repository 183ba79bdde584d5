"""Facts of the Airflow in whose environment this runs, for `check`: its configuration, and who answers."""

from collections.abc import Mapping
from typing import Any

from airflow.configuration import conf
from airflow.providers.celery.executors.celery_executor_utils import create_celery_app

from routing.airflow import check, rules, versions

ANSWER_S = 2.0
"""How long workers and dispatchers have to answer."""
CONNECT_S = 3.0


def gather() -> check.AirflowFacts:
    """Everything that the check looks at. Raises SettingsError for rules that cannot be read."""
    app = create_celery_app(conf)
    broker_trouble = _trouble_of_broker(app)
    return check.AirflowFacts(
        versions=versions.installed(),
        executor=conf.get("core", "executor"),
        broker=str(app.conf.broker_url),
        results=str(app.conf.result_backend),
        default_queue=conf.get("operators", "default_queue"),
        queued_timeout_s=conf.getfloat("scheduler", "task_queued_timeout"),
        logging_config=conf.get("logging", "logging_config_class", fallback=""),
        is_remote_logging=conf.getboolean("logging", "remote_logging", fallback=False),
        api_url=conf.get("core", "execution_api_server_url", fallback="") or "",
        rules=rules.load(kubernetes_queue=conf.get("celery_kubernetes_executor", "kubernetes_queue", fallback=None)),
        broker_trouble=broker_trouble,
        results_trouble=_trouble_of_results(app),
        # Asking would only wait for a broker of which is known that it does not answer.
        workers={} if broker_trouble else _workers(app),
    )


def _trouble_of_broker(app: Any) -> str | None:
    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_S)
    except Exception as error:  # each transport has errors of its own; the check says what it was
        return f"{type(error).__name__}: {error}"
    return None


def _trouble_of_results(app: Any) -> str | None:
    if str(app.conf.result_backend).startswith("db+"):
        return None  # said otherwise
    try:
        # A result that does not exist: a read of every backend, and no write into Airflow's.
        app.backend.get_task_meta("podyard-airflow-check")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _workers(app: Any) -> Mapping[str, check.Worker]:
    """Node name -> what it consumes. A dispatcher says of its pool which deployment it is of."""
    asked = app.control.inspect(timeout=ANSWER_S)
    queues, stats = asked.active_queues() or {}, asked.stats() or {}
    pools = {node: (stats.get(node) or {}).get("pool") or {} for node in queues}
    return {
        node: check.Worker(
            queues=tuple(str(queue.get("name")) for queue in consumed or ()),
            is_dispatcher="deployment" in pools[node],
            images=pools[node].get("images") or {},
        )
        for node, consumed in queues.items()
    }
