"""`podyard queues list`: how many messages wait, whatever the application's broker options are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp.exceptions
import pytest
from celery import Celery
from kombu.transport import TRANSPORT_ALIASES, memory

from routing.cli import queuefacts
from routing.router import Router
from tests import parts
from tests.terminal import inside

APP = """
from celery import Celery
app = Celery("shop", broker={url!r}, set_as_current=False)
app.conf.update(task_default_queue="mail", task_routes={{"render": "kubernetes"}}, broker_transport_options={options!r})
"""


def counted(folder: Path, *words: str) -> dict[str, int | None]:
    answer = inside(folder, "queues", "list", "-o", "json", *words)
    assert answer.returncode == 0, answer.stderr
    return {one["queue"]: one["messages"] for one in json.loads(answer.stdout)}


def send(url: str, options: dict[str, Any]) -> None:
    """Ten messages of ten priorities into one queue, one into another."""
    app = Celery("sender", broker=url, set_as_current=False)
    app.conf.broker_transport_options = options
    for priority in range(10):
        app.send_task("render", queue="kubernetes", priority=priority)
    app.send_task("mail", queue="mail")
    app.close()


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("shop_plain", {}),
        ("shop_steps", {"priority_steps": list(range(10)), "queue_order_strategy": "priority"}),
        ("shop_prefix", {"global_keyprefix": "shop."}),
        ("shop_all", {"global_keyprefix": "shop.", "priority_steps": [0, 5], "sep": ":"}),
    ],
)
def test_they_are_counted_by_the_options_of_the_application(
    tmp_path: Path, valkey: parts.ValkeyDatabase, module: str, options: dict[str, Any]
) -> None:
    """A prefix of all keys, priority steps and a separator of its own."""
    (tmp_path / f"{module}.py").write_text(APP.format(url=valkey.url, options=options))
    send(valkey.url, options)
    assert counted(tmp_path, "--app", f"{module}:app") == {"kubernetes": 10, "mail": 1}


def test_steps_of_others_are_counted_without_their_options(tmp_path: Path, valkey: parts.ValkeyDatabase) -> None:
    """An installation need not know which steps senders have: a list is looked for on every priority."""
    (tmp_path / "podyard.toml").write_text(f'[broker]\nurl = "{valkey.url}"\n')
    send(valkey.url, {"priority_steps": list(range(10))})
    assert counted(tmp_path)["kubernetes"] == 10


class Reserved(memory.Channel):
    """A broker that does not let everybody look at a queue, as RabbitMQ's permissions may say."""

    def queue_declare(self, queue: str | None = None, passive: bool = False, **kwargs: Any) -> Any:
        if passive and queue == "secret":
            raise amqp.exceptions.AccessRefused("access to queue 'secret' refused for user 'shop'")
        if passive and queue == "none-yet":
            raise amqp.exceptions.NotFound("no queue 'none-yet'")
        return super().queue_declare(queue, passive=passive, **kwargs)


class Transport(memory.Transport):
    Channel = Reserved


@pytest.fixture
def other_broker() -> Iterator[str]:
    TRANSPORT_ALIASES["reserved"] = f"{__name__}:Transport"
    yield "reserved://"
    del TRANSPORT_ALIASES["reserved"]


def test_a_broker_other_than_redis_says_what_it_knows(other_broker: str) -> None:
    """A queue that does not exist has no messages; one that may not be looked at has an unknown number, and why."""
    app = Celery("shop", broker=other_broker, set_as_current=False)
    app.conf.update(task_default_queue="mail", task_routes={"a": "secret", "b": {"queue": "none-yet"}})
    app.send_task("mail", queue="mail")
    facts, unknown = queuefacts.gather(
        app, Router.from_mapping({}), path="shop:app", open_store=lambda: pytest.fail("it has no record of DAGs")
    )
    assert {fact.queue: fact.messages for fact in facts} == {"kubernetes": 0, "mail": 1, "none-yet": 0, "secret": None}
    (line,) = unknown
    assert "messages of the queue 'secret' are not known" in line
    assert "refused" in line
