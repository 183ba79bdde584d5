"""What is seen of pods reaches the attempt whose pod it is, and nobody else; what a watch did not tell, a list does."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from dispatcher.attempts.attempt import Attempt, Pod
from dispatcher.attempts.celery_side import Found
from dispatcher.attempts.states import State
from dispatcher.watching.pod_handler import PodHandler
from dispatcher.watching.unknown_pods import UnknownPods
from tests import builders, fast_time
from tests.cluster_side import ClusterSide

ASKED = 100.0
"""When the list of a test was asked for, by the monotonic clock."""


class World:
    """A pod handler, and what it feeds."""

    def __init__(self) -> None:
        self.side = ClusterSide()
        self.attempts, self.seen_pods = self.side.attempts, self.side.parts.seen_pods
        self.capacity = self.side.parts.capacity
        self.unknown_pods = UnknownPods(self.side.api, celery=self.side.celery, background=self.side.background)  # type: ignore[arg-type]
        self.handler = PodHandler(
            attempts=self.attempts,
            seen_pods=self.seen_pods,
            capacity=self.capacity,
            unknown_pods=self.unknown_pods,
        )

    def launched(self, **fields: Any) -> Attempt:
        """An attempt whose pod exists, looked at already."""
        made = builders.launched(self.attempts, **fields)
        self.attempts.changed.take_now()
        return made

    def saw(self, made: Attempt, status: Mapping[str, Any], kind: str = "MODIFIED", **metadata: Any) -> None:
        """An event of a pod of its name."""
        where = {"namespace": made.namespace or "default"}
        self.handler.saw(builders.pod_of(made, status, **{**where, **metadata}), kind)

    def listed(self, *pods: Mapping[str, Any], namespace: str = "default") -> None:
        """A list, as the watcher takes it in."""
        for pod in pods:
            self.handler.saw(pod, "ADDED")
        self.handler.listed(namespace, pods, asked_mono_s=ASKED)


def using(test: Callable[[World], Awaitable[Any] | None]) -> None:
    """Runs a test in a world of its own."""

    async def run() -> None:
        world = World()
        try:
            if (waits := test(world)) is not None:
                await waits
        finally:
            await world.side.close()

    fast_time.run(run())


def test_an_event_is_put_into_the_attempt_and_has_it_looked_at() -> None:
    """What follows is for somebody else to decide: its state stays."""

    def test(world: World) -> None:
        one = world.launched()
        world.saw(one, builders.running())
        assert (one.seen.verdict, one.state) == ("running", State.PENDING)
        assert world.attempts.changed.take_now() == [one]

    using(test)


def test_an_event_that_is_faster_than_the_answer_to_the_create_tells_the_uid() -> None:
    """From then on no other pod of that name is its own."""

    def test(world: World) -> None:
        one = builders.queued(world.attempts)
        world.attempts.admit(one)
        world.saw(one, builders.running(), "ADDED", uid="first")
        assert (one.pod.uid, one.seen.verdict, one.state) == ("first", "running", State.LAUNCHING)
        world.saw(one, builders.ended(1), uid="second")
        assert (one.pod.uid, one.seen.verdict) == ("first", "running")

    using(test)


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
def test_a_pod_of_the_same_name_with_another_uid_is_another_one(kind: str) -> None:
    """It neither touches the attempt nor is it brought to adoption beside it."""

    def test(world: World) -> None:
        one = world.launched()
        world.saw(one, builders.ended(1), kind, uid="another")
        assert (one.sighting, one.is_missing, world.side.posted) == (None, False, [])
        assert world.attempts.changed.take_now() == []

    using(test)


def test_a_pod_of_an_earlier_retry_under_the_name_is_not_the_attempts() -> None:
    """Known by its key, even where no uid is known yet."""

    def test(world: World) -> None:
        one = builders.queued(world.attempts, headers={"retries": 1})
        annotations = {"podyard.dev/attempt-id": one.id, "podyard.dev/retries": "0"}
        world.saw(one, builders.ended(0), annotations=annotations)
        assert (one.sighting, one.pod.uid, world.side.posted) == (None, None, [])

    using(test)


def test_two_namespaces_with_pods_of_one_name_are_two_attempts() -> None:
    """Names are unique within a namespace only."""

    def test(world: World) -> None:
        here = world.launched()
        there = world.launched()
        world.attempts.name_pod(there, Pod(namespace="other", name=here.pod.name, uid=there.pod.uid))
        world.saw(there, builders.running())
        assert (here.sighting, there.seen.verdict) == (None, "running")

    using(test)


def test_a_pod_of_ours_that_nobody_knows_is_passed_on_with_its_end() -> None:
    """Adoption needs to know whether there is still something to wait for."""

    def test(world: World) -> None:
        for status in (builders.running(), builders.ended(0), builders.ended(1)):
            world.saw(builders.attempt(), status, "ADDED")
        assert [event.is_ended for event in world.side.posted if isinstance(event, Found)] == [False, True, True]

    using(test)


def test_the_container_that_decides_is_the_one_that_the_pod_names() -> None:
    """Not `base` where the pod is one of any image."""

    def test(world: World) -> None:
        pod = builders.pod_of(builders.attempt(), builders.ended(0))
        pod["metadata"]["annotations"]["podyard.dev/container"] = "main"
        pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "base", "state": {"running": {}}}]}
        pod["status"]["containerStatuses"] += [{"name": "main", "state": {"terminated": {"exitCode": 0}}}]
        world.handler.saw(pod, "ADDED")
        (event,) = world.side.posted
        assert event.is_ended

    using(test)


@pytest.mark.parametrize(
    ("kind", "annotations"),
    [
        pytest.param("DELETED", None, id="is gone"),
        pytest.param("ADDED", {}, id="does not say which launch it is"),
        pytest.param("ADDED", {"podyard.dev/attempt-id": "a", "podyard.dev/retries": "x"}, id="says nonsense"),
    ],
)
def test_what_cannot_be_adopted_is_left_alone(kind: str, annotations: Mapping[str, str] | None) -> None:
    """It is not passed on, and breaks nothing."""

    def test(world: World) -> None:
        more = {} if annotations is None else {"annotations": annotations}
        world.saw(builders.attempt(), builders.running(), kind, **more)
        assert world.side.posted == []

    using(test)


def test_what_is_done_with_is_no_news() -> None:
    """Neither is it adopted again, nor does it change who has its name now; its deletion is the last of it."""

    def test(world: World) -> None:
        gone = builders.attempt()
        world.seen_pods.close(f"uid-{gone.id}", "default", at_mono_s=1.0)
        for kind in ("MODIFIED", "DELETED"):
            world.saw(gone, builders.ended(0), kind)
        assert (world.side.posted, len(world.seen_pods)) == ([], 0)

    using(test)


def test_after_the_end_is_known_nothing_else_is() -> None:
    """The first verdict stands, however late and contrary another event is."""

    def test(world: World) -> None:
        one = builders.in_state(world.attempts, State.ENDED)
        before = one.sighting
        world.saw(one, builders.ended(137))
        world.saw(one, builders.ended(137), "DELETED")
        assert one.sighting is before

    using(test)


def test_a_pod_counts_from_its_first_event_to_its_last() -> None:
    """Whoever waits for a slot is woken when one is free."""

    async def test(world: World) -> None:
        one = builders.attempt()
        world.saw(one, builders.running(), "ADDED")
        assert world.capacity.admission.slots.used()["all"] == 1
        await world.capacity.room.wait(0.0)
        world.saw(one, builders.ended(0))
        assert world.capacity.admission.slots.used() == {}
        assert await world.capacity.room.wait(0.0)

    using(test)


def test_a_deletion_that_no_event_told_of_is_found_by_the_list() -> None:
    """Only of what it should have shown: its namespace, and what was there before it was asked for."""

    def test(world: World) -> None:
        lost, replaced, kept = world.launched(), world.launched(), world.launched()
        elsewhere = world.launched(namespace="other")
        young = world.launched(created_mono_s=ASKED + 0.1)
        waiting = builders.queued(world.attempts)
        other = builders.pod_of(replaced, builders.running(), uid="made under its name later")
        world.listed(other, builders.pod_of(kept, builders.running()))
        missing = [one for one in world.attempts if one.is_missing]
        assert missing == [lost, replaced]
        assert not {kept, elsewhere, young, waiting} & set(missing)
        assert {lost, replaced} <= set(world.attempts.changed.take_now())

    using(test)


def test_a_pod_that_was_missed_once_and_is_seen_again_is_not_missing() -> None:
    """A list may have been older than the pod's last event."""

    def test(world: World) -> None:
        one = world.launched()
        world.listed()
        assert one.is_missing
        world.saw(one, builders.running())
        assert not one.is_missing

    using(test)


def test_a_list_frees_the_slots_of_what_it_lacks() -> None:
    """In its own namespace alone."""

    def test(world: World) -> None:
        here = builders.attempt()
        there = builders.pod_of(builders.attempt(), builders.running(), namespace="other")
        world.saw(here, builders.running(), "ADDED")
        world.handler.saw(there, "ADDED")
        world.handler.listed("default", [], asked_mono_s=float("inf"))
        assert world.capacity.admission.slots.used() == {"queue/kubernetes": 1, "namespace/other": 1, "all": 1}

    using(test)


def test_memory_of_what_is_done_with_ends_with_the_list_of_its_own_namespace() -> None:
    """Though no event told of its deletion."""

    def test(world: World) -> None:
        world.seen_pods.close("one", "default", at_mono_s=1.0)
        world.seen_pods.close("two", "other", at_mono_s=1.0)
        world.listed()
        assert (world.seen_pods.is_closed("one"), world.seen_pods.is_closed("two")) == (False, True)
        world.listed(namespace="other")
        assert len(world.seen_pods) == 0

    using(test)


def test_two_events_at_once_are_one_look() -> None:
    """The reconciler looks at the attempt as it is."""

    async def test(world: World) -> None:
        one = world.launched()
        world.saw(one, builders.running())
        world.saw(one, builders.ended(0))
        assert await asyncio.wait_for(world.attempts.changed.take(), 1) == [one]
        assert one.seen.verdict == "succeeded"

    using(test)
