"""Every way to end without a word of the pod names its reason, whose fault it is, and the pod."""

import pytest

from dispatcher import errors
from dispatcher.attempts import endings, wait_rules
from dispatcher.attempts.attempt import Attempt
from dispatcher.attempts.registry import Attempts
from dispatcher.status import observation
from tests import builders


@pytest.fixture
def attempt() -> Attempt:
    """One with a pod."""
    return builders.launched(Attempts(is_strict=True), task_id="a")


def details(ending: endings.Ending) -> dict[str, object]:
    """What programs may know of it."""
    assert isinstance(ending.result, errors.PodFailed)
    return dict(ending.result.details)


def test_a_refusal_is_the_applications_unless_it_says_otherwise(attempt: Attempt) -> None:
    """A PodFailed keeps its own words."""
    found = endings.refused(attempt, ValueError("no such template"))
    assert details(found) == {"reason": "ValueError", "cause": "application", "pod": "pod-a"}
    assert (found.phase, found.reason, found.cause) == ("Failed", "ValueError", "application")
    own = errors.PodFailed("taken", {"reason": "NameTaken", "cause": "infrastructure"})
    assert endings.refused(attempt, own).result is own


def test_what_is_lost_or_deleted_is_the_infrastructures(attempt: Attempt) -> None:
    """Nobody can say whether it ran, so it is not the author's to pay for."""
    lost, deleted = endings.lost(attempt, "d@h"), endings.deleted(attempt)
    assert details(lost) == {"reason": "PodLost", "cause": "infrastructure", "pod": "pod-a"}
    assert details(deleted) == {"reason": "PodDeleted", "cause": "infrastructure", "pod": "pod-a"}
    assert (lost.phase, lost.is_pod_gone) == ("Lost", False)
    assert (deleted.phase, deleted.is_pod_gone) == ("Failed", True)


def test_a_revocation_before_and_after_the_pod_is_told_apart(attempt: Attempt) -> None:
    """Celery stores the result itself: there is none here."""
    before = endings.revoked(builders.attempt())
    after = endings.revoked(attempt)
    assert (before.phase, before.result) == ("Revoked", None)
    assert (after.phase, after.reason, after.result) == ("Failed", "Revoked", None)


@pytest.mark.parametrize(("action", "cause"), [("retry", "infrastructure"), ("fail", "application")])
def test_a_deadline_names_the_wait_its_rule_and_what_to_do(
    attempt: Attempt, action: wait_rules.Action, cause: str
) -> None:
    """Whose budget pays is the rule's to say."""
    wait = wait_rules.Wait(
        kind="image",
        reason="ImagePullBackOff",
        detail="no such tag",
        since_mono_s=0.0,
        rule=wait_rules.Rule(action=action, after_s=600.0),
        said_by="waits.image of the queue q",
    )
    failure = endings.too_late(attempt, wait)
    assert (failure.details["reason"], failure.details["cause"]) == ("ImagePullBackOff", cause)
    assert failure.details["waited_for"] == "image"
    for words in ("pod-a", "10 m", "waits.image of the queue q", "no such tag", "check the image's name"):
        assert words in str(failure)


def test_a_diagnosis_is_made_once(attempt: Attempt) -> None:
    """A failure that has one stays as it is, and keeps its kind."""
    seen = observation.Observation(verdict="failed", reason="OOMKilled", exit_code=137, cause="application")
    found = endings.diagnosed(errors.PodSkipped("x", endings.details(attempt, seen)))
    assert type(found) is errors.PodSkipped
    assert found.details["exit_code"] == 137
    assert {"explanation", "what_to_do"} <= found.details.keys()
    assert endings.diagnosed(found) is found
