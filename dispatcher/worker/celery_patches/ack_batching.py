"""Broker trips: fewer and cheaper round trips to a Redis broker, which are most of what a pod costs Celery's thread.

kombu 5.7 acknowledges each message by a round trip of its own, and makes a client object anew for every command (which
costs redis-py more than the command). Here the acknowledgements of one turn of the hub's loop leave as one transaction,
and a client is kept as long as its pool of connections. What reaches the server is the same. Other brokers are left
alone. A consumer step, used by the pool; runs on the hub's thread.
"""

import logging
from typing import Any

from celery import bootsteps
from kombu.transport import redis, virtual

from dispatcher.worker.celery_patches import broker_loss

logger = logging.getLogger(__name__)


class FewerTrips(bootsteps.StartStopStep):
    """Looks after the channel from which messages are consumed, at the start and after each reconnect."""

    requires = (broker_loss.SurviveBrokerLoss,)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._acks: Acknowledgements | None = None

    def start(self, parent: Any) -> None:
        """Takes up the channel of this connection."""
        channel = parent.task_consumer.channel
        if parent.hub is None or not isinstance(channel, redis.Channel):
            return
        keep_client(channel)
        self._acks = Acknowledgements(channel, hub=parent.hub, errors=parent.connection_errors)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - the signature is Celery's
        """Sends what waits: what is not acknowledged would be put back into its queue."""
        if self._acks is not None:
            self._acks.flush()


def keep_client(channel: Any) -> None:
    """Lets a channel use one client for all commands, made anew only with its pool of connections."""
    make = channel._create_client  # noqa: SLF001 - kombu has no other place for it
    kept: Any = None

    def client(asynchronous: bool = False) -> Any:
        nonlocal kept
        if asynchronous:
            return make(asynchronous=True)
        if kept is None or kept.connection_pool is not channel.pool:
            kept = make()
        return kept

    channel._create_client = client  # noqa: SLF001 - as above


class Acknowledgements:
    """Those of one channel. One that cannot be sent is told in the log, as Celery does: the message comes again."""

    def __init__(self, channel: Any, *, hub: Any, errors: tuple[type[BaseException], ...]) -> None:
        self._qos = channel.qos
        self._hub = hub
        self._errors = errors
        self._tags: list[str] = []
        self._send = broker_loss.guarded(self._send_all, channel)
        self._qos.ack = self.take

    def take(self, tag: str) -> None:
        """Acknowledges a message, before the hub waits for anything again."""
        if not self._tags:
            self._hub.call_soon(self.flush)
        self._tags.append(tag)

    def flush(self) -> None:
        """Sends what waits."""
        tags, self._tags = self._tags, []
        if not tags:
            return
        try:
            self._send(tags)
        except self._errors as error:
            logger.critical("messages were not acknowledged, they will be delivered again: %d, %r", len(tags), error)

    def _send_all(self, tags: list[str]) -> None:
        with self._qos.pipe_or_acquire() as pipe:
            pipe.zrem(self._qos.unacked_index_key, *tags).hdel(self._qos.unacked_key, *tags).execute()
        for tag in tags:
            virtual.QoS.ack(self._qos, tag)
