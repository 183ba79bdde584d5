"""Broker loss: a worker that holds unacknowledged messages outlives a broker that goes away.

When the connection breaks, Celery 5.7 takes it apart and connects anew, but kombu 5.7 still uses the old one: to put
unacknowledged messages back, and to acknowledge them later. Both end in an AttributeError, which Celery takes for a
mistake in the program and ends the worker. The messages are safe without that: the broker delivers them again after its
visibility time-out. This consumer step keeps that one error from ending the worker. Used by the pool and by the
workers of DAGs.

A broker that answers and refuses every write (it is a replica for a moment, or full) would be left and joined again
many times in a second, since what a worker does first is to declare its queues. Here a new connection is used once the
broker takes a write.

Whoever puts messages back after that time-out holds a lock in Redis meanwhile, for some milliseconds. A worker that is
killed or cut off just then leaves it behind, and for kombu's five minutes nobody puts anything back. Here a lock is
old after `LOCK_S`.
"""

import contextlib
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import bootsteps
from celery.worker import state
from kombu.transport import redis

from dispatcher import retry

logger = logging.getLogger(__name__)

LOCK_S = 10
"""What is put back at once takes milliseconds. A second worker that does the same at the same time does no harm: each
message is moved by a transaction."""
BACKOFF = retry.Backoff(first_s=0.2, last_s=1.0, has_jitter=False)
PROBE = "podyard-takes-writes"
"""The key of a write that says nothing; it lives for a second."""
_CALLS = ("restore_unacked_once", "ack", "reject")


class SurviveBrokerLoss(bootsteps.StartStopStep):
    """Guards the channels of a consumer, at the start and after each reconnect."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        # In the constructor: Celery's `Connection` step calls it before this step is started.
        parent.connection_for_read = awaiting_writes(parent.connection_for_read)

    def start(self, parent: Any) -> None:
        """Wraps what is done with unacknowledged messages of this connection."""
        # Mostly one and the same; where they are two, both may hold messages.
        for channel in (parent.connection.default_channel, parent.task_consumer.channel):
            qos = getattr(channel, "qos", None)
            forget_locks(channel)
            for name in _CALLS:
                call = getattr(qos, name, None)
                if call is not None and name not in vars(qos):  # another transport, or guarded already
                    setattr(qos, name, guarded(call, channel))


def awaiting_writes(connect: Callable[..., Any]) -> Callable[..., Any]:
    """A call that gives a connection once the broker at its end takes writes."""

    @wraps(connect)
    def connects(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        if isinstance(connection.default_channel, redis.Channel):
            await_writes(connection.default_channel)
        return connection

    return connects


def await_writes(channel: Any) -> None:
    """Returns once a Redis broker takes writes. Raises what says that the connection is gone, or that Celery stops."""
    exceptions, is_logged = redis.redis.exceptions, False
    # Only refusals: an error of the connection passes, and Celery connects anew.
    for one in retry.Tries(exceptions.ResponseError, backoff=BACKOFF):
        # A key that is not ours to write says nothing of others.
        with one, contextlib.suppress(exceptions.NoPermissionError), channel.conn_or_acquire() as client:
            client.set(PROBE, "", px=1000)
        if one.error is not None:
            if not is_logged:
                logger.warning("the broker refuses writes, waiting until it takes them: %s", one.error)
            is_logged = True
            # Celery's loop, which would look at it, does not turn meanwhile: a stop would wait for the broker.
            state.maybe_shutdown()
    if is_logged:
        logger.warning("the broker takes writes again")


def forget_locks(channel: Any) -> None:
    """Shortens how long the lock of a worker that is gone keeps the others from putting messages back."""
    expire_s = getattr(channel, "unacked_mutex_expire", None)
    if expire_s is not None and expire_s > LOCK_S:
        channel.unacked_mutex_expire = LOCK_S
        vars(channel.qos).pop("unacked_mutex_expire", None)  # it keeps a copy once it was used


def guarded(call: Callable[..., Any], channel: Any) -> Callable[..., Any]:
    """A call that does nothing where the connection of its channel is gone, and says so."""

    @wraps(call)
    def survives(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except AttributeError:
            if getattr(channel.connection, "client", None) is not None:
                raise  # the connection is whole: this is another error
            logger.warning("the connection is gone, the broker's visibility time-out handles it: %s", call.__name__)
            return None

    return survives
