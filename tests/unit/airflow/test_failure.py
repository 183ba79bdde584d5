"""A stored exception in words for Airflow's users."""

import re

import pytest
from celery.exceptions import TaskRevokedError

from dispatcher import errors
from dispatcher.status import reasons
from routing.airflow import failure

RUNS_THERE = ("podyard config check", "podyard airflow check")
"""Commands that need no record of Podyard's own, which an Airflow installation does not have."""


def test_a_failed_pod_says_what_and_what_to_do() -> None:
    """In one line."""
    error = errors.PodFailed("the pod x failed:\nOOMKilled", {"reason": "OOMKilled", "what_to_do": "give it memory"})
    assert failure.of(error) == failure.Failure(text="the pod x failed: OOMKilled", remedy="give it memory")


def test_a_class_that_this_process_lacks_is_read_all_the_same() -> None:
    """Celery makes a class of the same name, with the arguments as they were."""
    other = type("PodFailed", (Exception,), {})("the pod x failed", {"reason": "Evicted"})
    assert failure.of(other).text == "the pod x failed"


def test_other_exceptions_are_named() -> None:
    """Their text alone often says nothing."""
    assert failure.of(KeyError("price")).text == "KeyError: price"
    assert failure.of(ValueError()).text == "ValueError"


def test_an_expired_token_is_no_failure_of_the_task() -> None:
    """Neither where Celery dropped the message, nor where the pod came too late."""
    assert failure.of(TaskRevokedError("expired")).is_expired
    assert failure.of(errors.PodFailed("late", {"reason": failure.EXPIRED})).is_expired
    assert not failure.of(TaskRevokedError("revoked")).is_expired
    assert not failure.of(errors.PodFailed("expired", {"reason": "Evicted"})).is_expired


@pytest.mark.parametrize("known", reasons.TABLE, ids=lambda known: known.reasons[0])
def test_each_remedy_is_one_that_works_in_airflow(known: reasons.Known) -> None:
    """No command that asks a record which is not there, and no setting that Airflow's tasks do not have."""
    said = failure.in_airflow(known.to_do)
    assert set(re.findall(r"podyard [a-z]+ [a-z]+", said)) <= set(RUNS_THERE), said
    for word in ("infra_retries", "retry_on_worker_lost"):
        assert word not in said


def test_a_remedy_stays_a_sentence() -> None:
    """Whatever was taken out of it."""
    assert failure.in_airflow("its log says why: `podyard tasks logs`") == "its log says why"
    assert failure.in_airflow("check results.url: `podyard config check`") == (
        "check results.url: `podyard config check`, where the dispatcher runs"
    )
    assert failure.in_airflow("give it a role; `podyard config check` tells what it lacks") == (
        "give it a role; `podyard config check`, where the dispatcher runs, tells what it lacks"
    )
