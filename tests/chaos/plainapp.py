"""A Celery application of somebody's own, beside the DAGs: its tasks run in workers and in pods, in chains and chords.

Each body appends its start and its end to the trace, as those of the DAGs do. It is patient, as Celery lets it be: its
workers publish and store again for as long as it takes.
"""

import os
import time

from celery import Celery

TRACE = os.environ.get("PLAIN_TRACE", "")

app = Celery(
    "plain",
    broker=os.environ.get("PLAIN_BROKER", "memory://"),
    backend=os.environ.get("PLAIN_RESULTS", "disabled://"),
    set_as_current=False,
)
app.conf.update(
    task_default_queue="plain",
    accept_content=["json"],
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_prefetch_multiplier=1,
    task_publish_retry_policy={"max_retries": None, "interval_max": 1},
    result_backend_always_retry=True,
    broker_transport_options={"visibility_timeout": 15, "unacked_restore_interval": 1, "unacked_restore_throttle": 1},
)
if os.environ.get("PLAIN_BROKER"):
    from dispatcher.worker.celery_patches import broker_loss

    app.steps["consumer"].add(
        broker_loss.SurviveBrokerLoss
    )  # else Celery's own worker may end when its broker is killed


def note(word: str, task_id: str) -> None:
    """Append one line: start or end, the task's id, the process, the time."""
    file = os.open(TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{word} {task_id} {os.getpid()} {time.time():.6f}\n".encode())
    finally:
        os.close(file)


@app.task(bind=True)
def step(self, given=0, naps=0.2):
    """Adds one to what it was given."""
    note("start", self.request.id)
    time.sleep(naps)
    note("end", self.request.id)
    return given + 1


@app.task(bind=True)
def total(self, values):
    """The sum of a chord."""
    note("start", self.request.id)
    note("end", self.request.id)
    return sum(values)
