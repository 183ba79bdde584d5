"""What taking a message and noting it in one step costs: messages per second and CPU, by turns with kombu's own way.

One process consumes and acknowledges no-op tasks of Celery with the acknowledgements of a turn in one transaction, as a
dispatcher does; only the way in which a message is taken differs. Then how long a single message waits until it reaches
an idle consumer.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import kombu
from celery import Celery
from kombu.asynchronous import Hub, set_event_loop

from dispatcher.worker.celery_patches import ack_batching, atomic_take, take_leases
from tests import parts

MESSAGES = int(os.environ.get("BENCH_MESSAGES", "2000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
SINGLES = 200


class Consuming:
    """A consumer on a hub that acknowledges what it gets."""

    def __init__(self, url: str, *, is_atomic: bool) -> None:
        self.connection = kombu.Connection(url)
        channel = self.connection.channel()
        self.hub = Hub()
        set_event_loop(self.hub)
        self.connection.transport.register_with_event_loop(self.connection.connection, self.hub)
        ack_batching.keep_client(channel)
        errors = (*self.connection.connection_errors, *self.connection.channel_errors)
        ack_batching.Acknowledgements(channel, hub=self.hub, errors=errors)
        self.lease = take_leases.TakeLease(self.connection) if is_atomic else None
        while self.lease is not None and not self.lease.taker:
            time.sleep(0.01)
        self.taking = atomic_take.Taking(channel, hub=self.hub, lease=self.lease) if is_atomic else None
        self.count, self.got_at = 0, 0.0
        self.consumer = kombu.Consumer(channel, queues=[kombu.Queue("celery")], callbacks=[self.on_message])
        self.consumer.consume()

    def on_message(self, _: Any, message: Any) -> None:
        message.ack()
        self.count += 1
        self.got_at = time.perf_counter()

    def until(self, count: int) -> None:
        while self.count < count:
            self.hub.run_once()

    def close(self) -> None:
        self.consumer.cancel()
        if self.taking is not None:
            self.taking.close()
        if self.lease is not None:
            self.lease.close()
        self.hub.close()
        self.connection.release()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        valkey = parts.Valkey.start(Path(name) / "valkey")
        try:
            farm(valkey)
            singles(valkey)
        finally:
            valkey.stop()


def farm(valkey: parts.Valkey) -> None:
    """Many messages that wait already."""
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for number in range(ROUNDS):
        for is_atomic in (number % 2 == 0, number % 2 == 1):
            url = valkey.fresh().url
            app = Celery(broker=url, set_as_current=False)
            with app.producer_or_acquire() as producer:
                for _ in range(MESSAGES):
                    app.send_task("noop", args=(1, 2), queue="celery", producer=producer, ignore_result=True)
            one = Consuming(url, is_atomic=is_atomic)
            wall, cpu = time.perf_counter(), time.process_time()
            one.until(MESSAGES)
            found[is_atomic].append((MESSAGES / (time.perf_counter() - wall), (time.process_time() - cpu) / MESSAGES))
            one.close()
    ratio = statistics.median(ours[0] / kombus[0] for ours, kombus in zip(found[True], found[False], strict=True))
    for is_atomic, label in ((False, "kombu's own way"), (True, "in one step")):
        rate, cpu_s = (statistics.median(each) for each in zip(*found[is_atomic], strict=True))
        print(f"{label:<16} {rate:8,.0f} messages/s {cpu_s * 1e6:6.0f} µs CPU each")
    print(f"in one step / kombu's own way, median of {ROUNDS} pairs: {ratio:.2f}")


def singles(valkey: parts.Valkey) -> None:
    """One message after the other to a consumer that idles."""
    for is_atomic, label in ((False, "kombu's own way"), (True, "in one step")):
        url = valkey.fresh().url
        one = Consuming(url, is_atomic=is_atomic)
        waits = []
        with kombu.Connection(url) as connection:
            producer = connection.Producer()
            for number in range(1, SINGLES + 1):
                for _ in range(3):
                    one.hub.call_later(0.002, lambda: None)
                    one.hub.run_once()
                sent = time.perf_counter()
                producer.publish({"number": number}, routing_key="celery", serializer="json")
                one.until(number)
                waits.append(one.got_at - sent)
        one.close()
        print(f"{label:<16} publish to an idle consumer: median {statistics.median(waits) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
