"""A Celery application whose queue `kubernetes` is consumed by a dispatcher. Configured by environment variables."""

import json
import os
import sys
import time
from pathlib import Path

from celery import Celery

BROKER = os.environ.get("YARD_BROKER")
RESULTS = os.environ.get("YARD_RESULTS") or BROKER

app = Celery("yard", broker=BROKER or "memory://", backend=RESULTS or "disabled://", set_as_current=False)
app.conf.update(
    podyard_deployment=os.environ.get("YARD_DEPLOYMENT"),
    task_default_queue="default",
    accept_content=["json"],
    worker_send_task_events=True,
    task_send_sent_event=True,
    broker_connection_retry_on_startup=True,
    broker_channel_error_retry="CELERY_CUSTOM_WORKER_POOL" not in os.environ,  # a dispatcher needs no such care
    worker_hijack_root_logger=False,
    broker_transport_options={"visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1},
)

if os.environ.get("YARD_PATIENT"):
    app.conf.update(result_backend_always_retry=True, redis_socket_timeout=120)

if BROKER:
    from dispatcher import options
    from dispatcher.manifests import pod_task
    from dispatcher.policy import Policy

    PROFILE = options.QueueProfile(
        max_pods=int(os.environ.get("YARD_MAX_PODS", "100")),
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "YARD_TRACE": os.environ.get("YARD_TRACE", "")},
        waits=json.loads(os.environ.get("YARD_WAITS", "{}")),
    )
    app.conf.podyard = options.Options(
        profile_for=lambda _: PROFILE,
        app_path="tests.apps.yard:app",
        deployment=os.environ["YARD_DEPLOYMENT"],
        kubeconfig=Path(os.environ["YARD_KUBECONFIG"]),
        max_pods=int(os.environ["YARD_OVERALL"]) if os.environ.get("YARD_OVERALL") else None,
        max_pods_by_namespace=(
            {"default": int(os.environ["YARD_IN_DEFAULT"])} if os.environ.get("YARD_IN_DEFAULT") else {}
        ),
        create_rate=float(os.environ.get("YARD_CREATE_RATE", "0")),
        create_burst=int(os.environ.get("YARD_CREATE_BURST", "100")),
        database_url=os.environ.get("YARD_DATABASE") or None,
        log_folder=Path(os.environ["YARD_LOGS"]) if os.environ["YARD_LOGS"] else None,
        policy=Policy(namespaces=tuple(filter(None, os.environ.get("YARD_NAMESPACES", "").split(",")))),
    )
    pod_task.register(app)


def _trace(task_id: str) -> None:
    """Says, by a path of its own, that a body ran."""
    if os.environ.get("YARD_TRACE"):
        with Path(os.environ["YARD_TRACE"]).open("a") as trace:
            trace.write(f"{task_id} {os.getpid()}\n")


@app.task(bind=True)
def add(self, x, y):
    """Adds, and leaves a trace."""
    _trace(self.request.id)
    return x + y


@app.task(bind=True, retry_on_worker_lost=True, default_retry_delay=0)
def add_whatever_happens(self, x, y):
    """The same; a pod that is lost is no answer."""
    _trace(self.request.id)
    return x + y


@app.task(bind=True)
def about(self):
    """What the task knows of its request."""
    request = self.request
    return {
        "id": request.id,
        "retries": request.retries,
        "queue": request.delivery_info["routing_key"],
        "root_id": request.root_id,
        "environment": sorted(name for name in os.environ if "BROKER" in name),
    }


@app.task
def fail(text):
    """Raises."""
    raise ValueError(text, {"day": 5})


@app.task(bind=True, max_retries=3)
def flaky(self):
    """Succeeds at the third try."""
    if self.request.retries < 2:
        raise self.retry(countdown=0, exc=OSError("not yet"))
    return self.request.retries


@app.task(autoretry_for=(OSError,), retry_backoff=False, default_retry_delay=0, max_retries=1, bind=True)
def stubborn(self):
    """Fails at every try."""
    raise OSError(f"try {self.request.retries}")


@app.task
def large(size):
    """A result of many bytes."""
    return "x" * size


@app.task
def strange():
    """A result that JSON cannot hold."""
    return {"when": object()}


@app.task
def leave(code):
    """Ends the interpreter at once."""
    os._exit(code)


@app.task
def leave_politely(code):
    """Ends the interpreter by SystemExit."""
    sys.exit(code)


@app.task(bind=True)
def nap(self, seconds):
    """Takes its time."""
    _trace(self.request.id)
    print("napping", flush=True)
    time.sleep(seconds)
    return "slept"


@app.task
def chatter(lines):
    """Writes a lot."""
    for number in range(lines):
        print(number, "y" * 90)
    return lines


@app.task
def total(values):
    """The end of a chord."""
    return sum(values)
