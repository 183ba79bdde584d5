"""A stored exception in words for Airflow's users."""

from celery.exceptions import TaskRevokedError

from dispatcher import errors
from routing.airflow import failure


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
