"""Versions of Airflow, its Celery provider and Celery with which PodyardExecutor works.

Looked at before anything of them is imported: what is too old or too new fails there with an error about a name that
nobody knows. Pure but for `installed`.
"""

import importlib.metadata
from dataclasses import dataclass

OLDEST_AIRFLOW = (3, 1)
NEWEST_AIRFLOW = (3, 3)
"""The newest that the tests ran with; a later one is no error, and nobody has seen it yet."""
OLDEST_PROVIDER = (3, 15)
WITHOUT_PROVIDER = (5, 7)
"""From this Celery on the provider cannot be imported (`retry` of `celery.backends.database` is gone)."""


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What is installed; empty: it is not."""

    airflow: str
    provider: str
    celery: str


def installed() -> Versions:
    """What the environment of this process has."""
    return Versions(
        airflow=_version_of("apache-airflow-core") or _version_of("apache-airflow"),  # before 3.0 there was no core
        provider=_version_of("apache-airflow-providers-celery"),
        celery=_version_of("celery"),
    )


def trouble(found: Versions) -> str | None:
    """Why PodyardExecutor cannot be imported, or would not work, and what to do, in one line; None where it can."""
    if not found.airflow or numbers(found.airflow) < OLDEST_AIRFLOW:
        return f"PodyardExecutor needs Airflow {text(OLDEST_AIRFLOW)} or newer; here is {found.airflow or 'none'}"
    if not found.provider or numbers(found.provider) < OLDEST_PROVIDER:
        return (
            f"PodyardExecutor needs the Celery provider {text(OLDEST_PROVIDER)} or newer; here is"
            f" {found.provider or 'none'}: pip install 'apache-airflow-providers-celery>={text(OLDEST_PROVIDER)}'"
        )
    if numbers(found.celery) >= WITHOUT_PROVIDER:
        return (
            f"Airflow's Celery provider cannot be imported with Celery {found.celery}: pip install"
            f" 'celery<{text(WITHOUT_PROVIDER)}' in this environment (the dispatcher's own may have a newer one)"
        )
    return None


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, which order it."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def text(release: tuple[int, ...]) -> str:
    """A release as people write it."""
    return ".".join(map(str, release))


def _version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
