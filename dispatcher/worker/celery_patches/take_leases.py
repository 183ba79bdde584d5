"""Leases of consumers: what a consumer had taken that is dead goes back into its queues soon, not after the time-out.

Each consumer with an atomic take has a name, writes it beside each message that it takes, and says every few seconds
that it lives, from a thread of its own over a connection that bears that name. Whoever looks finds the names that have
been silent; one is dead only if the server has no connection of that name either: a process that is stopped, or whose
event loop stands still under a long task, keeps its connection, and so its messages. What was taken by a consumer
without a name (Celery's own way, or a server that gives connections no names) comes again after the visibility
time-out, as ever. Where the message goes, with which priority, and that it says `redelivered`, is kombu's.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

logger = logging.getLogger(__name__)

MARK = "podyard_taker"
"""In the note of a message that was taken: who took it, and when."""
LEASE_S = 10.0
"""A consumer that said nothing for so long may be dead; with no connection, and for as long again, it is."""
OPTION = "podyard_lease_s"
"""The transport option that says another time."""
BEATS = 4
"""How often in the time of a lease it is renewed."""
CALL_S = 10.0
# By the server's clock alone: those of the consumers may be apart (T1).
_BEAT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZADD', KEYS[1], now, ARGV[1])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - ARGV[2]))
"""
"""KEYS: who consumes, by when they last said so; ARGV: the name, the seconds of a lease. Gives who has been silent."""


class TakeLease:
    """That of one process, over all its connections to the broker; with a look at those of others."""

    def __init__(self, connection: Any, *, lease_s: float = LEASE_S) -> None:
        """`connection` is a kombu connection to the broker; this has another one, of its own."""
        # Bounded: a thread that hangs in one call would look as dead to the others as one that has ended.
        options = {**connection.transport_options, "socket_timeout": CALL_S, "socket_connect_timeout": CALL_S / 2}
        self._connection = connection.clone(transport_options=options)
        self._lease_s = lease_s
        # Of this process alone: under a name that is used again, what a killed
        # predecessor took would look as if it were held.
        self.name = uuid4().hex
        self._is_known = threading.Event()
        self._stopped = threading.Event()
        self._silent_since_mono_s: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="podyard-lease", daemon=True)
        self._thread.start()

    @property
    def taker(self) -> str:
        """The name to write beside what is taken; empty while the server does not know it."""
        return self.name if self._is_known.is_set() else ""

    def close(self) -> None:
        """Say nothing any more; what is left was put back by kombu, or is put back by others."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._beat_until_stopped()
            except Exception as error:  # noqa: BLE001 - a thread that ended would look like a death
                logger.debug("no sign of life to the broker: %r", error)
                # A gap of our own: who seemed silent before it may have lived all the time.
                self._silent_since_mono_s.clear()
            self._stopped.wait(self._lease_s / BEATS)

    def _beat_until_stopped(self) -> None:
        with self._connection.clone() as connection:
            channel = connection.channel()
            # One connection for all commands: the name is that of a connection, and says that this process has one.
            client = redis.redis.Redis(connection_pool=channel.pool, single_connection_client=True)
            while not self._stopped.is_set():
                self._beat(channel, client)
                self._stopped.wait(self._lease_s / BEATS)

    def _beat(self, channel: Any, client: Any) -> None:
        key = self._key(channel, "unacked_takers")
        try:
            # Each time: redis-py may have connected anew since, and a new connection has no name.
            client.client_setname(f"podyard-{self.name}")
        except redis.redis.exceptions.ResponseError as error:  # it must not be taken for dead: it takes without a name
            logger.info("what this consumer takes comes again after the visibility time-out, should it die: %s", error)
            self._stopped.set()
            return
        silent = {bytes_to_str(name) for name in client.eval(_BEAT, 1, key, self.name, self._lease_s)}
        self._is_known.set()
        for name in self._dead(client, silent):
            self._put_back(channel, client, name)
            # Behind the last message: should we be killed here, the name stays and somebody else goes on.
            client.zrem(key, name)

    def _dead(self, client: Any, silent: Iterable[str]) -> list[str]:
        """Those who have been silent and without a connection for long enough, as far as this process saw."""
        now_mono_s = time.monotonic()
        if silent:
            try:
                # Silence is not enough: a process that is stopped (SIGSTOP), or busy, still has what it took.
                connected = {str(one.get("name")) for one in client.client_list()}
            except redis.redis.exceptions.ResponseError as error:
                logger.debug("nobody can say who is connected to the broker: %s", error)
                return []
            silent = [name for name in silent if f"podyard-{name}" not in connected]
        self._silent_since_mono_s = {name: self._silent_since_mono_s.get(name, now_mono_s) for name in silent}
        return [name for name, since in self._silent_since_mono_s.items() if now_mono_s - since >= self._lease_s]

    def _put_back(self, channel: Any, client: Any, name: str) -> None:
        """Put back what that consumer took, whoever else is at it."""
        wanted, count = f'"{MARK}":["{name}",'.encode(), 0
        notes: Iterable[tuple[bytes, bytes]] = client.hscan_iter(self._key(channel, channel.unacked_key), count=100)
        for tag, note in notes:
            # Compared as text: of thousands of notes most are others', and need not be decoded.
            if wanted in note:
                count += self._is_put_back(channel, client, bytes_to_str(tag), name)
        if count:
            logger.warning("messages of a consumer that is gone were put back into their queues: %d", count)

    def _is_put_back(self, channel: Any, client: Any, tag: str, name: str) -> bool:
        """Put a message back, in one transaction, if what is noted is still what that consumer took."""
        qos, is_done = channel.qos, False

        def put_back(pipe: Any) -> None:
            nonlocal is_done
            # Set anew: redis-py calls this again where somebody has changed the hash meanwhile (WATCH).
            is_done = False
            note = pipe.hget(qos.unacked_key, tag)
            taken_at = client.zscore(self._key(channel, qos.unacked_index_key), tag)
            pipe.multi()
            if note is None:
                return
            message, exchange, routing_key = loads(bytes_to_str(note))
            taker, at = message.pop(MARK, (None, None))
            if taker == name and at == taken_at:  # else somebody has taken it again, and lives
                qos._remove_from_indices(tag, pipe)
                channel._do_restore_message(message, exchange, routing_key, pipe)
                is_done = True

        with channel.conn_or_acquire() as transactions:
            transactions.transaction(put_back, qos.unacked_key)
        return is_done

    @staticmethod
    def _key(channel: Any, name: str) -> str:
        return f"{channel.global_keyprefix or ''}{name}"


def lease_s(options: Mapping[str, Any]) -> float:
    """The time of a lease that the transport options of a broker say. Raises ValueError for what is none."""
    said = options.get(OPTION, LEASE_S)
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < float("inf"):
        raise ValueError(f"broker_transport_options[{OPTION!r}] = {said!r}: must be a number of seconds above 0")
    return float(said)
