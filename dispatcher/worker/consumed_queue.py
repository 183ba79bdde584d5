"""Which queue a message was consumed from, for its rule is looked up by that. Pure.

Celery gives exchange and routing key, not the queue. On a direct exchange of Celery's own they are one word; on a topic
exchange the queue's binding is a pattern, and RabbitMQ's delayed delivery puts the bits of the delay before the key
(https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html, native delayed delivery).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DELAYED = "celery_delayed_"
"""How the exchanges of delayed delivery begin."""


@dataclass(frozen=True)
class Bound:
    """A queue that is consumed, and how messages come into it."""

    name: str
    exchange: str
    kind: str
    """Of the exchange: direct, topic, fanout."""
    routing_key: str


def bound(queues: Iterable[Any]) -> tuple[Bound, ...]:
    """Of kombu's queues."""
    found = []
    for queue in queues:
        exchange = queue.exchange
        name, kind = (exchange.name, exchange.type) if exchange is not None else ("", "direct")
        found.append(Bound(str(queue.name), str(name or ""), str(kind or "direct"), str(queue.routing_key or "")))
    return tuple(found)


def other_than_key(delivery_info: Mapping[str, Any], queues: Iterable[Bound]) -> str:
    """The queue that a message came from, where its routing key is another word; empty where it is the queue's name.

    Where several queues fit, the first: each of them got a copy, and nothing tells the copies apart.
    """
    key, exchange = str(delivery_info.get("routing_key") or ""), str(delivery_info.get("exchange") or "")
    queues = tuple(queues)
    for queue in queues:
        if exchange == queue.exchange and _fits(key, queue):
            return "" if queue.name == key else queue.name
    if any(queue.name == key for queue in queues):
        return ""
    if exchange.startswith(DELAYED):
        for queue in queues:
            if key.endswith((f".{queue.routing_key}", f".{queue.name}")):
                return queue.name
    return ""


def _fits(key: str, queue: Bound) -> bool:
    if queue.kind == "topic":
        return _pattern(queue.routing_key).fullmatch(key) is not None
    return queue.kind == "fanout" or queue.routing_key == key


def _pattern(binding: str) -> re.Pattern[str]:
    """`*` stands for one word, `#` for any number of them, as AMQP has it."""
    words = "".join(
        r"(?:(?:^|\.)[^.]+)*" if word == "#" else rf"(?:^|\.){'[^.]+' if word == '*' else re.escape(word)}"
        for word in binding.split(".")
    )
    return re.compile(words)
