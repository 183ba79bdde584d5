"""Which queue a message was consumed from, for its rule is looked up by that. On the hub's thread.

A message says exchange and routing key, not its queue. On a direct exchange of Celery's own they are one word; a topic
exchange, one that goes by headers, a queue with several bindings and RabbitMQ's delayed delivery have others. But each
queue is consumed by a call of its own, and whom that call was made for is known.
"""

from functools import partial
from typing import Any

_KEY = "podyard_queue"
"""In the delivery information of a message as this process has received it; it goes nowhere else."""


def note(task_consumer: Any) -> None:
    """Has each message that a consumer of kombu receives from now on name its queue. Before it begins to consume."""
    consume = task_consumer._basic_consume

    def consume_noting(queue: Any, *args: Any, **options: Any) -> Any:
        # For the time of this call alone: kombu binds the attribute into the callback of just this queue.
        task_consumer._receive_callback = partial(_received, task_consumer, str(queue.name))
        try:
            return consume(queue, *args, **options)
        finally:
            del task_consumer._receive_callback

    task_consumer._basic_consume = consume_noting


def of(message: Any) -> str:
    """The queue of a received message; empty where it is the routing key, or nobody noted it."""
    info = getattr(message, "delivery_info", None) or {}
    queue = str(info.get(_KEY) or "")
    return "" if queue == info.get("routing_key") else queue


def _received(task_consumer: Any, queue: str, message: Any) -> Any:
    """What kombu calls for a message of a queue.

    The delivery information is copied: a broker in memory writes it back with a message that is requeued.
    """
    message.delivery_info = {**(message.delivery_info or {}), _KEY: queue}
    return type(task_consumer)._receive_callback(task_consumer, message)
