"""Health checks of what a Celery application needs: its broker and its result backend. For `process_health`.

Each question opens a connection of its own, with short time-outs, so that it shares no lock and no socket with the
application's work.
"""

from typing import Any

TIMEOUT_S = 3.0
NOBODY = "podyard-sign-of-life"
"""The id of a task that nobody sends."""


def of_broker(app: Any) -> None:
    """Returns if the broker lets us in; raises what kombu raises."""
    url = app.conf.broker_url or ""
    is_redis = str(url).startswith(("redis", "sentinel"))
    options = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S} if is_redis else {}
    connection = app.connection_for_write(connect_timeout=TIMEOUT_S, transport_options=options)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
        if is_redis:
            connection.default_channel.client.ping()
    finally:
        connection.release()


def of_results(app: Any) -> None:
    """Returns if the result backend answers, or the app has none; raises what the backend raises."""
    backend = app.backend  # Celery makes one for each thread
    parameters = getattr(backend, "connparams", None)
    if parameters is None or not hasattr(backend, "_create_client"):
        try:
            backend.get_task_meta(NOBODY)
        except NotImplementedError:
            return  # it has none
        return
    short = {name: TIMEOUT_S for name in ("socket_timeout", "socket_connect_timeout") if name in parameters}
    client = backend._create_client(**{**parameters, **short})  # Celery has no public way to a client of one's own
    try:
        client.ping()
    finally:
        client.connection_pool.disconnect()
