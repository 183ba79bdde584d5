"""The sender: puts attempts into their queues in batches, and revokes them. The scheduler's only door to the broker.

A failed batch may have been delivered in part. Nobody needs to know which part: the same ids are sent again, and a
second delivery does no second run. Raises BrokerUnavailable.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis
from celery import Celery
from kombu import exceptions

from dispatcher.protocol.message import AGAIN_HEADER, END_HEADER
from routing.scheduling import messages
from routing.store import entries

BATCH = 500
ONCE = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
"""No waiting between tries: the loop has other things to do meanwhile."""


class BrokerUnavailable(Exception):
    """The broker cannot be reached, or it is not known whether it took the messages: send them again later."""


class Sender:
    """Publishes through one connection of its own, which is made again after a failure."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._producer: Any = None

    def send(self, attempts: Sequence[entries.Unsent], *, again: bool = False) -> None:
        """Send messages; returns once the broker has them. `again`: they were sent before, or may have been."""
        with self._mapped():
            producer = self._open()
            with self._batch(producer):
                for attempt in attempts:
                    self._publish(producer, attempt, again=again)

    def revoke(self, attempt_ids: Sequence[str]) -> None:
        """Tell all workers to stop these attempts, or not to begin them."""
        with self._mapped():
            # `terminate`, so that a body that runs is ended, too; who has not begun drops the message.
            self._app.control.revoke(list(attempt_ids), terminate=True, connection=self._open().connection)

    def backlog(self, queue: str) -> int:
        """How many messages wait in a queue."""
        with self._mapped():
            producer = self._open()
            try:
                return int(producer.channel.queue_declare(queue=queue, passive=True).message_count)
            except producer.connection.channel_errors:
                self.close()  # a broker closes the channel on which a missing queue was asked for
                return 0

    def close(self) -> None:
        """Close the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            # It is closed because it failed, and each transport has errors of its own for that.
            with contextlib.suppress(Exception):
                producer.connection.close()

    def _publish(self, producer: Any, attempt: entries.Unsent, *, again: bool) -> None:
        message: Mapping[str, Any] = attempt.message
        text = messages.describe(message)
        known = ({AGAIN_HEADER: True} if again else {}) | ({END_HEADER: attempt.pod_end} if attempt.pod_end else {})
        self._app.send_task(
            message["name"],
            task_id=attempt.id,
            kwargs=message["kwargs"],
            headers={**message["headers"], **known},
            queue=attempt.queue,
            producer=producer,
            # Not kombu's retries, which sleep: the loop has its lease to renew, and sends again by the record.
            retry=False,
            shadow=message.get("shadow"),
            time_limit=message.get("time_limit"),
            # Else Celery puts the values of the arguments into the headers, where Flower and logs show them.
            argsrepr="()",
            kwargsrepr=text,
        )

    @staticmethod
    def _batch(producer: Any) -> Any:
        """Many messages by one call, which kombu has since 5.7; before, one call each."""
        return producer.batch(max_size=BATCH) if hasattr(producer, "batch") else contextlib.nullcontext()

    def _open(self) -> Any:
        if self._producer is None:
            connection = self._app.connection_for_write()
            connection.ensure_connection(**ONCE)
            self._producer = self._app.amqp.Producer(connection, auto_declare=False)
        return self._producer

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.KombuError, redis.RedisError, OSError) as error:
            # What the broker took of a batch, and in what state the channel is, is
            # not known: nothing of it is used again.
            self.close()
            raise BrokerUnavailable(str(error).strip() or type(error).__name__) from error
