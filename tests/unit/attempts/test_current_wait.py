"""What an attempt waits for now, and since when."""

from typing import Any

import pytest

from dispatcher.attempts import current_wait
from dispatcher.attempts.limits import BlockedReason
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.attempts.wait_rules import Rule
from dispatcher.options import QueueProfile
from dispatcher.status.pod_events import Event
from tests import builders

SCHEDULED = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}


def waiting(reason: str, **fields: Any) -> dict[str, Any]:
    """The status of a pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": "m"}}
    return {**SCHEDULED, "containerStatuses": [{"name": "base", "state": state}], **fields}


@pytest.fixture
def attempts() -> Attempts:
    """The attempts of a test."""
    return Attempts(is_strict=True)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("QuotaExceeded", "quota"),
        ("QueueLimit", "slot"),
        ("TooManyRequests", "api_server"),
        ("PodLeaving", "old_pod"),
        ("ResultBackendUnavailable", "results"),
        ("SomethingNew", "slot"),
    ],
)
def test_without_a_pod_the_launchers_reason_says_what_it_waits_for(attempts: Attempts, reason: str, kind: str) -> None:
    """Since the first time it did, however often the reasons change in between."""
    one = builders.queued(attempts)
    attempts.block(one, BlockedReason(reason, "text"))
    found = current_wait.look(one, now_mono_s=1.0)
    assert found is not None
    assert (found.kind, found.reason, found.detail, found.since_mono_s) == (kind, reason, "text", 1.0)
    attempts.block(one, BlockedReason("CreateRate" if kind != "slot" else "QuotaExceeded", ""))
    current_wait.look(one, now_mono_s=5.0)
    attempts.block(one, BlockedReason(reason, "text"))
    again = current_wait.look(one, now_mono_s=9.0)
    assert again is not None
    assert again.since_mono_s == 1.0


@pytest.mark.parametrize("state", [State.RUNNING, State.COLLECTING, State.ENDED, State.CLOSED])
def test_what_has_started_waits_for_nothing(attempts: Attempts, state: State) -> None:
    """No deadline of a start can end it."""
    assert current_wait.look(builders.in_state(attempts, state), now_mono_s=1.0) is None


def test_a_launch_under_way_waits_only_where_something_holds_it(attempts: Attempts) -> None:
    """Such as a result backend that is away."""
    one = builders.in_state(attempts, State.LAUNCHING)
    assert current_wait.look(one, now_mono_s=1.0) is None
    attempts.block(one, BlockedReason("ResultBackendUnavailable", "gone"))
    found = current_wait.look(one, now_mono_s=2.0)
    assert found is not None
    assert found.kind == "results"


@pytest.mark.parametrize(
    ("status", "kind", "since_mono_s"),
    [
        ({"phase": "Pending"}, "unschedulable", 5.0),
        (SCHEDULED, "start", 7.0),
        (waiting("ContainerCreating"), "start", 7.0),
        (waiting("ImagePullBackOff"), "image", 7.0),
    ],
)
def test_a_pod_waits_for_a_node_and_then_for_its_start(
    attempts: Attempts, status: dict[str, Any], kind: str, since_mono_s: float
) -> None:
    """The one counts from the pod's creation, the other from the node."""
    one = builders.launched(attempts, created_mono_s=5.0)
    attempts.saw(one, builders.seen(one, status, now_mono_s=7.0), uid="u")
    found = current_wait.look(one, now_mono_s=20.0)
    assert found is not None
    assert (found.kind, found.since_mono_s, found.rule.after_s) == (kind, since_mono_s, 3600.0)


def test_a_rule_of_the_queue_counts_from_the_first_sight(attempts: Attempts) -> None:
    """The time before it was seen belongs to other waits."""
    profile = QueueProfile(waits={"image": "fail after 10m"})
    one = builders.launched(attempts, profile=profile, queue="q")
    attempts.saw(one, builders.seen(one, waiting("ImagePullBackOff"), now_mono_s=7.0), uid="u")
    found = current_wait.look(one, now_mono_s=20.0)
    assert found is not None
    assert (found.since_mono_s, found.rule, found.said_by) == (
        20.0,
        Rule(action="fail", after_s=600.0),
        "waits.image of the queue q",
    )


@pytest.mark.parametrize(
    ("reason", "waits", "expected"),
    [
        ("FailedMount", {}, ("volume", "FailedMount", "text")),
        ("Pulling", {}, ("start", None, "Pulling: text")),
        ("Pulling", {"image": "wait"}, ("image", "Pulling", "text")),
        ("Warned", {}, ("start", None, "Warned: text")),
    ],
)
def test_events_say_more_of_a_start_than_its_status(
    attempts: Attempts, reason: str, waits: dict[str, str], expected: Any
) -> None:
    """A volume that cannot be mounted is known from nothing else."""
    one = builders.launched(attempts, profile=QueueProfile(waits=waits))
    attempts.saw(one, builders.seen(one, SCHEDULED), uid="u")
    attempts.hinted(one, Event(at="2026-01-01T00:00:05Z", reason=reason, message="text", is_warning=True, count=1))
    found = current_wait.look(one, now_mono_s=1.0)
    assert found is not None
    assert (found.kind, found.reason, found.detail) == expected


def test_a_queue_can_give_time_to_what_kubernetes_calls_a_failure(attempts: Attempts) -> None:
    """Without a rule it fails at once; a container that has ended fails in any case."""
    strict = builders.launched(attempts)
    assert builders.seen(strict, waiting("ErrImagePull")).seen.verdict == "failed"
    patient = builders.launched(attempts, profile=QueueProfile(waits={"image": "fail after 5m"}))
    assert builders.seen(patient, waiting("ErrImagePull")).seen.verdict == "none"
    assert builders.seen(patient, waiting("CreateContainerConfigError")).seen.verdict == "failed"
    assert builders.seen(patient, builders.ended(1)).seen.verdict == "failed"
