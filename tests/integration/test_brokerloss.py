"""Messages of a worker that is gone, on a real broker: what keeps others from putting them back, and for how long."""

import kombu

from dispatcher.worker.celery_patches import broker_loss
from tests import parts


def test_B8_a_worker_that_is_gone_while_it_puts_messages_back_keeps_nobody_from_it_for_long(
    valkey: parts.ValkeyDatabase,
) -> None:
    """kombu's lock would stand for five minutes; the one that we leave behind stands for seconds."""
    with kombu.Connection(valkey.url) as connection, valkey.client() as server:
        channel = connection.channel()
        assert channel.qos.unacked_mutex_expire > broker_loss.LOCK_S
        broker_loss.forget_locks(channel)
        lives_ms: list[int] = []
        channel.qos.restore_by_tag = lambda *_: lives_ms.append(server.pttl("unacked_mutex"))
        server.zadd("unacked_index", {"tag": 1})

        channel.qos.restore_visible(interval=1)

        [life_ms] = lives_ms
        assert 0 < life_ms <= broker_loss.LOCK_S * 1000
