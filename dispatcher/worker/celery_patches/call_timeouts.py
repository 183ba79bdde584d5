"""Call time-outs: how long Celery may block the thread that serves everything, where a dispatcher runs an app.

Storing and publishing happen on Celery's hub. An app may be set to try them for ever, or to wait two minutes for a
socket, which suits a worker's child process and stops a dispatcher. Here each call has a short bound and no second
try: what fails is kept and comes again (`result_outbox`). The settings are those of this process alone.

A broker that is away, on the other hand, is waited for as long as it takes: a dispatcher holds pods. That includes one
that answers and refuses (it switches over, loads, is full), which kombu calls an error of a channel.
"""

from typing import Any

SOCKET_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
PUBLISH_POLICY = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0, "interval_max": 0.1}


def shorten(app: Any) -> None:
    """Bounds what an app may wait for. Call it before its result backend is used."""
    conf = app.conf
    # A refusal is one of a channel: by default it ends a worker of Celery's (B19).
    conf.broker_channel_error_retry = True
    # Celery gives up after 100 tries by default, and ends.
    conf.broker_connection_max_retries = None
    # Celery's own tries sleep in between, on the hub's thread; ours come from the outbox.
    conf.result_backend_always_retry = False
    options = dict(conf.result_backend_transport_options or {})
    conf.result_backend_transport_options = {**options, "retry_policy": {"max_retries": 0}}
    # An application that wants less gets less.
    conf.redis_socket_timeout = min(conf.redis_socket_timeout or SOCKET_TIMEOUT_S, SOCKET_TIMEOUT_S)
    conf.redis_socket_connect_timeout = min(conf.redis_socket_connect_timeout or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
    conf.task_publish_retry_policy = PUBLISH_POLICY
    # Celery publishes the next of a chain by another way, where the connection has a policy of its own.
    conf.broker_transport_options = {**(conf.broker_transport_options or {}), **PUBLISH_POLICY}
    # One that was made already has the old time-outs: Celery makes another where none stands.
    backend = getattr(app._local, "backend", None)
    if backend is not None:
        del app._local.backend
    app._backend_cache = None
