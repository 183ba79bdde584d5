"""Fewer and cheaper round trips to a Redis broker, which are most of what a pod costs Celery's thread.

kombu acknowledges each message by a round trip of its own, and makes a client object anew for every command (which
costs redis-py more than the command). Here the acknowledgements of one turn of the hub's loop leave as one transaction,
and a client is kept as long as its pool of connections. What reaches the server is the same. What a server does not
take, because it is away or refuses for a while, is kept and sent again, over the next connection if need be; Celery
would forget it, and the message would come a second time. Other brokers are left alone. A consumer step, used by the
pool and by the workers of DAGs; runs on the hub's thread.
"""

import logging
from collections.abc import Iterable
from typing import Any

from celery import bootsteps
from kombu.transport import redis, virtual

from dispatcher.worker.celery_patches import broker_loss, switches

logger = logging.getLogger(__name__)

AGAIN_S = 1.0
"""After so long what was not taken is sent again."""


class FewerTrips(bootsteps.StartStopStep):
    """Looks after the channel from which messages are consumed, at the start and after each reconnect."""

    # Behind it: the guard wraps the `ack` that kombu's QoS has, and here another takes its place.
    requires = (broker_loss.SurviveBrokerLoss,)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._acks: Acknowledgements | None = None

    def start(self, parent: Any) -> None:
        """Takes up the channel of this connection, and what the last one did not get rid of."""
        channel = parent.task_consumer.channel
        if (
            parent.hub is None
            or not isinstance(channel, redis.Channel)
            or not switches.is_on(parent.app, "ack_batching")
        ):
            return
        keep_client(channel)
        errors = (*parent.connection_errors, *parent.channel_errors)
        # On Redis a tag is of the message and not of the channel: an
        # acknowledgement holds over the next connection, too.
        unsent = self._acks.unsent if self._acks is not None else ()
        self._acks = Acknowledgements(channel, hub=parent.hub, errors=errors, unsent=unsent)

    def stop(self, parent: Any) -> None:
        """Sends what waits: what is not acknowledged would be requeued."""
        if self._acks is not None:
            self._acks.flush()


def keep_client(channel: Any) -> None:
    """Lets a channel use one client for all commands, made anew only with its pool of connections."""
    make = channel._create_client
    kept: Any = None

    def client(asynchronous: bool = False) -> Any:
        nonlocal kept
        # That is `channel.client`, on whose socket the hub waits for messages: kombu keeps it itself.
        if asynchronous:
            return make(asynchronous=True)
        # kombu makes another pool when a connection is lost: a client of the old one would use sockets that are gone.
        if kept is None or kept.connection_pool is not channel.pool:
            kept = make()
        return kept

    channel._create_client = client


class Acknowledgements:
    """Those of one channel. One that cannot be sent is kept; nobody of this process requeues its message."""

    def __init__(
        self, channel: Any, *, hub: Any, errors: tuple[type[BaseException], ...], unsent: Iterable[str] = ()
    ) -> None:
        """`unsent` are acknowledgements that an earlier channel of the same broker could not send."""
        self._channel = channel
        self._qos = channel.qos
        self._hub = hub
        self._errors = errors
        self._tags: list[str] = []
        self._is_logged = False
        """Whether it was said that something cannot be sent."""
        self._qos.ack = self.take
        for tag in unsent:
            self._put(tag)

    @property
    def unsent(self) -> tuple[str, ...]:
        """What the broker has not got yet."""
        return tuple(self._tags)

    def take(self, tag: str) -> None:
        """Acknowledges a message, before the hub waits for anything again."""
        virtual.QoS.ack(self._qos, tag)  # it is not requeued when the channel is closed
        self._put(tag)

    def flush(self) -> None:
        """Sends what waits."""
        tags = self.unsent
        if not tags or getattr(self._channel.connection, "client", None) is None:
            return  # a connection that is gone: the next one sends them
        try:
            with self._qos.pipe_or_acquire() as pipe:
                # What kombu's `_remove_from_indices` does for one tag, for all of them; in one transaction, as there.
                pipe.zrem(self._qos.unacked_index_key, *tags).hdel(self._qos.unacked_key, *tags).execute()
        except self._errors as error:
            if not self._is_logged:
                logger.warning("messages were not acknowledged yet, tried again: %d, %s", len(tags), error)
            self._is_logged = True
            self._hub.call_later(AGAIN_S, self.flush)
            return
        self._is_logged = False
        del self._tags[: len(tags)]

    def _put(self, tag: str) -> None:
        # Where some wait already, their flush is due in this turn, or after AGAIN_S.
        if not self._tags:
            self._hub.call_soon(self.flush)
        self._tags.append(tag)
