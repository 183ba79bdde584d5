"""Which queue a message came from, by what its delivery says."""

import pytest
from kombu import Exchange, Queue

from dispatcher.worker import consumed_queue

JOBS = Exchange("jobs", "topic")
QUEUES = consumed_queue.bound(
    [
        Queue("kubernetes", Exchange("kubernetes", "direct"), routing_key="kubernetes"),
        Queue("gpu", JOBS, routing_key="jobs.gpu.#"),
        Queue("big", JOBS, routing_key="jobs.*.big"),
        Queue("named", Exchange("shop", "direct"), routing_key="shop-pods"),
        Queue("all", Exchange("news", "fanout")),
    ]
)


@pytest.mark.parametrize(
    ("exchange", "key", "expected"),
    [
        ("kubernetes", "kubernetes", ""),
        ("", "kubernetes", ""),  # Celery's default exchange: the key is the queue
        ("jobs", "jobs.gpu", "gpu"),
        ("jobs", "jobs.gpu.a100.large", "gpu"),
        ("jobs", "jobs.cpu.big", "big"),
        ("jobs", "jobs.cpu.much.big", ""),  # no queue of ours: nothing is guessed
        ("shop", "shop-pods", "named"),
        ("news", "whatever", "all"),
        ("celery_delayed_delivery", "0.0.0.1.0.kubernetes", "kubernetes"),
        ("celery_delayed_27", "0.1.shop-pods", "named"),
    ],
)
def test_the_queue_is_the_one_that_was_consumed(exchange: str, key: str, expected: str) -> None:
    """Not what its routing key happens to be."""
    info = {"exchange": exchange, "routing_key": key}
    assert consumed_queue.other_than_key(info, QUEUES) == expected


@pytest.mark.parametrize(
    ("binding", "key", "fits"),
    [("#", "a.b", True), ("#", "", True), ("a.#", "a", True), ("a.*", "a", False), ("*.b", "a.b", True)],
)
def test_bindings_are_read_as_AMQP_has_them(binding: str, key: str, fits: bool) -> None:
    """`*` is one word, `#` any number."""
    (queue,) = consumed_queue.bound([Queue("q", JOBS, routing_key=binding)])
    assert bool(consumed_queue.other_than_key({"exchange": "jobs", "routing_key": key}, [queue])) == fits
