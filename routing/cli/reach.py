"""What the settings point to, reached for: broker, result backend, database, API server.

Each function says in a line what it found, or raises an error whose text is the line. `config check` reports them;
long-running processes wait for them, so that nothing has to be started in order.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
import kombu
import kombu.exceptions
import redis.exceptions

from dispatcher import errors, retry
from dispatcher.kubeapi import access_review as rights
from dispatcher.kubeapi import client, server_access
from dispatcher.manifests import names, redaction
from dispatcher.worker import health_checks
from routing.cli import failure, plaintext
from routing.cli.failure import Failure
from routing.config.settings import Settings
from routing.store import RecordError, SchemaError, Store

if TYPE_CHECKING:
    from celery import Celery

Check = Callable[[Settings], str]

TIMEOUT_S = 3.0
OLDEST_REDIS = (6, 2)
"""kombu 5.7 needs ZRANGE with BYSCORE and REV."""
KEEPS_ALL = "noeviction"
"""The one policy of a full Redis or Valkey server that throws nothing away: it refuses writes instead."""
_BACKOFF = retry.Backoff(last_s=5.0, has_jitter=False)
REFUSES = "WARNING: it refuses writes: "
"""How a finding goes on where a server answers and takes nothing. It is no reason to wait: who reads makes room."""
_SHORT = {"socket_connect_timeout": TIMEOUT_S, "socket_timeout": TIMEOUT_S}
_UNREACHABLE = (Failure, RecordError, errors.DispatcherError)


def broker(settings: Settings) -> str:
    """The broker answers."""
    return _reach_messaging(_connection(settings.broker.url), url=settings.broker.url, key="broker.url")


def results(settings: Settings) -> str:
    """The result backend answers."""
    return _reach_messaging(_connection(settings.results.url), url=settings.results.url, key="results.url")


def broker_of(app: "Celery") -> str:
    """The broker of a Celery application answers."""
    connection = app.connection_for_write(connect_timeout=TIMEOUT_S)
    if connection.transport.driver_type == "redis":
        # redis-py's own time-outs are set by the transport; `connect_timeout` above does not reach them.
        connection.transport_options |= _SHORT
    url = str(app.conf.broker_write_url or app.conf.broker_url or connection.as_uri(include_password=True))
    return _reach_messaging(connection, url=url, key="broker_url of the application")


def results_of(app: "Celery") -> str:
    """The result backend of a Celery application answers, or it has none."""
    from celery.backends.base import DisabledBackend

    if isinstance(app.backend, DisabledBackend):
        return "none: outcomes are not stored, and nobody can ask for them"
    shown = redaction.hide_text(str(app.conf.result_backend))
    try:
        health_checks.ResultBackendCheck(app).run()
    except Exception as error:  # a backend may be anybody's and raise anything
        raise Failure(f"{shown} cannot be used: {words(error)}; correct result_backend of the application") from error
    return f"{shown}: answers"


def database(settings: Settings) -> str:
    """The database answers and its tables fit this code. Raises SchemaError where they do not."""
    store = Store.open(settings.database.url)
    try:
        found = store.check()
    finally:
        store.close()
    if not found.ok:
        raise SchemaError(found.message)
    return f"{redaction.hide_text(settings.database.url)}: revision {found.current}"


def kubernetes(settings: Settings) -> str:
    """The API server answers, and pods may be listed in every namespace that a rule names."""
    access = server_access.connect_as(settings.kubernetes)
    namespaces = sorted({rule.profile.namespace for rule in settings.router.rules if rule.side == "kubernetes"})
    selector = f"podyard.dev/deployment={names.label_value(settings.deployment)}"

    async def ask() -> str:
        # The client's own time-outs are a dispatcher's, which has time; who asks here sits at a terminal.
        async with asyncio.timeout(4 * TIMEOUT_S), client.KubeClient(access) as api:
            version = await api.read_version()
            pods = [len((await api.list_pods(namespace, selector=selector)).pods) for namespace in namespaces]
        here = ", ".join(f"{count} pods in {name}" for name, count in zip(namespaces, pods, strict=True))
        return f"{access.host}: version {version.get('gitVersion')}; of this deployment: {here or 'no namespace'}"

    try:
        return asyncio.run(ask())
    except TimeoutError:
        raise errors.ApiUnavailable(f"{access.host} does not answer") from None


def permissions(settings: Settings) -> str:
    """The dispatcher may do all that it has to, in every namespace that a rule names."""
    access = server_access.connect_as(settings.kubernetes)
    namespaces = sorted({rule.profile.namespace for rule in settings.router.rules if rule.side == "kubernetes"})

    async def ask() -> list[str]:
        async with asyncio.timeout(4 * TIMEOUT_S), client.KubeClient(access) as api:
            return await rights.missing(api, namespaces=namespaces)

    try:
        missing = asyncio.run(ask())
    except TimeoutError:
        raise errors.ApiUnavailable(f"{access.host} does not answer") from None
    if missing:
        raise Failure(f"not allowed: {'; '.join(missing)}; add the verbs to the role of this account")
    return f"{len(rights.NEEDED)} verbs in {', '.join(namespaces) or 'no namespace'}"


def wait_for(settings: Settings, **checks: Check) -> None:
    """Returns once all checks pass; says once for each new reason what it waits for."""
    for what, check in checks.items():
        _wait(what.replace("_", " "), settings, check)


def _wait(what: str, settings: Settings, check: Check) -> None:
    said = ""
    for one in retry.Tries(_UNREACHABLE, backoff=_BACKOFF):
        with one:
            found = check(settings)
        if isinstance(one.error, SchemaError):
            raise one.error  # waiting does not help: somebody has to migrate
        if one.error is None:
            continue
        reason = failure.describe(one.error) or plaintext.line(str(one.error))
        if reason != said:
            click.echo(f"podyard: waiting for the {what}: {reason}", err=True)
            said = reason
    if said:
        click.echo(f"podyard: the {what} answers now", err=True)
    if "WARNING: " in found:
        click.echo(f"podyard: the {what}: {found}", err=True)


def _connection(url: str) -> kombu.Connection:
    options = _SHORT if url.startswith(("redis", "sentinel")) else {}
    return kombu.Connection(url, connect_timeout=TIMEOUT_S, transport_options=options)


def _reach_messaging(connection: kombu.Connection, *, url: str, key: str) -> str:
    shown = redaction.hide_text(url)
    about: Mapping[str, Any] = {}
    refusal = None
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
        if connection.transport.driver_type == "redis":
            client = connection.default_channel.client
            about = client.info()
            # By a write: a full server and a read-only replica answer everything else (B21).
            refusal = _refusal_of_writes(client)
    except (
        kombu.exceptions.KombuError,
        redis.exceptions.RedisError,
        OSError,
        ValueError,
        *_errors(connection),
    ) as error:
        remedy = f"start it (`podyard standalone` brings one along) or correct {key}"
        raise Failure(f"{shown} cannot be used: {words(error)}; {remedy}") from error
    finally:
        connection.release()
    version = about.get("redis_version")  # Valkey names the version of Redis that it is compatible with
    if version and tuple(map(int, version.split(".")[:2])) < OLDEST_REDIS:
        raise Failure(f"{shown} is Redis {version}; Celery needs Redis 6.2 or newer, or Valkey")
    valkey = about.get("valkey_version")
    found = f"{shown}: {f'Valkey {valkey}' if valkey else f'Redis {version}' if version else 'answers'}"
    return "; ".join(filter(None, (found, refusal, evicts(about))))


def _refusal_of_writes(client: Any) -> str | None:
    """Why a server that answers takes nothing: it is full, a read-only replica, or cannot save to its disk."""
    try:
        health_checks.write(client, health_checks.NO_TASK)
    except redis.exceptions.ResponseError as error:
        return f"{REFUSES}{words(error)}"
    return None


def evicts(about: Mapping[str, Any]) -> str | None:
    """What is wrong with a server that forgets keys when its memory is full, by its INFO; None where nothing is. Pure.

    Queues, claims and results are keys: one that is evicted is a lost message or a lost result, and nobody is notified.
    """
    policy = str(about.get("maxmemory_policy") or KEEPS_ALL)
    if policy == KEEPS_ALL or not int(about.get("maxmemory") or 0):
        return None
    return (
        f"WARNING: maxmemory-policy is {policy}: at {about.get('maxmemory_human') or about['maxmemory']} it throws keys"
        f" away, messages and results among them; set it to {KEEPS_ALL}"
    )


def _errors(connection: Any) -> tuple[type[Exception], ...]:
    return (*connection.connection_errors, *connection.channel_errors)


def words(error: BaseException) -> str:
    """An error of a connection in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return plaintext.line(str(error)).rstrip(".") or type(error).__name__
