"""The one place that configures Celery, for workers, dispatchers and the scheduler.

JSON only. Messages are acknowledged when a body is about to run; the claim, not the acknowledgement, keeps a body from
running twice, and the record, not the broker, notices what was lost (docs/adr/0003-celery-half.md).
"""

import socket
from typing import Any, Literal

from celery import Celery, signals

from dispatcher import options
from dispatcher.settings import reading, sections
from dispatcher.worker.celery_patches import ack_batching, atomic_take, broker_loss
from routing import router
from routing.config.settings import Settings

Role = Literal["worker", "dispatcher", "scheduler"]

BACKEND = "routing.results.backend:ReportingBackend"
VISIBILITY_S = 60
"""After so long an unacknowledged message is delivered again: it only waits in a worker, it does not run."""
# How often kombu looks for such messages (ADR 3).
RESTORE_EVERY_S = 10
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 50_000}.items()
    if hasattr(socket, name)
}
"""A broker whose host is gone without a word is noticed within a minute, not when TCP gives up."""


def build(settings: Settings, role: Role) -> Celery:
    """Return the app of one process. Connects to nothing."""
    # No fixups: Celery's one for Django would import an author's settings because of a variable of the environment.
    app = Celery("podyard", set_as_current=role != "scheduler", fixups=())
    app.conf.update(configuration(settings, role))
    if role == "worker":
        _prepare_worker(app, settings)
    elif role == "dispatcher":
        _prepare_dispatcher(app, settings)
    return app


def configuration(settings: Settings, role: Role) -> dict[str, Any]:
    """Celery's settings for one process of this installation."""
    return {
        "broker_url": settings.broker.url,
        "broker_connection_retry_on_startup": True,
        # Celery gives up after 100 tries by default: here a broker may be away for as long as it likes (B3).
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # a server that says no for a while (READONLY, OOM …) comes to its senses
        "broker_transport_options": transport_options(settings.broker.url, role),
        "result_backend": result_backend_url(settings.results.url),
        "result_expires": settings.results.expires_s,
        "result_backend_always_retry": role == "worker",  # a dispatcher has a back-off of its own that blocks nobody
        # Of the result backend. Celery's default is 120 s, for which a server that hangs would block the caller (B12).
        "redis_socket_timeout": 15.0,
        "redis_socket_connect_timeout": 5.0,
        # For `results.backend`, which is made by Celery and sees nothing but the app's configuration.
        "podyard_deployment": settings.deployment,
        "podyard_celery_patches": dict(vars(settings.celery_patches)),
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_default_queue": router.DEFAULT_QUEUE,
        "task_create_missing_queues": True,
        "task_track_started": role == "dispatcher",  # on a worker the claim says it
        # ADR 3: held for as long as its task runs, a message would be delivered again after each visibility time-out.
        "task_acks_late": False,
        # The scheduler would send one for each message; Flower shows a task as soon as a worker has received it.
        "task_send_sent_event": False,
        "worker_send_task_events": True,  # what Flower shows
        # B17: no message waits behind a long task while another worker is idle. Only
        # Redis brokers can do without any prefetch.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": role == "worker" and settings.broker.url.startswith(("redis", "sentinel")),
        # Their messages are acknowledged: they would not come again.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def result_backend_url(url: str) -> str:
    """The result backend as Celery spells it: our class, and a unix socket without the broker's prefix."""
    return f"{BACKEND}+{url.removeprefix('redis+') if url.startswith('redis+socket:') else url}"


def transport_options(url: str, role: Role) -> dict[str, Any]:
    """How a broker is spoken to, where it is a Redis or Valkey server."""
    if not url.startswith(("redis", "sentinel")):
        return {}
    options = {
        "visibility_timeout": VISIBILITY_S,
        "unacked_restore_interval": RESTORE_EVERY_S,
        "unacked_restore_throttle": 1,  # otherwise messages of a killed worker come back after minutes only
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
    }
    if role == "scheduler":
        options["socket_timeout"] = 10  # it only publishes; a worker blocks on its queues
    return options


def _prepare_worker(app: Celery, settings: Settings) -> None:
    from routing.worker import (
        heartbeat,
        run,
        self_report,
    )

    # By steps of the app and not by subclasses of the worker: `podyard worker` starts Celery's own.
    app.steps["worker"].update({heartbeat.Pulse, self_report.step_into(settings.health.folder)})
    app.steps["consumer"].update({broker_loss.SurviveBrokerLoss, ack_batching.FewerTrips, atomic_take.TakeStep})
    # In the child: the kernel's parent-death signal is not inherited by a fork.
    signals.worker_process_init.connect(heartbeat.die_with_worker)

    def claim(attempt_id: str, holder: str) -> bool:
        return bool(app.backend.claim(attempt_id, holder))

    folder = settings.dags.folder.absolute()
    run.register(app, folder=folder, claim=claim, logs=settings.logs, max_bytes=settings.results.max_bytes)


def _prepare_dispatcher(app: Celery, settings: Settings) -> None:
    from dispatcher.manifests import pod_task
    from routing.worker import run

    pod_task.register(app)
    run.register(app, folder=settings.dags.folder.absolute(), max_bytes=settings.results.max_bytes)
    app.conf.podyard = dispatcher_options(settings)


def dispatcher_options(settings: Settings) -> options.Options:
    """The options of a dispatcher of this installation."""

    def profile_for(queue: str) -> options.QueueProfile:
        route = settings.router.route(queue)
        if route.side != "kubernetes":
            # Else it would put into pods what authors meant for workers.
            raise LookupError(
                f"the queue {queue!r} is Celery's (rule {route.rule}): the dispatcher must not consume it"
            )
        return route.profile

    profiles = {rule.name: rule.profile for rule in settings.queues.values() if rule.side == "kubernetes"}
    return reading.options(
        {name: getattr(settings, name) for name in sections.SECTIONS},
        deployment=settings.deployment,
        app_path=settings.kubernetes.app,
        profile_for=profile_for,
        profiles=profiles,
    )
