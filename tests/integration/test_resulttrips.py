"""Outcomes stored by one round trip, on a real server and Celery's own backend: the same as Celery would store."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, states
from celery.backends.redis import RedisBackend

from dispatcher.worker.celery_patches import store_script
from tests import parts

Store = Callable[[str, Any, str], None]


@pytest.fixture
def make_backend(valkey: parts.ValkeyDatabase) -> Callable[..., RedisBackend]:
    """Backends of one database, each of an app of its own."""

    def make(**conf: Any) -> RedisBackend:
        app = Celery("trips", backend=valkey.url, broker=valkey.url, set_as_current=False)
        app.conf.update(conf)
        return app.backend

    return make


def _stored(backend: Any, task_id: str) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(backend.client.get(backend.get_key_for_task(task_id)))
    meta.pop("date_done")
    return meta


def _calls(backend: Any, command: str) -> int:
    """How often the server was asked this, by a client or by a script."""
    return int(backend.client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


@pytest.mark.parametrize(
    ("result", "state"), [({"rows": 3}, states.SUCCESS), (ValueError("so it is"), states.FAILURE)], ids=str
)
@pytest.mark.parametrize("conf", [{}, {"result_expires": None}, {"result_failure_expires": 60}], ids=str)
def test_what_is_stored_is_what_celery_stores(
    make_backend: Callable[..., RedisBackend], result: Any, state: str, conf: dict[str, Any]
) -> None:
    """Content and expiry."""
    celerys, ours = make_backend(**conf), make_backend(**conf)
    store_script.shorten(ours)

    celerys.store_result("celerys", result, state)
    ours.store_result("ours", result, state)

    assert _stored(ours, "ours") == {**_stored(celerys, "celerys"), "task_id": "ours"}
    lives_s = [one.client.ttl(one.get_key_for_task(name)) for one, name in ((celerys, "celerys"), (ours, "ours"))]
    assert abs(lives_s[0] - lives_s[1]) <= 1, lives_s


def test_it_is_one_round_trip_and_it_is_announced(make_backend: Callable[..., RedisBackend]) -> None:
    """Whoever waits hears of it."""
    backend = make_backend()
    store_script.shorten(backend)
    backend.store_result("warm", 1, states.SUCCESS)
    listener = backend.client.pubsub()
    listener.subscribe(backend.get_key_for_task("one"))
    assert listener.get_message(timeout=5)["type"] == "subscribe"
    scripts, transactions = _calls(backend, "evalsha"), _calls(backend, "exec")

    backend.store_result("one", 1, states.SUCCESS)

    assert (_calls(backend, "evalsha"), _calls(backend, "exec")) == (scripts + 1, transactions)
    assert json.loads(listener.get_message(timeout=5)["data"])["status"] == states.SUCCESS
    listener.close()


@pytest.mark.parametrize("serializer", ["json", "yaml"])
def test_nothing_overwrites_a_success(make_backend: Callable[..., RedisBackend], serializer: str) -> None:
    """What comes later is dropped, as Celery does; what comes after STARTED counts."""
    backend = make_backend(result_serializer=serializer, result_accept_content=[serializer])
    store_script.shorten(backend)

    for state, result in ((states.STARTED, {"pid": 1}), (states.SUCCESS, 7), (states.FAILURE, ValueError("late"))):
        backend.store_result("one", result, state)

    meta = backend.get_task_meta("one", cache=False)
    assert (meta["status"], meta["result"]) == (states.SUCCESS, 7)


def test_a_server_that_runs_no_scripts_is_served_celerys_way(
    make_backend: Callable[..., RedisBackend], valkey: parts.ValkeyDatabase
) -> None:
    """Some hosted servers refuse them."""
    backend = make_backend()
    store_script.shorten(backend)
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", ">word", "~*", "&*", "+@all", "-@scripting")
    backend.client.execute_command("AUTH", "plain", "word")
    backend.client.connection_pool.connection_kwargs.update(username="plain", password="word")
    backend.client.connection_pool.disconnect()

    backend.store_result("one", 7, states.SUCCESS)

    assert backend.get_task_meta("one", cache=False)["result"] == 7


def test_a_server_that_is_away_is_told_at_once(own_valkey: parts.Valkey) -> None:
    """By the server's own error, and not tried in both ways: the replay keeps the outcome and comes again."""
    url = own_valkey.fresh().url
    app = Celery("away", backend=url, broker=url, set_as_current=False)
    backend: Any = app.backend
    store_script.shorten(backend)
    backend.store_result("one", 1, states.SUCCESS)
    own_valkey.kill()

    with pytest.raises(backend.connection_errors):
        backend.store_result("two", 2, states.SUCCESS)


def test_a_backend_with_ways_of_its_own_keeps_them(valkey: parts.ValkeyDatabase) -> None:
    """Such as the one of DAGs, which reports."""

    class Own(RedisBackend):
        def _set(self, key: str, value: Any, *more: Any) -> None:  # Celery 5.6 has no `expires` here
            super()._set(key, value, *more)
            self.client.expire(key, 5)

    app = Celery("own", broker=valkey.url, set_as_current=False)
    backend = Own(app=app, url=valkey.url)
    store_script.shorten(backend)

    backend.store_result("one", 7, states.SUCCESS)

    assert backend.client.ttl(backend.get_key_for_task("one")) <= 5
