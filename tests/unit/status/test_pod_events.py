"""Events are read as they come, oldest first."""

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


def test_the_last_warning_is_the_newest() -> None:
    found = pod_events.last_warning(pod_events.read(ITEMS))
    assert found is not None
    assert found.reason == "BackOff"
    assert pod_events.last_warning([]) is None


@given(
    st.dictionaries(
        st.sampled_from(["type", "reason", "message", "count", "lastTimestamp", "eventTime"]),
        st.none() | st.integers() | st.text(max_size=5),
    )
)
def test_no_event_makes_it_raise(item: dict[str, object]) -> None:
    assert pod_events.read([item])[0].line
