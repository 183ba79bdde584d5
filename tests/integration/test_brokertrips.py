"""Fewer round trips to a real broker, with kombu's own channel: what is acknowledged, when, and what if it is away."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kombu
import pytest
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

    def turn(self) -> None:
        """One turn of the hub's loop."""
        self.hub.run_once()


@pytest.fixture
def consuming(own_valkey: parts.Valkey) -> Iterator[Consuming]:
    connection = kombu.Connection(own_valkey.fresh().url, transport_options={"socket_timeout": 2})
    channel = connection.channel()
    queue = kombu.Queue("work", channel=channel, no_ack=False)
    queue.declare()
    for number in range(5):
        connection.Producer(channel).publish({"number": number}, routing_key="work", serializer="json")
    messages: list[Any] = []
    hub = Hub()
    ack_batching.keep_client(channel)
    acks = ack_batching.Acknowledgements(channel, hub=hub, errors=connection.connection_errors)
    with kombu.Consumer(channel, queues=[queue], callbacks=[lambda _, message: messages.append(message)]):
        while len(messages) < 5:
            connection.drain_events(timeout=5)
    yield Consuming(connection=connection, channel=channel, hub=hub, acks=acks, messages=messages)
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


def test_a_broker_that_is_away_costs_the_acknowledgement_and_nothing_else(
    consuming: Consuming, own_valkey: parts.Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """The messages come again, as the log says; pods' names keep them from running twice."""
    consuming.messages[0].ack()
    own_valkey.kill()

    consuming.turn()

    assert "messages were not acknowledged" in caplog.text


def test_a_connection_that_is_gone_is_survived(consuming: Consuming, caplog: pytest.LogCaptureFixture) -> None:
    """When one breaks, Celery takes it apart and keeps using its channels."""
    consuming.messages[0].ack()
    consuming.connection.collect()
    consuming.channel._disconnect_pools()

    consuming.acks.flush()

    assert "the connection is gone" in caplog.text


def test_one_client_serves_all_commands_of_a_pool_of_connections(consuming: Consuming) -> None:
    """A new pool gets a new one."""
    channel = consuming.channel
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
    channel._disconnect_pools()
    with channel.conn_or_acquire() as third:
        assert third is not first
        assert third.ping()
