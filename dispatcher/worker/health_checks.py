"""Health checks of what a Celery application needs: its broker and its result backend. For `process_health`.

Each check opens a connection of its own, with short time-outs, so that it shares no lock and no socket with the
application's work. A Redis or Valkey server is asked by a write: one that is full, or a read-only replica, answers and
refuses all that Celery does.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from celery.backends.base import DisabledBackend
from kombu.transport import redis

# Below `Pace.hangs_s` of process_health: a server that is away is an error then, with its words.
TIMEOUT_S = 3.0
NO_TASK = "podyard-health-check"
"""The id of a task that nobody sends, and the key that is written."""
_KEPT_S = 60


class Pingable(Protocol):
    """A database that is reached by a client of its own."""

    def ping(self) -> object:
        """Returns if it answers, else raises."""


@dataclass(frozen=True)
class BrokerCheck:
    """Whether the broker lets us in and takes what is sent; raises what kombu or redis raise."""

    app: Any
    part: ClassVar[str] = "broker"

    def run(self) -> None:
        """Opens a connection and closes it."""
        _connect(self.app)


@dataclass(frozen=True)
class ResultBackendCheck:
    """Whether the result backend answers, where the application has one; raises what the backend raises."""

    app: Any
    part: ClassVar[str] = "result backend"

    def run(self) -> None:
        """Asks by a client of its own, or for the outcome of a task that nobody sends."""
        _ask_backend(self.app.backend)  # Celery makes one for each thread


@dataclass(frozen=True)
class DatabaseCheck:
    """Whether the database answers."""

    store: Pingable
    part: ClassVar[str] = "database"

    def run(self) -> None:
        """One statement."""
        self.store.ping()


def _connect(app: Any) -> None:
    connection = app.connection_for_write(connect_timeout=TIMEOUT_S)
    try:
        is_redis = connection.transport.driver_type == "redis"
        if is_redis:
            connection.transport_options |= {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
        # kombu would try for ever by default; the next check comes anyway.
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
        if is_redis:
            write(connection.default_channel.client, NO_TASK)
    finally:
        connection.release()


def _ask_backend(backend: Any) -> None:
    if isinstance(backend, DisabledBackend):
        return
    parameters = getattr(backend, "connparams", None)
    # A backend other than Redis: reading what is not there is the only question that every one answers.
    if parameters is None or not hasattr(backend, "_create_client"):
        backend.get_task_meta(NO_TASK)
        return
    short = {name: TIMEOUT_S for name in ("socket_timeout", "socket_connect_timeout") if name in parameters}
    client = backend._create_client(**{**parameters, **short})  # Celery has no public way to a client of one's own
    try:
        write(client, backend.get_key_for_task(NO_TASK))
    finally:
        client.connection_pool.disconnect()


def write(client: Any, key: str | bytes) -> None:
    """Writes a key that is gone soon. Raises ResponseError of redis where the server refuses writes, and why.

    A user who may not write this key is let in all the same: what it may, nobody knows here.
    """
    try:
        client.set(key, "", ex=_KEPT_S)
    except redis.redis.exceptions.NoPermissionError:
        client.ping()
