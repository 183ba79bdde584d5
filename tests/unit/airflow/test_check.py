"""What `podyard airflow check` says of an installation, without one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from routing.airflow import check, rules, versions
from routing.config import settings


def found(text: str = "") -> rules.Rules:
    read = settings.load(None, environ={}, cwd=Path("/nowhere"))
    if not text:
        return rules.of(read)
    return rules.Rules(router=type(read.router).from_mapping({"queues": {text: {"side": "kubernetes"}}}), source={})


DISPATCHER = check.Worker(queues=("kubernetes",), is_dispatcher=True)
WORKER = check.Worker(queues=("default",), is_dispatcher=False)
VERSIONS = versions.Versions(airflow="3.3.2", provider="3.26.0", celery="5.6.3")
GOOD = check.AirflowFacts(
    versions=VERSIONS,
    executor="routing.airflow.PodyardExecutor",
    broker="redis://:hunter2@broker:6379/0",
    results="redis://:hunter2@broker:6379/0",
    default_queue="default",
    queued_timeout_s=600,
    logging_config=check.LOG_CONFIG,
    is_remote_logging=False,
    api_url="http://api:8080/execution/",
    rules=found(),
    workers={"celery@a": WORKER, "dispatcher@b": DISPATCHER},
)


def test_an_installation_that_works_has_only_good_marks() -> None:
    """And tells no password."""
    findings = check.judge(GOOD)
    assert {finding.result for finding in findings} == {"ok"}
    assert check.is_usable(findings)
    assert "hunter2" not in str(findings)


@pytest.mark.parametrize(
    ("change", "name", "result", "words"),
    [
        ({"versions": replace(VERSIONS, airflow="3.4.0")}, "airflow", "warning", "newer than what was tried"),
        ({"versions": replace(VERSIONS, airflow="3.10.0")}, "airflow", "warning", "newer"),
        ({"executor": "CeleryExecutor"}, "executor", "wrong", "routing.airflow.PodyardExecutor"),
        ({"broker_trouble": "refused"}, "broker", "wrong", "refused"),
        ({"results": "db+postgresql://a:hunter2@db/x"}, "result backend", "wrong", "redis://"),
        ({"results_trouble": "refused"}, "result backend", "wrong", "refused"),
        ({"workers": {"celery@a": WORKER}}, "queue kubernetes", "wrong", "podyard dispatcher --airflow"),
        (
            {"workers": {"celery@a": check.Worker(queues=("default", "kubernetes"), is_dispatcher=False)}},
            "queue kubernetes",
            "wrong",
            "outside of pods",
        ),
        ({"workers": {"dispatcher@b": DISPATCHER}}, "queue default", "warning", "no Celery worker"),
        ({"rules": found("gpu-*")}, "queues gpu-*", "warning", "--queues NAME"),
        ({"logging_config": ""}, "logs", "warning", "logging_config_class"),
        ({"api_url": ""}, "execution API", "warning", "execution_api_server_url"),
    ],
)
def test_each_thing_that_is_missing_has_its_line(change: dict[str, Any], name: str, result: str, words: str) -> None:
    """With the way out, and without a password."""
    findings = check.judge(replace(GOOD, **change))
    (finding,) = [one for one in findings if one.check == name]
    assert (finding.result, words in finding.message) == (result, True)
    assert check.is_usable(findings) is (result != "wrong")
    assert "hunter2" not in str(findings)


def test_a_queue_of_a_pattern_is_consumed_by_name() -> None:
    """A dispatcher that was told of one shows it."""
    workers = {**GOOD.workers, "dispatcher@c": check.Worker(queues=("gpu-1",), is_dispatcher=True)}
    findings = check.judge(replace(GOOD, rules=found("gpu-*"), workers=workers))
    assert check.Finding("queues gpu-*", "ok", "pods; consumed by name: gpu-1") in findings


@pytest.mark.parametrize(
    ("image", "is_told"),
    [
        ("apache/airflow:3.3.2", False),
        ("apache/airflow:3.3.1-python3.12", False),
        ("registry.example/mirror/apache/airflow:slim-3.1.8", True),
        ("apache/airflow:3.1.8", True),
        ("apache/airflow:latest", False),
        ("registry.example/airflow-with-dags:1.2", False),
        ("", False),
    ],
)
def test_an_image_of_another_airflow_is_told(image: str, is_told: bool) -> None:
    """As far as its tag says so: tags of other makers mean what they want."""
    workers = {**GOOD.workers, "dispatcher@b": replace(DISPATCHER, images={"kubernetes": image})}
    found = [one for one in check.judge(replace(GOOD, workers=workers)) if one.check == "image"]
    assert [one.result for one in found] == (["warning"] if is_told else [])


def test_remote_logging_is_left_alone() -> None:
    """Whoever keeps logs in S3 goes on with that."""
    findings = check.judge(replace(GOOD, logging_config="", is_remote_logging=True))
    assert [finding.result for finding in findings if finding.check == "logs"] == ["ok"]


def test_without_a_broker_nobody_is_blamed() -> None:
    """Who consumes a queue is not known then."""
    findings = check.judge(replace(GOOD, broker_trouble="refused", workers={}))
    assert {one.check: one.result for one in findings if one.result == "wrong"} == {"broker": "wrong"}
