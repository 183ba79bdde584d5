"""Which limits bind a pod, under which keys, and what people read of one that is reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.attempts import limits, wait_rules
from dispatcher.attempts.limits import BlockedReason, Limits

NAMES = st.text("al/.-", min_size=1, max_size=6)


def test_a_pod_is_bound_by_its_queue_and_by_what_the_settings_limit() -> None:
    """The narrowest first; a namespace without a limit binds nobody."""
    found = Limits(overall=9, by_namespace={"a": 3})
    assert found.binding(queue="q", namespace="a", max_pods=5) == [("queue/q", 5), ("namespace/a", 3), ("all", 9)]
    assert found.binding(queue="q", namespace="b", max_pods=5) == [("queue/q", 5), ("all", 9)]
    assert Limits().binding(queue="q", namespace="a", max_pods=5) == [("queue/q", 5)]


def test_a_limit_of_nothing_is_a_limit() -> None:
    """It holds a namespace, or everything, back."""
    found = Limits(overall=0, by_namespace={"a": 0})
    assert found.binding(queue="q", namespace="a", max_pods=0) == [("queue/q", 0), ("namespace/a", 0), ("all", 0)]
    assert (found.of_key("all"), found.of_key("namespace/a")) == (0, 0)


def test_what_has_no_limit_says_so() -> None:
    """None is no number."""
    assert (Limits().of_key("all"), Limits(by_namespace={"a": 1}).of_key("namespace/b")) == (None, None)


@given(queue=NAMES, namespace=NAMES, max_pods=st.integers(0), overall=st.integers(0))
def test_every_key_that_binds_is_counted_and_read_back(queue: str, namespace: str, max_pods: int, overall: int) -> None:
    """Whatever the names are: a queue named `all`, or one with a slash, is none of the other keys."""
    found = Limits(overall=overall, by_namespace={namespace: 7})
    binding = found.binding(queue=queue, namespace=namespace, max_pods=max_pods)
    keys = limits.keys(queue, namespace)
    assert [key for key, _ in binding] == list(keys)
    assert len(set(keys)) == 3
    assert [limits.queue_of(key) for key in keys] == [queue, None, None]
    assert [found.of_key(key) for key in keys[1:]] == [7, overall]


@pytest.mark.parametrize(
    ("key", "reason", "setting"),
    [
        (limits.queue_key("a/b"), "QueueLimit", "max_pods of the queue a/b is 5"),
        (limits.namespace_key("team"), "NamespaceLimit", "max_pods of the namespace team is 5"),
        (limits.ALL, "OverallLimit", "kubernetes.max_pods is 5"),
    ],
)
def test_a_limit_that_is_reached_names_the_setting_and_who_has_the_slots(key: str, reason: str, setting: str) -> None:
    """So that people know which one to raise, or on whom they wait."""
    held = limits.full(key, 5, here=3, others=2)
    assert held == BlockedReason(reason, f"{setting}: 3 pods of this dispatcher, 2 slots of other dispatchers")


def test_every_reason_of_a_limit_is_a_wait_for_a_slot() -> None:
    """With a rule and a deadline of that kind."""
    reasons = {limits.full(key, 1, here=1, others=0).reason for key in limits.keys("q", "n")}
    assert reasons <= limits.SLOT_REASONS
    kinds = {wait_rules.kind_of(reason=one, is_pod=False, is_scheduled=False) for one in limits.SLOT_REASONS}
    assert kinds == {"slot"}
