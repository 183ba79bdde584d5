"""The row that people read of an attempt: what it is now, and never that it runs once it has ended."""

from datetime import timedelta
from typing import Any

import pytest

from dispatcher.attempts import current_wait, endings, status_row
from dispatcher.attempts.attempt import Attempt, Closed
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from tests import builders

NOW = status_row.Instant(builders.START + timedelta(seconds=60), 100.0)
FINAL = {"Succeeded", "Failed", "Lost", "Revoked"}


@pytest.fixture
def attempts() -> Attempts:
    """The attempts of a test."""
    return Attempts(is_strict=True)


def row(one: Attempt) -> Any:
    """Its row now."""
    return status_row.row(one, deployment="d", owner="me@host", now=NOW)


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (State.QUEUED, "Waiting"),
        (State.PARKED, "Waiting"),
        (State.LAUNCHING, "Waiting"),
        (State.EXPIRING_LAUNCH, "Waiting"),
        (State.PENDING, "Pending"),
        (State.EXPIRING_POD, "Pending"),
        (State.RUNNING, "Running"),
        (State.COLLECTING, "Succeeded"),
        (State.ENDED, "Succeeded"),
    ],
)
def test_each_state_has_its_phase(attempts: Attempts, state: State, phase: str) -> None:
    """In Kubernetes' words, and one of ours before there is a pod."""
    assert row(builders.in_state(attempts, state)).phase == phase


def test_a_wait_stands_in_the_row_with_its_times(attempts: Attempts) -> None:
    """By the clock of people."""
    one = builders.queued(attempts)
    attempts.block(one, BlockedReason("QuotaExceeded", "pods"))
    attempts.waits(one, current_wait.look(one, now_mono_s=90.0))
    found = row(one)
    assert (found.reason, found.message, found.at_deadline) == ("QuotaExceeded", "pods", "wait")
    assert found.waiting_since == NOW.at - timedelta(seconds=10)
    assert found.deadline_at == NOW.at + timedelta(seconds=3590)


def running(attempts: Attempts) -> Attempt:
    """One that the record says runs."""
    one = builders.in_state(attempts, State.RUNNING)
    assert row(one).phase == "Running"
    return one


def revoked(attempts: Attempts, one: Attempt) -> None:
    """Celery ended it while its container ran."""
    attempts.close(one, Closed.TERMINATED, endings.revoked(one))


def vanished(attempts: Attempts, one: Attempt) -> None:
    """Its pod is not there any more."""
    attempts.end(one, endings.deleted(one))


def ended_and_kept(attempts: Attempts, one: Attempt) -> None:
    """Its pod stays, with a sidecar that runs on: the phase of the pod remains Running."""
    status = {**builders.ended(1), "phase": "Running"}
    attempts.saw(one, builders.seen(one, status), uid="u")
    attempts.end(one, endings.of_pod())


def ended_before_its_pod_said_so(attempts: Attempts, one: Attempt) -> None:
    """The last that was seen of its pod is that it runs."""
    attempts.end(one, endings.of_pod())


def lost(attempts: Attempts, one: Attempt) -> None:
    """Nobody can say."""
    attempts.end(one, endings.lost(one, "other@host"))


@pytest.mark.parametrize("how", [revoked, vanished, ended_and_kept, ended_before_its_pod_said_so, lost])
def test_a_row_never_says_running_after_the_end(attempts: Attempts, how: Any) -> None:
    """Neither when it ends, nor when it is closed."""
    one = running(attempts)
    how(attempts, one)
    assert row(one).phase in FINAL
    attempts.close(one, Closed.STORED)
    assert row(one).phase in FINAL


def test_what_was_revoked_before_its_pod_has_no_end_of_a_pod(attempts: Attempts) -> None:
    """There was none."""
    one = builders.queued(attempts)
    attempts.close(one, Closed.WITHDRAWN, endings.revoked(one))
    found = row(one)
    assert (found.phase, found.reason, found.uid, found.ended_at) == ("Revoked", "Revoked", None, None)


def test_a_pod_that_vanished_ended_now_at_the_latest(attempts: Attempts) -> None:
    """Its start is kept."""
    one = running(attempts)
    started_at = one.started_at
    vanished(attempts, one)
    found = row(one)
    assert (found.started_at, found.ended_at, found.reason) == (started_at, NOW.at, "PodDeleted")


def test_an_init_container_that_failed_is_named(attempts: Attempts) -> None:
    """The row has no other place for it, and "Error, exit code 9" alone reads like the task's own."""
    one = builders.launched(attempts)
    state = {"terminated": {"exitCode": 9, "reason": "Error", "message": "no such bucket"}}
    status = {"phase": "Failed", "initContainerStatuses": [{"name": "fetch", "state": state}]}
    attempts.saw(one, builders.seen(one, status), uid="u")
    found = row(one)
    assert (found.phase, found.reason, found.message) == ("Failed", "Error", "container fetch: no such bucket")


def test_a_row_says_whether_its_end_is_reported(attempts: Attempts) -> None:
    """Not before the outcome is stored: until then its pod would be missed if it vanished."""
    one = builders.in_state(attempts, State.ENDED)
    assert (row(one).phase, row(one).reported_at) == ("Succeeded", None)
    attempts.close(one, Closed.STORED)
    assert row(one).reported_at == NOW.at
