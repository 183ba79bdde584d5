"""Which queue a message came from: kombu's own consumer, on a broker in memory."""

from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue, binding

from dispatcher.worker import consumed_queue

JOBS = Exchange("consumed-jobs", "topic")
SHOP = Exchange("consumed-shop", "direct")
QUEUES = {
    "plain": Queue("plain", Exchange("plain", "direct"), routing_key="plain"),
    "gpu": Queue("gpu", JOBS, routing_key="jobs.gpu.#"),
    "big": Queue("big", JOBS, routing_key="jobs.*.big"),
    "named": Queue("named", SHOP, routing_key="shop-pods"),
    "several": Queue("several", [binding(SHOP, routing_key="mail"), binding(JOBS, routing_key="mails.#")]),
    "all": Queue("all", Exchange("consumed-news", "fanout")),
}


class World:
    """A consumer of all queues, as Celery's, and what it has received."""

    def __init__(self) -> None:
        self.connection = Connection("memory://")
        self.received: list[Any] = []
        self.consumer = self.connection.Consumer([], on_message=self.received.append)
        consumed_queue.note(self.consumer)

    def consume(self, *names: str) -> None:
        """Also later, as by `add_consumer` of Celery's remote control."""
        for name in names:
            self.consumer.add_queue(QUEUES[name])
        self.consumer.consume()

    def send(self, exchange: str, key: str) -> list[str]:
        """The queues, as the messages name them, to which a message went."""
        self.received.clear()
        self.connection.Producer().publish({}, exchange=exchange, routing_key=key)
        for _ in range(3):
            try:
                self.connection.drain_events(timeout=0.05)
            except TimeoutError:
                break
        return sorted(consumed_queue.of(message) for message in self.received)


@pytest.fixture
def world() -> Iterator[World]:
    """One of its own."""
    made = World()
    yield made
    for queue in QUEUES.values():
        queue(made.connection.default_channel).purge()
    made.connection.release()


@pytest.mark.parametrize(
    ("exchange", "key", "expected"),
    [
        ("plain", "plain", [""]),  # the key is the queue
        ("consumed-jobs", "jobs.gpu.a100.large", ["gpu"]),
        ("consumed-jobs", "jobs.cpu.big", ["big"]),
        ("consumed-jobs", "jobs.gpu.big", ["big", "gpu"]),  # a copy for each
        ("consumed-shop", "shop-pods", ["named"]),
        ("consumed-shop", "mail", ["several"]),
        ("consumed-jobs", "mails.of.march", ["several"]),
        ("consumed-news", "whatever", ["all"]),
    ],
)
def test_the_queue_is_the_one_that_was_consumed(world: World, exchange: str, key: str, expected: list[str]) -> None:
    """Not what its routing key happens to be."""
    world.consume(*QUEUES)
    assert world.send(exchange, key) == expected


def test_a_queue_that_is_consumed_later_is_known_too(world: World) -> None:
    """By `add_consumer`; those from before stay."""
    world.consume("plain")
    world.consume("gpu", "several")
    assert world.send("consumed-jobs", "jobs.gpu.a100") == ["gpu"]
    assert world.send("consumed-shop", "mail") == ["several"]
    assert world.send("plain", "plain") == [""]


def test_a_message_that_is_requeued_names_its_queue_again_and_nothing_else_of_it_has_changed(world: World) -> None:
    """What was noted stays in this process: another worker may be its next consumer."""
    world.consume("several")
    assert world.send("consumed-shop", "mail") == ["several"]
    world.consumer.cancel()
    world.received[0].requeue()
    again = QUEUES["several"](world.connection.default_channel).get()
    assert sorted(again.delivery_info) == ["exchange", "routing_key"]


def test_a_message_that_nobody_noted_is_that_of_its_routing_key() -> None:
    """As one of a pod that was adopted, which carries its queue itself."""
    assert consumed_queue.of(None) == ""
