"""Events are read as they come, oldest first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.status import pod_events

ITEMS = [
    {
        "type": "Warning",
        "reason": "FailedMount",
        "message": "no\n such  volume",
        "lastTimestamp": "2030-01-01T00:00:02Z",
    },
    {"type": "Normal", "reason": "Pulled", "message": "pulled", "eventTime": "2030-01-01T00:00:01Z"},
    {"type": "Warning", "reason": "BackOff", "count": 3, "lastTimestamp": "2030-01-01T00:00:03Z", "message": "m"},
]


def test_they_are_in_the_order_of_their_times() -> None:
    lines = [event.line for event in pod_events.read(ITEMS)]
    assert lines == [
        "2030-01-01T00:00:01Z Normal Pulled: pulled",
        "2030-01-01T00:00:02Z Warning FailedMount: no such volume",
        "2030-01-01T00:00:03Z Warning BackOff (x3): m",
    ]


def _told(reason: str | None, *events: tuple[str, str], message: str = "") -> str | None:
    read = [pod_events.Event(at="", reason=name, message=text, is_warning=True) for name, text in events]
    found = pod_events.telling(read, reason=reason, message=message)
    return found and found.reason


SCHEDULING = ("FailedScheduling", "0/1 nodes are available: 1 Insufficient memory")
DNS = ("DNSConfigForming", "Search Line limits were exceeded, some search paths have been omitted")
MOUNT = ("FailedMount", 'MountVolume.SetUp failed for volume "data": timed out waiting for the condition')
PROBE = ("Unhealthy", "Liveness probe failed: connection refused")


@pytest.mark.parametrize("reason", ["Error", "OOMKilled", "NoOutcome", "DeadlineExceeded", None])
def test_what_a_pod_got_over_is_not_quoted_beside_how_its_process_ended(reason: str | None) -> None:
    """A FailedScheduling of an hour ago, a mount that worked in the end, a notice about DNS."""
    reason = reason or "SomethingNew"
    assert _told(reason, SCHEDULING, MOUNT, DNS) is None
    assert _told(reason, SCHEDULING, PROBE, DNS) == "Unhealthy"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Unschedulable", "FailedScheduling"),
        ("NotStarted", "FailedMount"),
        ("ContainerCreating", "FailedMount"),
        ("FailedMount", "FailedMount"),
        ("ErrImagePull", None),
    ],
)
def test_each_stage_has_warnings_of_its_own(reason: str, expected: str | None) -> None:
    assert _told(reason, SCHEDULING, MOUNT, DNS) == expected


def test_a_warning_that_says_the_same_is_not_said_twice() -> None:
    """The kubelet writes its message into the status and into an event, with another beginning."""
    text = 'rpc error: code = NotFound desc = failed to resolve reference "registry.example/x:1": not found'
    same = ("Failed", f'Failed to pull image "registry.example/x:1": {text}')
    secret = (
        "FailedToRetrieveImagePullSecret",
        "Unable to retrieve some image pull secrets (regcred); attempting to pull the image may not succeed.",
    )
    assert _told("ErrImagePull", same, ("Failed", "Error: ErrImagePull"), message=f"ErrImagePull, {text}") is None
    assert _told("ErrImagePull", secret, same, message=f"ErrImagePull, {text}") == secret[0]


def test_the_newest_that_belongs_is_quoted_and_normal_events_never() -> None:
    events = pod_events.read(ITEMS)
    found = pod_events.telling(events, reason="NotStarted", message="it did not start")
    assert found is not None
    assert found.reason == "FailedMount"
    assert pod_events.telling([], reason="NotStarted", message="") is None


@given(
    st.dictionaries(
        st.sampled_from(["type", "reason", "message", "count", "lastTimestamp", "eventTime"]),
        st.none() | st.integers() | st.text(max_size=5),
    )
)
def test_no_event_makes_it_raise(item: dict[str, object]) -> None:
    assert pod_events.read([item])[0].line
