"""The sections of an installation's settings: those of its dispatcher, and those of everything else.

`routing.config.settings` reads files and environment into these; `docs/configuration.md` is held against them by a
test. A new key is a new field of one of these tables and nothing else (docs/configuration.md is regenerated).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import Meta

from dispatcher import constraints
from dispatcher.constraints import about
from dispatcher.settings import sections

BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps")
RESULT_SCHEMES = ("redis", "rediss", "redis+socket")

Kubernetes = sections.Kubernetes
"""Under the name of its section, for whoever reads `Settings`."""


def _url(kind: str, schemes: tuple[str, ...]) -> Meta:
    """A URL of one of these schemes; how each goes on is its client's to judge."""
    known = "|".join(scheme.replace("+", r"\+") for scheme in schemes)
    listed = ", ".join(f"{scheme}://" for scheme in schemes)
    return Meta(pattern=rf"\A({known})://.", title=f"a URL of {kind} that begins with one of {listed}")


@dataclass(frozen=True, kw_only=True)
class Top(sections.Top):
    """The keys that stand outside of any section."""

    home: Annotated[constraints.Folder, about("Where embedded parts, SQLite and logs live unless set otherwise.")] = (
        Path(".podyard")
    )


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where messages wait."""

    # Not in `repr`, since it holds a password and a data class may end up in a traceback.
    url: Annotated[str, _url("a broker", BROKER_SCHEMES), about("The Celery broker.")] = field(
        default="redis://127.0.0.1:6379/0", repr=False
    )


@dataclass(frozen=True, kw_only=True)
class Results(sections.Results):
    """Where Celery workers and dispatchers leave outcomes for the collector."""

    url: Annotated[str, _url("a Redis or Valkey server", RESULT_SCHEMES), about("The result backend.")] = field(
        default="redis://127.0.0.1:6379/0", repr=False
    )
    expires_s: Annotated[
        constraints.Count,
        about("How long an outcome waits to be collected.", allowed="an integer of seconds, at least 1"),
    ] = 86_400


@dataclass(frozen=True, kw_only=True)
class Dags:
    """The DAG files."""

    folder: Annotated[constraints.Folder, about("Where DAG files are.")] = Path("dags")
    load_timeout_s: Annotated[constraints.Seconds, about("After this long a DAG file's loading is given up.")] = 30.0
    refresh_s: Annotated[constraints.Seconds, about("How often changed DAG files are looked for.")] = 10.0


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """The loop that finds ready tasks and collects outcomes."""

    infra_retries: Annotated[
        constraints.Natural,
        about("Retries after faults of the infrastructure; a task's own `retries` are untouched."),
    ] = 3
    infra_retry_delay_s: Annotated[constraints.Delay, about("The first wait before such a retry; it grows.")] = 5.0
    max_active_tasks: Annotated[constraints.Count, about("Tasks sent and not ended, over all runs.")] = 10_000
    sweep_s: Annotated[constraints.Seconds, about("How often open attempts are looked up one by one.")] = 5.0


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Celery workers started by `podyard worker`."""

    concurrency: Annotated[constraints.Count, about("Processes of one worker.")] = 4


@dataclass(frozen=True, kw_only=True)
class Flower:
    """The web page of Celery's side."""

    address: Annotated[constraints.Text, about("0.0.0.0 for all interfaces.", allowed="an address to listen at")] = (
        "127.0.0.1"
    )
    port: Annotated[constraints.Port, about("0 takes a free one.")] = 5555
    basic_auth: Annotated[
        Annotated[str, Meta(pattern=r"\A[^:]+:(?s:.+)\Z")] | None,
        about("Asked of every visitor when set.", allowed="user:password"),
    ] = field(default=None, repr=False)


SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "broker": Broker,
        "results": Results,
        "database": sections.Database,
        "dags": Dags,
        "logs": sections.Logs,
        "health": sections.Health,
        "scheduler": Scheduler,
        "worker": Worker,
        "kubernetes": Kubernetes,
        "policy": sections.SECTIONS["policy"],
        "celery_patches": sections.CeleryPatches,
        "flower": Flower,
    }
)
"""Section name in the file -> its table. `queues` is the router's, not a section."""
TABLES: Mapping[str, type[Any]] = MappingProxyType({"": Top, **SECTIONS})
"""The same with "" for the keys outside of sections."""
SECRETS = frozenset({"broker.url", "results.url", "database.url", "flower.basic_auth"})
"""Keys that hold a credential in their ordinary use."""
