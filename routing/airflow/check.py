"""What is set in an Airflow installation that routes by queue, what is missing, and what will not work.

`judge` is pure: facts in, findings out. `podyard airflow check` gathers the facts by `routing.airflow.facts`, in the
environment of Airflow itself, and prints the findings.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dispatcher.manifests import redaction
from routing.airflow import rules, versions

EXECUTOR = "PodyardExecutor"
LOG_CONFIG = "routing.airflow.log_config.LOGGING_CONFIG"

_AIRFLOW_TAG = re.compile(r"(?:^|/)apache/airflow:(?:slim-)?(\d+\.\d+)")
"""Of Airflow's own images; how others are tagged is their makers' affair."""

Result = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A node of Celery that answers."""

    queues: tuple[str, ...]
    is_dispatcher: bool
    images: Mapping[str, str] = field(default_factory=dict)
    """Of a dispatcher: queue -> the image of its pods, as settings have it; empty: the template's."""


@dataclass(frozen=True, kw_only=True)
class AirflowFacts:
    """What is known of an installation."""

    versions: versions.Versions
    """Such that everything can be imported: what cannot is reported before facts are gathered."""
    executor: str
    """As `[core] executor` has it."""
    broker: str
    results: str
    default_queue: str
    queued_timeout_s: float
    logging_config: str
    is_remote_logging: bool
    api_url: str
    """`[core] execution_api_server_url`."""
    rules: rules.Rules
    broker_trouble: str | None = None
    results_trouble: str | None = None
    workers: Mapping[str, Worker] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    check: str
    result: Result
    message: str


def judge(facts: AirflowFacts) -> list[Finding]:
    """Everything that can be said, in the order in which an installation is set up."""
    return [
        _airflow(facts.versions),
        Finding("celery provider", "ok", f"{facts.versions.provider}, Celery {facts.versions.celery}"),
        _executor(facts),
        _broker(facts),
        _results(facts),
        *_queues(facts),
        *_images(facts),
        *_waits(facts),
        _logs(facts),
        _api(facts),
    ]


def is_usable(findings: Sequence[Finding]) -> bool:
    """Whether tasks can run; warnings do not forbid it."""
    return all(finding.result != "wrong" for finding in findings)


def _airflow(found: versions.Versions) -> Finding:
    if versions.numbers(found.airflow) > versions.NEWEST_AIRFLOW:
        tried = versions.text(versions.NEWEST_AIRFLOW)
        return Finding("airflow", "warning", f"{found.airflow} is newer than what was tried ({tried})")
    return Finding("airflow", "ok", found.airflow)


def _executor(facts: AirflowFacts) -> Finding:
    if EXECUTOR in facts.executor:
        return Finding("executor", "ok", facts.executor)
    return Finding(
        "executor", "wrong", f"is {facts.executor}: set [core] executor = routing.airflow.{EXECUTOR} and restart"
    )


def _broker(facts: AirflowFacts) -> Finding:
    if facts.broker_trouble:
        return Finding("broker", "wrong", f"{redaction.hide_text(facts.broker)}: {facts.broker_trouble}")
    return Finding("broker", "ok", redaction.hide_text(facts.broker))


def _results(facts: AirflowFacts) -> Finding:
    shown = redaction.hide_text(facts.results)
    if facts.results.startswith("db+"):
        return Finding(
            "result backend",
            "wrong",
            f"{shown} is a database: a dispatcher on Celery 5.7 refuses it, since its results would end this scheduler"
            f" (Celery {facts.versions.celery}); set [celery] result_backend = redis://…",
        )
    if facts.results_trouble:
        return Finding("result backend", "wrong", f"{shown}: {facts.results_trouble}")
    return Finding("result backend", "ok", shown)


def _queues(facts: AirflowFacts) -> Iterator[Finding]:
    """One finding for each queue of pods, one for the default queue, one for each pattern."""
    for rule in facts.rules.router.rules:
        if rule.side == "kubernetes" and not rule.is_pattern:
            yield _pod_queue(rule.name, facts)
    for rule in facts.rules.router.rules:
        if rule.side == "kubernetes" and rule.is_pattern:
            yield _pattern(rule.name, facts)
    if facts.broker_trouble is None and not facts.rules.is_pod_queue(facts.default_queue):
        consumers = [name for name, worker in facts.workers.items() if facts.default_queue in worker.queues]
        yield (
            Finding(f"queue {facts.default_queue}", "ok", f"Celery workers: {', '.join(sorted(consumers))}")
            if consumers
            else Finding(
                f"queue {facts.default_queue}", "warning", "no Celery worker consumes it: airflow celery worker"
            )
        )


def _pod_queue(queue: str, facts: AirflowFacts) -> Finding:
    what = f"queue {queue}"
    if facts.broker_trouble is not None:
        return Finding(what, "warning", "pods; who consumes it is not known, the broker does not answer")
    consumers = {name: worker for name, worker in facts.workers.items() if queue in worker.queues}
    strangers = sorted(name for name, worker in consumers.items() if not worker.is_dispatcher)
    if strangers:
        return Finding(
            what,
            "wrong",
            f"{', '.join(strangers)} consumes it and would run its tasks outside of pods: leave it out there",
        )
    if not consumers:
        missing = f"pods; no dispatcher consumes it, its tasks wait until they are stuck: {rules.START}"
        return Finding(what, "wrong", missing)
    return Finding(what, "ok", f"pods; {', '.join(sorted(consumers))}")


def _pattern(pattern: str, facts: AirflowFacts) -> Finding:
    named = sorted(
        queue
        for worker in facts.workers.values()
        if worker.is_dispatcher
        for queue in worker.queues
        if facts.rules.pattern_of(queue) == pattern
    )
    if named:
        return Finding(f"queues {pattern}", "ok", f"pods; consumed by name: {', '.join(dict.fromkeys(named))}")
    return Finding(
        f"queues {pattern}",
        "warning",
        f"pods; a dispatcher consumes a queue of a pattern by name: {rules.START} --queues NAME",
    )


def _images(facts: AirflowFacts) -> Iterator[Finding]:
    """One finding for each image whose tag names another release of Airflow; pods must have the API server's."""
    images = {image for worker in facts.workers.values() for image in worker.images.values()}
    for image in sorted(images):
        found = _AIRFLOW_TAG.search(image)
        if found is not None and versions.numbers(found[1]) != versions.numbers(facts.versions.airflow):
            problem = (
                f"by its tag Airflow {found[1]}, here is {facts.versions.airflow}: pods need the API server's release"
            )
            yield Finding("image", "warning", f"{image} is {problem}")


def _waits(facts: AirflowFacts) -> Iterator[Finding]:
    lines = rules.too_long(facts.rules, queued_timeout_s=facts.queued_timeout_s)
    if not lines:
        yield Finding("time limits", "ok", f"Airflow takes a task back after {facts.queued_timeout_s:g} s of waiting")
    for line in lines:
        yield Finding("time limits", "warning", line)


def _logs(facts: AirflowFacts) -> Finding:
    if facts.is_remote_logging:
        return Finding("logs", "ok", "remote logging of Airflow; pods need its settings, too")
    if facts.logging_config == LOG_CONFIG:
        return Finding("logs", "ok", "of running and finished pods, from the dispatchers")
    return Finding(
        "logs",
        "warning",
        "of running pods only: for finished ones set [logging] logging_config_class ="
        f" {LOG_CONFIG} in the API server, or use remote logging",
    )


def _api(facts: AirflowFacts) -> Finding:
    if facts.api_url:
        return Finding("execution API", "ok", facts.api_url)
    return Finding(
        "execution API",
        "warning",
        "[core] execution_api_server_url is not set: pods would look for the API server on their own host",
    )
