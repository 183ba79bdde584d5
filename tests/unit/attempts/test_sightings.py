"""What a pod says of its attempt: only its own pod, completed by what it said before."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.attempts import sightings
from dispatcher.attempts.registry import Attempts
from dispatcher.manifests import builder
from dispatcher.protocol.message import Message
from tests import builders

AT_1S, AT_2S = (datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 2))


def test_a_pod_is_an_attempts_by_key_and_uid() -> None:
    """Neither an older pod of the same name, nor that of another launch of the same task."""
    attempts = Attempts(is_strict=True)
    one, fresh = builders.launched(attempts), builders.queued(attempts)
    pod = builders.pod_of(one)
    assert sightings.is_of(one, pod)
    assert sightings.is_of(fresh, builders.pod_of(fresh)), "no uid is known yet"
    assert not sightings.is_of(one, builders.pod_of(one, uid="another"))
    assert not sightings.is_of(fresh, pod)
    pod["metadata"]["annotations"]["podyard.dev/retries"] = "1"
    assert not sightings.is_of(one, pod)


@pytest.mark.parametrize("annotations", [None, {}, {"podyard.dev/attempt-id": "a", "podyard.dev/retries": "x"}])
def test_a_pod_that_says_nonsense_is_nobodys(annotations: Any) -> None:
    """And raises nothing."""
    one = builders.launched(Attempts(is_strict=True))
    assert not sightings.is_of(one, builders.pod_of(one, annotations=annotations))


def test_the_start_that_was_seen_first_stands() -> None:
    """A kubelet that restarts may tell another one; an end without a start takes what is known."""
    attempts = Attempts(is_strict=True)
    one = builders.launched(attempts)
    first = builders.seen(one, builders.running(), now_mono_s=1.0)
    assert (first.started_at, first.ended_at, first.phase, first.at_mono_s) == (AT_1S, None, "Running", 1.0)
    attempts.saw(one, first, uid="u")
    later = builders.seen(one, builders.running("2026-01-01T00:00:09Z"), now_mono_s=2.0)
    assert later.started_at == AT_1S
    last = builders.seen(one, builders.ended())
    assert (last.started_at, last.ended_at, last.seen.verdict) == (AT_1S, AT_2S, "succeeded")


def test_a_pod_that_waits_has_not_started() -> None:
    """Whatever its phase."""
    one = builders.launched(Attempts(is_strict=True))
    found = builders.seen(one, {"phase": "Pending"})
    assert (found.started_at, found.seen.verdict, found.is_last) == (None, "none", False)


def test_when_the_node_was_known_first_is_remembered() -> None:
    """The time of a start counts from there."""
    attempts = Attempts(is_strict=True)
    one = builders.launched(attempts)
    scheduled = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
    assert builders.seen(one, now_mono_s=1.0).scheduled_mono_s is None
    attempts.saw(one, builders.seen(one, scheduled, now_mono_s=2.0), uid="u")
    assert builders.seen(one, scheduled, now_mono_s=3.0).scheduled_mono_s == 2.0
    assert builders.seen(one, now_mono_s=4.0).scheduled_mono_s == 2.0


@pytest.mark.parametrize(
    ("started", "ended", "expected"),
    [
        ("2025-12-31T23:00:00Z", "2025-12-31T23:30:00Z", (builders.START, builders.START)),
        ("2026-01-01T00:00:02Z", "2026-01-01T00:00:01Z", (AT_2S, AT_2S)),
        ("2026-01-01T00:00:01Z", None, (AT_1S, None)),
        (None, "2026-01-01T00:00:02Z", (None, AT_2S)),
        ("yesterday", "2026-01-01T01:00:02+01:00", (None, AT_2S)),
    ],
)
def test_times_of_a_node_whose_clock_is_off_are_bounded(started: str, ended: str, expected: Any) -> None:
    """A start before the pod was made, or after the end, cannot have been."""
    one = builders.launched(Attempts(is_strict=True))
    found = sightings.observation.Observation(verdict="succeeded", started_at=started, ended_at=ended)
    assert sightings.times(found, created=builders.pod_of(one)["metadata"]["creationTimestamp"]) == expected


def test_a_deleted_pod_is_the_last_that_is_seen() -> None:
    """What left our selector has no deletion timestamp."""
    one = builders.launched(Attempts(is_strict=True))
    assert builders.seen(one, kind="DELETED").seen.verdict == "gone"
    pod = builders.pod_of(one, deletionTimestamp="2026-01-01T00:00:05Z")
    found = sightings.sighting(one, pod, "DELETED", now_mono_s=0.0)
    assert (found.is_last, found.seen.verdict, found.seen.cause) == (True, "failed", "infrastructure")


def test_a_result_sidecar_is_awaited_from_the_first_time_it_is_missing() -> None:
    """Not again from each event, and not from a pod that is gone."""
    attempts = Attempts(is_strict=True)
    asked = {"name": "a", "image": "i", "do_xcom_push": True}
    one = builders.launched(attempts, message=Message(name=builder.ANY_IMAGE_TASK, id="a", kwargs=asked))
    running = {**builders.ended(), "phase": "Running"}
    attempts.saw(one, builders.seen(one, running, now_mono_s=5.0), uid="u")
    assert builders.seen(one, running, now_mono_s=9.0).result_awaited_mono_s == 5.0
    assert builders.seen(one, running, kind="MODIFIED").is_result_awaited
    assert not builders.seen(one, running, kind="DELETED").is_result_awaited
