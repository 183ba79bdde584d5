"""What is remembered of pods that are done with: enough, and never without a bound."""

import pytest

from dispatcher.attempts import seen_pods
from dispatcher.attempts.seen_pods import SeenPods


def test_a_closed_pod_is_known_until_its_deletion_is_seen() -> None:
    """Its last events are no news."""
    seen = SeenPods()
    seen.close("u", "n", at_mono_s=1.0)
    assert seen.is_closed("u")
    seen.deleted("u")
    assert not seen.is_closed("u")
    assert len(seen) == 0


def test_a_lost_deletion_is_made_up_for_by_the_list_of_its_own_namespace() -> None:
    """A list of another namespace says nothing, nor one that was asked for before the pod was closed."""
    seen = SeenPods()
    seen.close("a", "one", at_mono_s=10.0)
    seen.close("b", "two", at_mono_s=10.0)
    seen.close("c", "one", at_mono_s=10.0)
    seen.listed("one", [], asked_mono_s=9.0)
    assert len(seen) == 3
    seen.listed("one", ["c"], asked_mono_s=11.0)
    assert [seen.is_closed(uid) for uid in "abc"] == [False, True, True]
    seen.listed("two", [], asked_mono_s=12.0)
    assert [seen.is_closed(uid) for uid in "abc"] == [False, False, True]


def test_memory_is_bounded_whatever_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones that were closed the longest ago go first; one that is closed again counts as new."""
    monkeypatch.setattr(seen_pods, "MOST_CLOSED", 3)
    seen = SeenPods()
    for number, uid in enumerate(["a", "b", "c", "a", "d"]):
        seen.close(uid, f"n{number}", at_mono_s=float(number))
    assert len(seen) == 3
    assert [uid for uid in "abcd" if seen.is_closed(uid)] == ["a", "c", "d"]


def test_a_pod_that_goes_for_a_requeue_frees_its_name() -> None:
    """One that was stored does not: another delivery of it is done with."""
    seen = SeenPods()
    seen.close("a", "n", at_mono_s=1.0, is_requeued=True)
    seen.close("b", "n", at_mono_s=1.0)
    assert (seen.is_requeued("a"), seen.is_requeued("b"), seen.is_requeued("c")) == (True, False, False)


def test_what_never_had_a_uid_is_not_remembered() -> None:
    """There is no pod of it."""
    seen = SeenPods()
    seen.close(None, "n", at_mono_s=1.0)
    seen.close("", "n", at_mono_s=1.0)
    assert len(seen) == 0


def test_all_is_listed_when_each_namespace_was_or_cannot_be() -> None:
    """A namespace that is in trouble holds nobody up."""
    seen = SeenPods()
    seen.watched.update({"a": None, "b": None, "c": "403 Forbidden"})
    seen.listed("a", [], asked_mono_s=1.0)
    assert not seen.has_listed_all
    seen.listed("b", [], asked_mono_s=2.0)
    assert seen.has_listed_all
    assert (seen.listed_mono_s("b"), seen.listed_mono_s("c")) == (2.0, 0.0)
