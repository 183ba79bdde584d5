"""A small shop: an ordinary Celery application, two of whose tasks run in pods. See README.md beside this file."""

import os
import random

from celery import Celery

BROKER = os.environ.get("SHOP_BROKER", "redis://127.0.0.1:6379/0")

app = Celery("shop", broker=BROKER, backend=os.environ.get("SHOP_RESULTS", BROKER))
app.conf.update(
    task_default_queue="shop",
    task_routes={"shop.render_invoice": {"queue": "kubernetes"}, "shop.train_prices": {"queue": "kubernetes"}},
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
)


class CardDeclined(Exception):
    """The bank says no."""


@app.task(name="shop.price")
def price(item, count):
    """Runs in a worker: quick, and there are many of them."""
    return {"coffee": 4, "cup": 12}[item] * count


@app.task(name="shop.charge", bind=True, autoretry_for=(ConnectionError,), retry_backoff=True, max_retries=3)
def charge(self, card, amount):
    """Runs in a worker, and again when the bank cannot be reached."""
    if card == "expired":
        raise CardDeclined(card, amount)
    return {"amount": amount, "try": self.request.retries}


@app.task(name="shop.total")
def total(prices):
    """Runs in a worker: the end of a chord."""
    return sum(prices)


@app.task(name="shop.render_invoice")
def render_invoice(amount, customer="somebody"):
    """Runs in a pod (`task_routes` says so): in a real shop it needs fonts and a browser that workers do not have."""
    return f"Invoice for {customer}: {amount}.00 €"


@app.task(
    name="shop.train_prices",
    pod_override={"spec": {"containers": [{"name": "base", "resources": {"requests": {"memory": "256Mi"}}}]}},
)
def train_prices(rounds):
    """Runs in a pod of its own size: `pod_override` is laid over the pod template."""
    generator = random.Random(rounds)
    return round(sum(generator.random() for _ in range(rounds)) / rounds, 3)
