"""Atomic take: a message leaves its queue and is noted as unacknowledged in one step, so that a kill loses none.

On Redis, kombu takes a message off its list (BRPOP) and notes it as unacknowledged in a second call. A worker that is
killed between the two, or whose second call is refused (a full server refuses it, and not the first), loses the message
for good. Here one script does both. A script cannot wait, so that the server is asked to notify when a list that was
found empty has changed (CLIENT TRACKING, with a connection of its own for the notifications); a look every second does
not depend on that. Priorities, the order of queues, prefetch, acknowledgement and the visibility time-out are kombu's,
on kombu's own keys; broadcasts (`inspect`, `revoke`, events) are not touched.

A consumer step for any Celery worker (`app.steps["consumer"].add(…)`, docs/celery.md); ours have it. Other brokers than
Redis, and pools without Celery's event loop, are left alone. Runs on the hub's thread.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from queue import Empty
from typing import Any

from celery import bootsteps
from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from dispatcher.worker.celery_patches import switches, take_leases

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often is looked without a notification: kombu's own BRPOP returns as often."""
UNNOTIFIED_LOOK_S = 0.1
"""The same where the server sends no notifications: this long a message may wait on an idle worker."""
INVALIDATIONS = "__redis__:invalidate"
_TAKE = """
for i = 3, #KEYS do
  local item = redis.call('RPOP', KEYS[i])
  if item then
    local is_read, message = pcall(cjson.decode, item)
    local about = is_read and type(message) == 'table' and message['properties']
    local tag = type(about) == 'table' and about['delivery_tag']
    if type(tag) == 'string' then
      local info = type(about['delivery_info']) == 'table' and about['delivery_info'] or {}
      local function text(value) return cjson.encode(type(value) == 'string' and value or '') end
      redis.call('ZADD', KEYS[1], ARGV[1], tag)
      local where = text(info['exchange']) .. ',' .. text(info['routing_key'])
      local note, last = item, string.match(item, '^.*()}')
      if ARGV[2] ~= '' then
        note = string.sub(item, 1, last - 1) .. ',"podyard_taker":["' .. ARGV[2] .. '",' .. ARGV[1] .. ']}'
      end
      redis.call('HSET', KEYS[2], tag, '[' .. note .. ',' .. where .. ']')
    end
    return {i - 2, item}
  end
end
for i = 3, #KEYS do redis.call('EXISTS', KEYS[i]) end
return false
"""
"""KEYS: the index and the hash of unacknowledged messages, then the lists, first come first served; ARGV: now, and the
consumer's name, if it has one. What is noted is what kombu notes, with name and time (`take_leases.MARK`) as one more
field of the message, which kombu does not look at. The last loop reads the lists that are empty: a client is notified
of changes to what it has read."""


class TakeStep(bootsteps.StartStopStep):
    """Looks after the channel from which messages are consumed, at the start and after each reconnect."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._taking: Taking | None = None
        self._lease: take_leases.TakeLease | None = None
        """As long as the process lives: it holds what it has taken though it consumes no more."""

    def start(self, parent: Any) -> None:
        """Takes up the channel of this connection."""
        channel = parent.task_consumer.channel
        # Without acknowledgements (`ack_emulation` off, by choice) there is no note that could be lost.
        if parent.hub is None or not isinstance(channel, redis.Channel) or not channel.ack_emulation:
            return
        if switches.is_on(parent.app, "atomic_take"):
            if self._lease is None:
                lease_s = take_leases.lease_s(channel.connection.client.transport_options)
                self._lease = take_leases.TakeLease(channel.connection.client, lease_s=lease_s)
            self._taking = Taking(channel, hub=parent.hub, lease=self._lease)

    def stop(self, parent: Any) -> None:
        """Closes the connection of its own."""
        if self._taking is not None:
            self._taking.close()
            self._taking = None


class Taking:
    """What stands in a channel for BRPOP."""

    def __init__(
        self, channel: Any, *, hub: Any, look_s: float = LOOK_S, lease: take_leases.TakeLease | None = None
    ) -> None:
        """`look_s`: how often is looked without a notification. `lease`: whose messages these are."""
        self._lease = lease
        self._channel = channel
        self._look_s = look_s
        self._qos = channel.qos
        self._hub = hub
        self._kombus_append: Callable[[Any, str], None] = channel.qos.append
        # Only the digest is used: a redis-py Script waits for the answer, and here the hub reads it when it comes.
        self._digest = redis.redis.client.Redis.register_script(channel.client, _TAKE).sha
        self._is_loaded = False
        self._queues: list[str] = []
        """Of each list that was asked for, in order, its queue."""
        self._noted: str | None = None
        """The message that is being delivered and was noted already."""
        self._is_asked = False
        """A question is under way. Without one there is nothing to read but what redis-py keeps for itself."""
        self._is_idle = False
        """All lists were empty, and the next look comes when somebody rings."""
        self._has_rung = False
        """Something changed since the last look was sent."""
        self._notifications: Any = None
        """The connection on which the server notifies of changes."""
        self._watched_socket: Any = None
        """The socket whose reads the server watches."""
        self._awaits_tracking = False
        self._is_notified = True
        self._kombus_read: Callable[..., bool] | None = channel._brpop_read if channel._in_poll else None
        """Reads the answer of a BRPOP that kombu has sent already: it comes first on that connection."""
        channel._brpop_start = self.start
        channel._brpop_read = self.read
        # The constructor of kombu's channel has put its own bound method there: replacing the name is not enough.
        channel.handlers["BRPOP"] = self.read
        channel.qos.append = self.append
        # Often, though mostly nothing is due: whether the server notifies may change while the connection stands.
        self._timer = hub.call_repeatedly(UNNOTIFIED_LOOK_S, self._look_now_and_then)
        self._looked_mono_s = 0.0

    def close(self) -> None:
        """Ends the timer and the notifications."""
        self._timer.cancel()
        self._drop_notifications()

    def start(self, timeout: float | None = None) -> None:
        """Asks for a message; kombu calls it when it may consume and nothing is under way."""
        channel = self._channel
        # kombu's order: the first priority of all queues, then the next; among
        # queues whoever gave a message last comes last.
        queues = channel._queue_cycle.consume(len(channel.active_queues))
        if not queues:
            return
        connection = channel.client.connection
        self._queues = [queue for _ in channel.priority_steps for queue in queues]
        lists = [channel._q_for_pri(queue, step) for step in channel.priority_steps for queue in queues]
        # The command goes out by the connection itself, past the client that would put the prefix before it.
        keys = [f"{channel.global_keyprefix or ''}{key}" for key in (*self._notes, *lists)]
        # EVAL loads it, once; a server that was started anew has forgotten it (`NoScriptError`).
        script = ("EVALSHA", self._digest) if self._is_loaded else ("EVAL", _TAKE)
        commands: list[tuple[Any, ...]] = [
            (*script, len(keys), *keys, time.time(), self._lease.taker if self._lease else "")
        ]
        self._is_asked = self._is_idle = self._has_rung = False
        self._looked_mono_s = time.monotonic()
        # Tracking is a property of a connection: another socket, also after redis-py has connected anew, has none.
        if self._is_notified and self._watched_socket is not connection._sock:
            commands = [*self._tracking(), *commands]
        self._watched_socket = connection._sock
        channel._in_poll = connection
        # By this kombu's health check sees an answer that is overdue, and connects anew.
        channel._brpop_sent_at = time.monotonic()
        # Sent together and not waited for: the hub must not stand still for a broker.
        connection.send_packed_command(connection.pack_commands(commands))
        self._is_asked = True

    def read(self, **options: Any) -> bool:
        """Delivers what came. Raises Empty where nothing did, as kombu's."""
        channel, connection = self._channel, self._channel.client.connection
        if self._kombus_read is not None:
            first, self._kombus_read = self._kombus_read, None
            return first(**options)
        if not self._is_asked:  # the channel is about to close, or its socket, or the server pushed something else
            self._is_idle, channel._in_poll = False, None
            raise Empty
        self._is_asked = False
        try:
            found = self._answer(connection, **options)
        finally:
            # Also where reading failed: kombu asks only while nothing is under way.
            channel._in_poll = channel._brpop_sent_at = None
            if hasattr(channel, "_flush_brpop_reauth"):
                channel._flush_brpop_reauth()
        if found is None:
            self._rest(connection)
            raise Empty
        queue, item = self._queues[int(found[0]) - 1], found[1]
        # The queue that gave a message goes to the end, so that a full one does not keep the others waiting.
        channel._queue_cycle.rotate(queue)
        self._deliver(loads(bytes_to_str(item)), queue)
        return True

    def append(self, message: Any, tag: str) -> None:
        """Takes note of a message that is delivered; of one that the script has taken, in this process alone."""
        if tag == self._noted:
            self._noted = None
            virtual.QoS.append(self._qos, message, tag)
        else:
            self._kombus_append(message, tag)

    def ring(self) -> None:
        """Lets the next turn of the hub look."""
        self._has_rung = True
        # kombu asks at its next turn where `_in_poll` is empty.
        if self._is_idle:
            self._is_idle, self._channel._in_poll = False, None

    @property
    def _notes(self) -> Sequence[str]:
        return (self._qos.unacked_index_key, self._qos.unacked_key)

    def _answer(self, connection: Any, **options: Any) -> Any:
        channel = self._channel
        try:
            if self._awaits_tracking:
                self._awaits_tracking = False
                self._read_tracking(connection)
            found = channel.client.parse_response(connection, "EVALSHA", **options)
        except redis.redis.exceptions.NoScriptError:  # the server was started anew
            self._is_loaded, self._has_rung = False, True
            return None
        except channel.connection_errors:
            # As kombu does it: the next command connects anew, and an answer that comes late is not read for another.
            connection.disconnect()
            raise
        self._is_loaded = True
        return found

    def _deliver(self, message: Any, queue: str) -> None:
        properties = message.get("properties") if isinstance(message, dict) else None
        tag = self._noted = properties.get("delivery_tag") if isinstance(properties, dict) else None
        self._channel.connection._deliver(message, queue)
        if tag is not None and self._noted == tag:  # whoever consumes it acknowledges nothing
            self._noted = None
            self._qos._remove_from_indices(tag).execute()

    def _rest(self, connection: Any) -> None:
        """Waits for a notification, unless one has come since the question was sent."""
        # `_in_poll` is set though nothing was asked: else kombu would ask at every turn of the hub, without a pause.
        if not self._has_rung:
            self._is_idle, self._channel._in_poll = True, connection

    def _look_now_and_then(self) -> None:
        every_s = self._look_s if self._is_notified and self._notifications is not None else UNNOTIFIED_LOOK_S
        # Half a step less: the timer's own jitter would else put off each look by a whole one.
        if self._is_idle and time.monotonic() - self._looked_mono_s >= every_s - UNNOTIFIED_LOOK_S / 2:
            self.ring()

    # Notifications: a subscription of its own, on which the server notifies of lists that were found empty.

    def _tracking(self) -> list[tuple[Any, ...]]:
        """The command that asks for notifications; none where they cannot be had now."""
        self._drop_notifications()
        try:
            # With protocol 2 notifications go to another connection (REDIRECT),
            # one that has subscribed to their channel.
            subscription = self._channel.pool.get_connection()
            subscription.send_command("CLIENT", "ID")
            number = int(subscription.read_response())
            subscription.send_command("SUBSCRIBE", INVALIDATIONS)
            if (
                str(subscription.protocol) != "3"
            ):  # with that one nothing has to be subscribed, and no answer can be read
                subscription.read_response()
        except (*self._channel.connection_errors, redis.redis.exceptions.ResponseError) as error:
            self._stay_untold(error)
            return []
        # Read by the hub as bytes, to the end of what is there; a blocking socket would hold it up at the end.
        subscription._sock.setblocking(False)
        self._notifications = subscription
        self._hub.add_reader(subscription._sock, self._on_notification)
        self._awaits_tracking = True
        return [("CLIENT", "TRACKING", "ON", "REDIRECT", number)]

    def _read_tracking(self, connection: Any) -> None:
        try:
            self._channel.client.parse_response(connection, "CLIENT TRACKING")
        except redis.redis.exceptions.ResponseError as error:
            self._stay_untold(error)

    def _stay_untold(self, error: BaseException) -> None:
        logger.info("the broker does not notify of new messages, it is asked every %s s: %s", UNNOTIFIED_LOOK_S, error)
        self._is_notified = False
        self._drop_notifications()

    def _on_notification(self) -> None:
        """What a notification says is not read: any change is a reason to look."""
        try:
            while self._notifications._sock.recv(65536):
                pass
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if not _wants_more(error):
                self._lose_notifications()
        else:
            self._lose_notifications()
        self.ring()

    def _lose_notifications(self) -> None:
        """It was closed: the next look asks for another."""
        self._drop_notifications()
        self._watched_socket = None

    def _drop_notifications(self) -> None:
        subscription, self._notifications = self._notifications, None
        if subscription is None:
            return
        if subscription._sock is not None:
            with contextlib.suppress(OSError, KeyError, ValueError):
                self._hub.remove_reader(subscription._sock)
        with contextlib.suppress(OSError, redis.redis.exceptions.RedisError):
            subscription.disconnect()


def _wants_more(error: OSError) -> bool:
    """Whether a socket with TLS has nothing to read yet."""
    import ssl

    return isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError))
