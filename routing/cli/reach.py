"""What the settings point to, reached for: broker, result backend, database, API server.

Each function says in a line what it found, or raises an error whose text is the line. `config check` reports them;
long-running processes wait for them, so that nothing has to be started in order.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import click
import kombu
import kombu.exceptions
import redis.exceptions

from dispatcher import errors, retry
from dispatcher.kubeapi import access_review as rights
from dispatcher.kubeapi import client, server_access
from dispatcher.manifests import names, redaction
from routing.cli import failure, plaintext
from routing.cli.failure import Failure
from routing.config.settings import Settings
from routing.store import RecordError, SchemaError, Store

Check = Callable[[Settings], str]

TIMEOUT_S = 3.0
OLDEST_REDIS = (6, 2)
"""kombu 5.7 needs ZRANGE with BYSCORE and REV."""
KEEPS_ALL = "noeviction"
"""The one policy of a full Redis or Valkey server that throws nothing away: it refuses writes instead."""
_BACKOFF = retry.Backoff(last_s=5.0, has_jitter=False)
_UNREACHABLE = (Failure, RecordError, errors.DispatcherError)


def broker(settings: Settings) -> str:
    """The broker answers."""
    return _reach_messaging(settings.broker.url, key="broker.url")


def results(settings: Settings) -> str:
    """The result backend answers."""
    return _reach_messaging(settings.results.url, key="results.url")


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


def _reach_messaging(url: str, *, key: str) -> str:
    shown = redaction.hide_text(url)
    options = {"socket_connect_timeout": TIMEOUT_S, "socket_timeout": TIMEOUT_S}
    is_redis = url.startswith("redis")
    connection = kombu.Connection(url, connect_timeout=TIMEOUT_S, transport_options=options if is_redis else {})
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
        about = connection.default_channel.client.info() if is_redis else {}
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
    return f"{found}; {warning}" if (warning := evicts(about)) else found


def evicts(about: Mapping[str, Any]) -> str | None:
    """What is wrong with a server that forgets keys when its memory is full, by its INFO; None where nothing is. Pure.

    Queues, claims and results are keys: one that is evicted is a lost message or a lost result, and nobody is told.
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
