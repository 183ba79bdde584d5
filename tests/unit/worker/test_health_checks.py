"""Health checks: a part that answers passes, and one that does not raises soon, whatever kind it is."""

import time
from typing import Any

import pytest
from celery import Celery
from celery.backends.cache import CacheBackend

from dispatcher.worker import health_checks
from dispatcher.worker.health_checks import BrokerCheck, DatabaseCheck, ResultBackendCheck

NOBODY = "redis://127.0.0.1:1/0"
"""Nobody listens there."""


class Away(CacheBackend):
    """A result backend that is away."""

    def get(self, key: Any) -> Any:
        raise ConnectionError("away")


def app(broker: str = "memory://", backend: str | None = "cache+memory://") -> Celery:
    """An application of Celery's."""
    return Celery("checked", broker=broker, backend=backend, set_as_current=False)


def test_parts_that_answer_pass() -> None:
    """And have names for people."""
    checks = (BrokerCheck(app()), ResultBackendCheck(app()))
    assert [check.run() for check in checks] == [None, None]
    assert [check.part for check in checks] == ["broker", "result backend"]


def test_an_application_without_a_result_backend_lacks_none() -> None:
    """There is nothing to ask."""
    ResultBackendCheck(app(backend=None)).run()


@pytest.mark.parametrize(
    "check",
    [
        BrokerCheck(app(NOBODY)),
        ResultBackendCheck(app(backend=NOBODY)),
        ResultBackendCheck(app(backend=f"{__name__}:Away+memory://")),
    ],
)
def test_a_part_that_is_away_raises_soon(check: Any) -> None:
    """A check has its own time-outs, whatever the application's."""
    check.app.conf.broker_connection_timeout = 600
    check.app.conf.redis_socket_timeout = 600
    began_s = time.monotonic()
    with pytest.raises(Exception, match=r"(?i)refused|connect|away"):
        check.run()
    assert time.monotonic() - began_s < health_checks.TIMEOUT_S


class Store:
    """A database that answers, or does not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def ping(self) -> None:
        if self.error is not None:
            raise self.error


def test_a_database_is_asked_by_its_own_client() -> None:
    """What that raises is what is wrong."""
    DatabaseCheck(Store()).run()
    with pytest.raises(OSError, match="disk"):
        DatabaseCheck(Store(OSError("disk"))).run()
