"""The options that every operator takes: read from what the author wrote, checked, with the DAG's defaults. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from os import PathLike
from typing import Any, Protocol, TypeAlias, TypedDict

from routing.authoring import names
from routing.authoring.trigger import TriggerRule
from routing.errors import InvalidDag

MAX_QUEUE_LENGTH = 255
LEGACY_KEY = "KubernetesExecutor"
"""Of Airflow 1; refused with the new form."""


class KubernetesObject(Protocol):
    """An object of the Kubernetes client, by what all of its models have; the client itself is not imported."""

    attribute_map: Mapping[str, str]


PodOverride: TypeAlias = Mapping[str, Any] | KubernetesObject
"""A pod that is laid over the template's: a mapping as in YAML, or a V1Pod."""


class ExecutorConfig(TypedDict, total=False):
    """`executor_config` of a task, as Airflow's KubernetesExecutor takes it."""

    pod_override: PodOverride | None
    pod_template_file: str | PathLike[str] | None


class OperatorOptions(TypedDict, total=False):
    """The options as an author writes them, by keyword."""

    queue: str | None
    """Which side runs it: `kubernetes`, or any queue that a rule maps there, gives it a pod; else a Celery worker."""
    retries: int
    retry_delay: timedelta | float
    """A timedelta, or seconds."""
    trigger_rule: TriggerRule | str
    execution_timeout: timedelta | float | None
    """A timedelta, or seconds."""
    executor_config: ExecutorConfig | None
    """`pod_override` (a mapping or a V1Pod) and `pod_template_file` for a task that runs in a pod."""


NAMES = tuple(OperatorOptions.__annotations__)
EXECUTOR_CONFIG_KEYS = tuple(ExecutorConfig.__annotations__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOptions:
    """The options of one task, checked."""

    queue: str | None = None
    retries: int = 0
    retry_delay_s: float = 300.0
    trigger_rule: str = "all_success"
    execution_timeout_s: float | None = None
    pod_override: PodOverride | None = None
    """As the author wrote it: a mapping or a V1Pod."""
    pod_template_file: str | None = None


def read(where: str, given: Mapping[str, Any]) -> TaskOptions:
    """The options in `given`, whose names are known to be right. Raises InvalidDag that begins with `where`."""
    if not given:
        return TaskOptions()
    fields: dict[str, Any] = {}
    for name, value in given.items():
        fields.update(_READERS[name](f"{where}: {name}", value))
    return TaskOptions(**fields)


def _queue(where: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {"queue": None}
    if not isinstance(value, str):
        raise InvalidDag(f"{where} must be the name of a queue, a string, not {value!r}")
    names.checked_id(f"queue ({where})", value)
    # AMQP's short strings have 255 bytes, and Celery's -Q separates queues by commas.
    if "," in value or len(value.encode()) > MAX_QUEUE_LENGTH:
        raise InvalidDag(f"{where}: {value[:60]!r} cannot name a queue: no comma, at most {MAX_QUEUE_LENGTH} bytes")
    return {"queue": value}


def _retries(where: str, value: Any) -> dict[str, Any]:
    # True is an int in Python, and `retries=True` a mistake.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidDag(f"{where} must be an integer, 0 or more, not {value!r}")
    return {"retries": value}


def _retry_delay(where: str, value: Any) -> dict[str, Any]:
    return {"retry_delay_s": _seconds(where, value)}


def _trigger_rule(where: str, value: Any) -> dict[str, Any]:
    try:
        return {"trigger_rule": str(TriggerRule(value))}
    except ValueError:
        known = ", ".join(TriggerRule)
        raise InvalidDag(f"{where} {value!r} is not known; use one of {known}") from None


def _execution_timeout(where: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {"execution_timeout_s": None}
    seconds = _seconds(where, value)
    if seconds == 0:
        raise InvalidDag(f"{where} must be more than 0 seconds; leave it out for no limit")
    return {"execution_timeout_s": seconds}


def _executor_config(where: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidDag(f"{where} must be a mapping with {' or '.join(EXECUTOR_CONFIG_KEYS)}, not {value!r}")
    if LEGACY_KEY in value:
        from routing.authoring import legacy_config  # late: pod_parameters behind it would weigh on every pod

        modern = legacy_config.written_today(value[LEGACY_KEY])
        raise InvalidDag(f"{where}: the form {{'{LEGACY_KEY}': …}} is Airflow 1's; write executor_config={modern}")
    names.refuse_unknown(f"{where}: key", map(str, value), EXECUTOR_CONFIG_KEYS)
    override, template = value.get("pod_override"), value.get("pod_template_file")
    if template is not None and not hasattr(template, "__fspath__") and not (isinstance(template, str) and template):
        raise InvalidDag(f"{where}['pod_template_file'] must be a path or a template's name, not {template!r}")
    return {"pod_override": override, "pod_template_file": None if template is None else str(template)}


def _seconds(where: str, value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InvalidDag(f"{where} must be a timedelta or a number of seconds, 0 or more, not {value!r}")
    return float(value)


_READERS = {
    "queue": _queue,
    "retries": _retries,
    "retry_delay": _retry_delay,
    "trigger_rule": _trigger_rule,
    "execution_timeout": _execution_timeout,
    "executor_config": _executor_config,
}
