"""A Celery application without a result backend, which is Celery's default: nothing but its ledger says what ran.

`alone` is one body, `pages` replaces itself until no page is left. Each body notes its begin and its end, and a page
the next one once that was sent. Its worker acknowledges late, and its pods carry the address of its broker.
"""

import os
import time

from celery import Celery
from celery.exceptions import Ignore

LEDGER = os.environ.get("BARE_LEDGER", "")

app = Celery("bare", broker=os.environ.get("BARE_BROKER", "memory://"), set_as_current=False)
app.conf.update(
    task_default_queue="bare",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_prefetch_multiplier=1,
    task_publish_retry_policy={"max_retries": None, "interval_max": 1},
    broker_transport_options={"visibility_timeout": 15, "unacked_restore_interval": 1, "unacked_restore_throttle": 1},
)
if os.environ.get("BARE_WORKER"):
    from dispatcher.worker.celery_patches import atomic_take, broker_loss

    app.steps["consumer"].update({broker_loss.SurviveBrokerLoss, atomic_take.TakeStep})


def note(word: str, key: str) -> None:
    """Append one line."""
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{word} {key}\n".encode())
    finally:
        os.close(file)


@app.task(acks_late=True, reject_on_worker_lost=True)
def alone(key):
    """One body."""
    note("start", key)
    time.sleep(0.2)
    note("end", key)


@app.task(bind=True)
def pages(self, key, left):
    """One of several pages, each a launch of its own under one id."""
    note("start", f"{key}.{left}")
    if left > 1:
        try:
            self.replace(self.app.signature(self.name, args=[key, left - 1], queue="kubernetes", app=self.app))
        except Ignore:
            note("sent", f"{key}.{left - 1}")
            note("end", f"{key}.{left}")
            raise
    note("end", f"{key}.{left}")
