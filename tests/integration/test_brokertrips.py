"""Fewer round trips to a real broker, with kombu's own channel: what is acknowledged, when, and what if it is away."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kombu
import pytest
import redis
from kombu.asynchronous import Hub

from dispatcher.worker.celery_patches import ack_batching
from tests import parts


@dataclass(kw_only=True)
class Consuming:
    """A consumer with messages that nobody has acknowledged yet."""

    connection: kombu.Connection
    channel: Any
    hub: Hub
    acks: ack_batching.Acknowledgements
    messages: list[Any]
    url: str

    def turn(self) -> None:
        """One turn of the hub's loop."""
        self.hub.run_once()


@pytest.fixture
def consuming(own_valkey: parts.Valkey) -> Iterator[Consuming]:
    url = own_valkey.fresh().url
    connection = kombu.Connection(url, transport_options={"socket_timeout": 2})
    channel = connection.channel()
    queue = kombu.Queue("work", channel=channel, no_ack=False)
    queue.declare()
    for number in range(5):
        connection.Producer(channel).publish({"number": number}, routing_key="work", serializer="json")
    messages: list[Any] = []
    hub = Hub()
    ack_batching.keep_client(channel)
    acks = ack_batching.Acknowledgements(
        channel, hub=hub, errors=(*connection.connection_errors, *connection.channel_errors)
    )
    with kombu.Consumer(channel, queues=[queue], callbacks=[lambda _, message: messages.append(message)]):
        while len(messages) < 5:
            connection.drain_events(timeout=5)
    yield Consuming(connection=connection, channel=channel, hub=hub, acks=acks, messages=messages, url=url)
    hub.close()
    connection.release()


def _transactions(channel: Any) -> int:
    return int(channel.client.info("commandstats")["cmdstat_exec"]["calls"])


def test_messages_acknowledged_in_one_turn_leave_in_one_transaction(consuming: Consuming) -> None:
    """Until then the broker has them; afterwards it has forgotten those and no other."""
    server = consuming.channel.client
    for message in consuming.messages[:4]:
        message.ack()
    assert server.hlen("unacked") == 5
    before = _transactions(consuming.channel)

    consuming.turn()

    assert _transactions(consuming.channel) == before + 1
    assert server.hkeys("unacked") == [consuming.messages[4].delivery_tag.encode()]
    assert server.zcard("unacked_index") == 1


def test_what_was_acknowledged_is_not_put_back_at_the_end(consuming: Consuming) -> None:
    """The channel puts back what it thinks is open."""
    for message in consuming.messages[:4]:
        message.ack()
    consuming.acks.flush()

    consuming.channel.qos.restore_unacked_once()

    assert consuming.channel.client.llen("work") == 1


def test_a_broker_that_is_away_gets_the_acknowledgement_when_it_is_back(
    consuming: Consuming, own_valkey: parts.Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """It is kept, and said once; Celery would forget it, and the message would come again."""
    consuming.messages[0].ack()
    own_valkey.kill()
    consuming.turn()
    assert "messages were not acknowledged" in caplog.text
    assert consuming.acks.unsent == (consuming.messages[0].delivery_tag,)

    own_valkey.restart()
    parts.eventually(lambda: (consuming.turn(), not consuming.acks.unsent)[1], 15)

    with contextlib.closing(redis.Redis.from_url(consuming.url)) as server:
        assert server.hlen("unacked") == 4


def test_a_broker_that_refuses_for_a_while_gets_the_acknowledgement_afterwards(
    consuming: Consuming, own_valkey: parts.Valkey
) -> None:
    """As while it switches over: a read-only replica refuses, and nobody takes that for an error of the program."""
    with contextlib.closing(redis.Redis.from_url(own_valkey.address.url())) as server:
        server.replicaof("127.0.0.1", 1)
        consuming.messages[0].ack()
        consuming.turn()
        assert consuming.acks.unsent == (consuming.messages[0].delivery_tag,)
        server.replicaof("NO", "ONE")

    parts.eventually(lambda: (consuming.turn(), not consuming.acks.unsent)[1], 15)

    assert consuming.channel.client.hlen("unacked") == 4


def test_what_a_connection_did_not_send_before_it_broke_the_next_one_sends(consuming: Consuming) -> None:
    """When one breaks, Celery takes it apart and keeps using its channels. Tags are the broker's."""
    consuming.messages[0].ack()
    consuming.connection.collect()
    consuming.channel._disconnect_pools()
    consuming.acks.flush()

    with kombu.Connection(consuming.url) as following:
        channel = following.channel()
        acks = ack_batching.Acknowledgements(channel, hub=consuming.hub, errors=(), unsent=consuming.acks.unsent)
        consuming.turn()

        assert acks.unsent == ()
        assert consuming.messages[0].delivery_tag.encode() not in channel.client.hkeys("unacked")


def test_one_client_serves_all_commands_of_a_pool_of_connections(consuming: Consuming) -> None:
    """A new pool gets a new one."""
    channel = consuming.channel
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
    channel._disconnect_pools()
    with channel.conn_or_acquire() as third:
        assert third is not first
        assert third.ping()
