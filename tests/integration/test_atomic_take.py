"""Messages that are taken and noted in one step, on a real broker: a kill loses none, and all else is as kombu's."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import kombu
import pytest
import redis
from kombu.asynchronous import Hub, set_event_loop

from dispatcher.worker.celery_patches import atomic_take
from tests import parts

ROUNDS = 20
NEVER_S = 600.0
"""A look that does not come within a test: what is delivered was told by the server."""
VICTIM = """
import os, signal, sys
import kombu
from kombu.asynchronous import Hub
from kombu.transport.virtual import base
from dispatcher.worker.celery_patches import atomic_take

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

url, way, moment = sys.argv[1:]
connection = kombu.Connection(url)
channel = connection.channel()
hub = Hub()
connection.transport.register_with_event_loop(connection.connection, hub)
if way == "atomic":
    atomic_take.Taking(channel, hub=hub)
if moment == "read":
    base.Transport._deliver = die
else:
    channel.handlers["BRPOP"] = lambda read=channel.handlers["BRPOP"]: die() if server.llen("work") == 0 else read()
    server = channel._create_client()
with kombu.Consumer(channel, queues=[kombu.Queue("work")], callbacks=[lambda *_: None]):
    while True:
        hub.run_once()
"""
"""A consumer that is killed when the broker has given it a message (`sent`), or when it has read it (`read`)."""


@dataclass(kw_only=True)
class Consuming:
    """A consumer on an event loop, and what it got."""

    connection: kombu.Connection
    channel: Any
    hub: Hub
    bodies: list[Any] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)

    def on_message(self, body: Any, message: Any) -> None:
        self.bodies.append(body)
        self.messages.append(message)

    def until(self, count: int, timeout_s: float = 20) -> list[Any]:
        """The bodies, once there are so many."""

        def turned() -> bool:
            self.hub.run_once()
            return len(self.bodies) >= count

        parts.eventually(turned, timeout_s, every_s=0, what=f"{count} messages")
        return self.bodies

    def idle(self) -> None:
        """Turns until nothing is under way."""
        for _ in range(4):
            self.hub.call_later(0.05, lambda: None)
            self.hub.run_once()


@contextlib.contextmanager
def consuming(
    url: str,
    *queues: str,
    is_atomic: bool = True,
    no_ack: bool = False,
    look_s: float = NEVER_S,
    prefetch: int = 0,
    **options: Any,
) -> Iterator[Consuming]:
    connection = kombu.Connection(url, transport_options={"visibility_timeout": 3600, **options})
    channel = connection.channel()
    hub = Hub()
    set_event_loop(hub)
    connection.transport.register_with_event_loop(connection.connection, hub)
    found = Consuming(connection=connection, channel=channel, hub=hub)
    taking = atomic_take.Taking(channel, hub=hub, look_s=look_s) if is_atomic else None
    wanted = [kombu.Queue(name, channel=channel) for name in queues or ("work",)]
    with kombu.Consumer(channel, queues=wanted, callbacks=[found.on_message], no_ack=no_ack, auto_declare=True) as one:
        one.qos(prefetch_count=prefetch)
        yield found
        if taking is not None:
            taking.close()
    hub.close()
    connection.release()


def publish(url: str, *bodies: Any, queue: str = "work", **options: Any) -> None:
    with kombu.Connection(url, transport_options=options.pop("transport", {})) as connection:
        producer = connection.Producer()
        for body in bodies:
            producer.publish(body, routing_key=queue, serializer="json", declare=[kombu.Queue(queue)], **options)


@pytest.mark.parametrize("moment", ["sent", "read"])
@pytest.mark.parametrize(("way", "kept"), [("atomic", ROUNDS), ("kombu", 0)])
def test_B20_a_message_that_was_given_to_a_worker_that_is_killed_comes_again(
    valkey: parts.ValkeyDatabase, way: str, kept: int, moment: str
) -> None:
    """Killed at the exact gap, again and again: kombu's own way loses each of the messages, ours none."""
    for number in range(ROUNDS):
        publish(valkey.url, number)
        killed = subprocess.run([sys.executable, "-c", VICTIM, valkey.url, way, moment], timeout=60, check=False)
        assert killed.returncode == -signal.SIGKILL
    with valkey.client() as server:
        assert server.llen("work") == 0
        assert server.hlen("unacked") == server.zcard("unacked_index") == kept

    if kept:
        with consuming(
            valkey.url, visibility_timeout=0, unacked_restore_interval=0.1, unacked_restore_throttle=1
        ) as it:
            it.channel.qos.restore_visible(interval=1)
            assert sorted(it.until(kept)[:kept]) == list(range(ROUNDS))


def _given_in_order(url: str, *, is_atomic: bool) -> list[Any]:
    for queue in ("a", "b", "c"):
        for priority in (0, 3, 9):
            publish(url, *(f"{queue}{priority}-{number}" for number in range(3)), queue=queue, priority=priority)
    with consuming(url, "a", "b", "c", is_atomic=is_atomic) as it:
        it.until(27)
        for message in it.messages:
            message.ack()
        return it.bodies


def test_priorities_and_the_turns_of_queues_are_kombus(valkey_server: parts.Valkey) -> None:
    """What comes first and which queue is next: message by message the same."""
    ours = _given_in_order(valkey_server.fresh().url, is_atomic=True)
    assert ours == _given_in_order(valkey_server.fresh().url, is_atomic=False)
    assert len(set(ours)) == 27


def test_a_note_is_the_one_that_kombu_makes(valkey: parts.ValkeyDatabase) -> None:
    """So that workers of either kind restore each other's messages: same keys, same content."""
    notes = []
    for is_atomic in (True, False):
        publish(valkey.url, {"umlaut": "ü\u2028\x00", "big": 2**70, "deep": [[[]]]}, headers={"delivery_tag": "no"})
        with consuming(valkey.url, is_atomic=is_atomic) as it, valkey.client() as server:
            it.until(1)
            [(tag, note)] = server.hgetall("unacked").items()
            assert tag.decode() == it.messages[0].delivery_tag
            assert server.zscore("unacked_index", tag) == pytest.approx(time.time(), abs=60)
            payload, exchange, routing_key = kombu.utils.json.loads(note)
            payload["properties"].pop("delivery_tag")  # each publication has its own
            notes.append((payload, exchange, routing_key))
            it.messages[0].ack()
            assert server.hlen("unacked") == server.zcard("unacked_index") == 0
    assert notes[0] == notes[1]


def test_a_message_reaches_an_idle_worker_because_the_server_tells_of_it(valkey: parts.ValkeyDatabase) -> None:
    """No look comes within this test, so that each delivery was told, over and over, on each queue and priority."""
    with consuming(valkey.url, "a", "b") as it:
        for number, (queue, priority) in enumerate([("a", 0), ("b", 0), ("a", 9), ("b", 3), ("a", 0)], start=1):
            it.idle()
            publish(valkey.url, number, queue=queue, priority=priority)
            it.until(number, 10)
        assert it.bodies == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_a_connection_that_is_cut_costs_no_message(own_valkey: parts.Valkey, kind: str) -> None:
    """The one that tells is opened anew; that of messages is Celery's to open anew."""
    url = own_valkey.fresh().url
    with consuming(url, look_s=0.5) as it, contextlib.closing(redis.Redis.from_url(url)) as server:
        it.idle()
        server.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        publish(url, "after")
        if kind == "normal":
            with pytest.raises(it.connection.connection_errors):
                it.until(1, 10)
            return
        assert it.until(1, 10) == ["after"]


def test_a_server_that_forgot_the_script_gets_it_again(valkey: parts.ValkeyDatabase) -> None:
    """As after a restart or a switch to a replica."""
    with consuming(valkey.url) as it, valkey.client() as server:
        publish(valkey.url, 1)
        it.until(1)
        server.script_flush()
        publish(valkey.url, 2)
        assert it.until(2, 10) == [1, 2]


def test_who_consumes_without_acknowledging_leaves_no_note(valkey: parts.ValkeyDatabase) -> None:
    """It would come again after the visibility time-out."""
    publish(valkey.url, 1, 2)
    with consuming(valkey.url, no_ack=True) as it, valkey.client() as server:
        it.until(2)
        assert server.hlen("unacked") == server.zcard("unacked_index") == 0


@pytest.mark.parametrize("requeue", [True, False])
def test_a_rejected_message_goes_where_kombu_puts_it(valkey_server: parts.Valkey, requeue: bool) -> None:
    """Back into its queue, or nowhere."""
    given = []
    for is_atomic in (True, False):
        url = valkey_server.fresh().url
        publish(url, "rejected", "second", "last")
        with consuming(url, is_atomic=is_atomic, prefetch=1) as it:
            it.until(1)
            it.messages[0].reject(requeue=requeue)
            for count in range(2, 5 if requeue else 4):
                it.until(count)
                it.messages[-1].ack()
            assert it.channel.client.hlen("unacked") == 0
            given.append(it.bodies)
    assert given[0] == given[1]
    assert given[0].count("rejected") == 1 + requeue


def test_prefetch_bounds_what_is_taken(valkey: parts.ValkeyDatabase) -> None:
    """What is over the count stays in its queue, for others."""
    publish(valkey.url, *range(5))
    with consuming(valkey.url, prefetch=2) as it, valkey.client() as server:
        it.until(2)
        it.idle()
        assert (it.bodies, server.llen("work"), server.hlen("unacked")) == ([0, 1], 3, 2)


def test_keys_with_a_prefix_are_found(valkey: parts.ValkeyDatabase) -> None:
    """`global_keyprefix`, which several applications on one server have."""
    publish(valkey.url, "prefixed", transport={"global_keyprefix": "mine:"})
    with consuming(valkey.url, global_keyprefix="mine:") as it, valkey.client() as server:
        assert it.until(1) == ["prefixed"]
        assert server.hlen("mine:unacked") == 1
        it.messages[0].ack()
        assert server.hlen("mine:unacked") == 0


def test_B21_a_full_server_loses_no_message(own_valkey: parts.Valkey) -> None:
    """It gives messages and refuses new keys, notes among them: kombu's own way loses what it took."""
    url = own_valkey.fresh().url
    publish(url, 1)
    with contextlib.closing(redis.Redis.from_url(url)) as server:
        with consuming(url) as it:
            it.until(1)
            publish(url, 2)
            server.config_set("maxmemory", "1")
            assert it.until(2, 10) == [1, 2]
            assert server.hlen("unacked") == 2
            for message in it.messages:
                message.ack()
        assert server.hlen("unacked") == 0


@pytest.mark.parametrize("forbidden", ["-client|tracking", "-client|id", "-subscribe"])
def test_a_server_that_may_not_tell_is_asked_more_often(own_valkey: parts.Valkey, forbidden: str) -> None:
    """Scripts are needed by kombu itself; being told is not."""
    url = own_valkey.fresh().url
    with contextlib.closing(redis.Redis.from_url(url)) as server:
        server.execute_command("ACL", "SETUSER", "less", "on", ">word", "~*", "&*", "+@all", forbidden)
        less = url.replace("redis://:" + own_valkey.address.password, "redis://less:word")
        with consuming(less) as it:
            it.idle()
            publish(url, 1)
            assert it.until(1, 10) == [1]
