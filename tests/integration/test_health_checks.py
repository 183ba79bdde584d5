"""Health checks on a real server that answers and refuses what Celery does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu.exceptions
import pytest
import redis
from celery import Celery

from dispatcher.worker import health_checks
from routing.cli import reach
from tests import parts


@pytest.fixture
def server(tmp_path: Path) -> Iterator[parts.Valkey]:
    found = parts.Valkey.start(tmp_path / "valkey", databases=2)
    yield found
    found.stop()


def application(server: parts.Valkey, **conf: Any) -> Celery:
    app = Celery("shop", broker=server.address.url(0), backend=server.address.url(1), set_as_current=False)
    app.conf.update(conf)
    return app


def fill(client: "redis.Redis[bytes]") -> None:
    """Memory is full, and nothing is thrown away."""
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)


def follow_nobody(client: "redis.Redis[bytes]") -> None:
    """A replica that only reads."""
    client.config_set("replica-serve-stale-data", "yes")
    client.replicaof("127.0.0.1", "1")


def fail_to_save(client: "redis.Redis[bytes]") -> None:
    """MISCONF: a snapshot could not be written, and writes are refused until one can."""
    client.config_set("stop-writes-on-bgsave-error", "yes")
    client.config_set("save", "3600 1")
    about = {**client.config_get("dir"), **client.config_get("dbfilename")}
    Path(about["dir"], about["dbfilename"]).mkdir()
    client.bgsave()
    parts.eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 10)


@pytest.mark.parametrize(
    ("refuse", "words"),
    [(fill, "maxmemory"), (follow_nobody, "read only"), (fail_to_save, "MISCONF")],
    ids=["its memory is full", "a read-only replica", "its disk cannot be written"],
)
def test_a_server_that_refuses_writes_is_away(
    server: parts.Valkey, refuse: Callable[["redis.Redis[bytes]"], None], words: str
) -> None:
    """As broker and as result backend; it answers questions all the while."""
    app = application(server)
    health_checks.BrokerCheck(app).run()
    health_checks.ResultBackendCheck(app).run()
    with redis.Redis.from_url(server.address.url(0)) as client:
        refuse(client)
        assert client.info("server")
    refusals = (redis.exceptions.ResponseError, kombu.exceptions.OperationalError)
    with pytest.raises(refusals, match=words):
        health_checks.BrokerCheck(app).run()
    with pytest.raises(refusals, match=words):
        health_checks.ResultBackendCheck(app).run()


def test_a_part_that_starts_does_not_wait_for_room(server: parts.Valkey) -> None:
    """It says that the broker is full; who reads from it is what makes room. `config check` calls it wrong."""
    with redis.Redis.from_url(server.address.url(0)) as client:
        fill(client)
    assert f"{reach.REFUSES}command not allowed when used memory" in reach.broker_of(application(server))


def test_a_user_who_may_not_write_the_key_is_let_in(server: parts.Valkey) -> None:
    """Access by key patterns of the application's own: what the user may, only the application's work shows."""
    with redis.Redis.from_url(server.address.url(0)) as client:
        client.acl_setuser(
            "shop", enabled=True, passwords=["+sesame"], keys=["shop*"], channels=["*"], categories=["+@all"]
        )
    url = f"redis://shop:sesame@127.0.0.1:{server.address.port}"
    app = Celery("shop", broker=f"{url}/0", backend=f"{url}/1", set_as_current=False)
    health_checks.BrokerCheck(app).run()
    health_checks.ResultBackendCheck(app).run()


def test_the_key_is_the_applications_own_and_goes_by_itself(server: parts.Valkey) -> None:
    """Under the prefix of its broker, and of its result backend."""
    app = application(
        server,
        broker_transport_options={"global_keyprefix": "shop."},
        result_backend_transport_options={"global_keyprefix": "shop."},
    )
    health_checks.BrokerCheck(app).run()
    health_checks.ResultBackendCheck(app).run()
    for number in (0, 1):
        with redis.Redis.from_url(server.address.url(number)) as client:
            (key,) = client.keys("*")
            assert key.startswith(b"shop.")
            assert 0 < client.ttl(key) <= 60


def test_an_application_without_a_result_backend_lacks_none() -> None:
    """Celery's default."""
    health_checks.ResultBackendCheck(Celery("shop", set_as_current=False)).run()
