"""Slots: what counts as a pod in flight, by what the cluster shows."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.admission.slots import Slots
from dispatcher.attempts import limits
from dispatcher.manifests import labels


def pod(name: str, *, queue: str = "q", namespace: str = "n", phase: str = "Running", uid: str = "") -> dict[str, Any]:
    """A pod of ours."""
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{name}",
            "annotations": {labels.QUEUE_ANNOTATION: queue},
        },
        "status": {"phase": phase},
    }


def counted(slots: Slots) -> int:
    """All pods in flight."""
    return slots.count(limits.ALL)


def test_a_pod_counts_from_its_create_to_its_end() -> None:
    """For its queue, its namespace and in all."""
    slots = Slots()
    slots.begin("n", "a", "q")
    assert slots.used() == {"queue/q": 1, "namespace/n": 1, "all": 1}
    slots.created("n", "a", "q", uid="uid-a", now_mono_s=1.0)
    slots.see(pod("a", phase="Pending"), "ADDED", now_mono_s=1.1)
    slots.release("n", "a")
    assert (counted(slots), slots.freed) == (1, 0)
    slots.see(pod("a", phase="Succeeded"), "MODIFIED", now_mono_s=2.0)
    assert (slots.used(), slots.freed) == ({}, 1)


def test_a_create_that_made_nothing_gives_its_slot_back() -> None:
    """Unless the watch has seen the pod: then it did make one."""
    slots = Slots()
    slots.begin("n", "a", "q")
    slots.begin("n", "b", "q")
    slots.see(pod("b"), "ADDED", now_mono_s=1.0)
    slots.release("n", "a")
    slots.release("n", "b")
    assert not slots.has("n", "a")
    assert slots.has("n", "b")


def test_pods_that_nobody_here_knows_count_too() -> None:
    """Those of a dispatcher before us, before they are adopted; those in their grace period."""
    slots = Slots()
    slots.see(pod("old"), "ADDED", now_mono_s=1.0)
    assert counted(slots) == 1
    slots.see(pod("old"), "DELETED", now_mono_s=2.0)
    assert counted(slots) == 0


def test_what_a_list_lacks_is_gone() -> None:
    """But not what was made after the list was asked for, what is being made, and other namespaces."""
    slots = Slots()
    slots.created("n", "lost", "q", uid="1", now_mono_s=1.0)
    slots.created("n", "kept", "q", uid="2", now_mono_s=1.0)
    slots.created("n", "new", "q", uid="3", now_mono_s=5.0)
    slots.created("m", "elsewhere", "q", uid="4", now_mono_s=1.0)
    slots.begin("n", "coming", "q")
    slots.sync("n", {"kept"}, asked_mono_s=4.0)
    assert [name for name in ("lost", "kept", "new", "coming") if slots.has("n", name)] == ["kept", "new", "coming"]
    assert slots.has("m", "elsewhere")


def test_the_end_of_an_older_pod_of_the_name_frees_nothing() -> None:
    """Events of another uid are not about this one."""
    slots = Slots()
    slots.begin("n", "a", "q")
    slots.see(pod("a", uid="old"), "DELETED", now_mono_s=1.0)
    assert counted(slots) == 1
    slots.created("n", "a", "q", uid="new", now_mono_s=1.0)
    slots.see(pod("a", uid="old"), "DELETED", now_mono_s=2.0)
    assert counted(slots) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "created", "release", "ADDED", "Succeeded", "DELETED", "sync"]),
            st.sampled_from("abc"),
        )
    )
)
def test_what_is_counted_is_what_is_there(story: list[tuple[str, str]]) -> None:
    """Counts never differ from the names behind them, and a whole list of nothing leaves only creates under way."""
    slots = Slots()
    for what, name in story:
        if what == "begin":
            slots.begin("n", name, "q")
        elif what == "created":
            slots.created("n", name, "q", uid=f"uid-{name}", now_mono_s=1.0)
        elif what == "release":
            slots.release("n", name)
        elif what == "sync":
            slots.sync("n", (), asked_mono_s=2.0)
        else:
            phase = "Succeeded" if what == "Succeeded" else "Running"
            slots.see(pod(name, phase=phase), "MODIFIED" if what == "Succeeded" else what, now_mono_s=1.0)
        there = sum(slots.has("n", name) for name in "abc")
        assert slots.count("queue/q") == slots.count("namespace/n") == counted(slots) == there
    for name in "abc":
        slots.created("n", name, "q", uid=f"uid-{name}", now_mono_s=1.0)
    slots.sync("n", (), asked_mono_s=2.0)
    assert slots.used() == {}
