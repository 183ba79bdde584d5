"""Held requests: what Celery waits for is found by its delivery; its time limit counts from its container's start."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.attempts.celery_side import Terminate
from dispatcher.manifests import builder
from dispatcher.options import QueueProfile
from dispatcher.worker import requests
from dispatcher.worker.bridge import Bridge
from dispatcher.worker.requests import Callbacks, HeldRequest, HeldRequests, TimeLimits
from tests import builders

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Timer:
    """A timer of Celery's hub."""

    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Request:
    """Stands for Celery's Request: these are its methods."""

    def on_accepted(self, *args: Any) -> None: ...
    def on_success(self, *args: Any) -> None: ...
    def on_failure(self, *args: Any) -> None: ...
    def on_timeout(self, *args: Any) -> None: ...


def callbacks(request: Any) -> Callbacks:
    """As Celery passes them."""
    return Callbacks(
        accept=request.on_accepted, done=request.on_success, error=request.on_failure, timeout=request.on_timeout
    )


def held(delivery: str = "d", *, name: str = "tests.task", **fields: Any) -> HeldRequest:
    """One."""
    given = {"callbacks": callbacks(Request()), "bridge": Bridge(name="unused"), "profile": QueueProfile(), **fields}
    return HeldRequest(delivery=delivery, message=builders.message(name=name), **given)


def test_the_request_is_the_one_whose_methods_were_passed() -> None:
    """None where they are no methods."""
    request = Request()
    assert callbacks(request).request is request
    assert Callbacks(accept=print, done=print, error=print, timeout=print).request is not request


def test_limits_of_task_and_message_win_over_those_of_the_worker() -> None:
    """Each kind by itself."""
    worker = TimeLimits(hard_s=100.0, soft_s=90.0)
    assert TimeLimits(hard_s=10.0).or_else(worker) == TimeLimits(hard_s=10.0, soft_s=90.0)
    assert TimeLimits(soft_s=5.0).or_else(worker) == TimeLimits(hard_s=100.0, soft_s=5.0)
    assert TimeLimits().or_else(TimeLimits()) == TimeLimits()


@pytest.mark.parametrize("endless", [float("inf"), sys.maxsize, 10**10, float("nan")])
def test_a_limit_that_is_never_reached_is_none(endless: float) -> None:
    """And not the worker's: a pod's deadline has no room for it, and prefork does without one."""
    worker = TimeLimits(hard_s=100.0, soft_s=90.0)
    assert TimeLimits(hard_s=endless, soft_s=endless).or_else(worker) == TimeLimits()
    assert TimeLimits().or_else(TimeLimits(hard_s=endless)) == TimeLimits()


def test_a_request_is_held_until_it_is_released() -> None:
    """Its timer with it; to release it twice is nothing."""
    all_held, one, timer = HeldRequests(), held("a"), Timer()
    one.timer = timer
    all_held.hold(one)
    assert (all_held.get("a"), list(all_held), len(all_held)) == (one, [one], 1)
    all_held.release(one)
    all_held.release(one)
    assert (all_held.get("a"), len(all_held), one.timer, timer.is_cancelled) == (None, 0, None, True)


def test_a_request_is_found_by_the_pod_that_Celery_knows_as_a_process() -> None:
    """The one that is held: an earlier delivery of the same launch had a pod of the same name."""
    all_held, before, one, other = HeldRequests(), held("a", pod="p"), held("b", pod="p"), held("c", pod="q")
    for each in (before, one, other):
        all_held.hold(each)
    all_held.release(before)
    assert all_held.of_pod("p") is one
    assert all_held.of_pod("nobody") is None


def test_all_may_be_released_while_they_are_looked_at() -> None:
    """The list is that of the moment."""
    all_held = HeldRequests()
    for number in range(3):
        all_held.hold(held(str(number)))
    for each in all_held:
        all_held.release(each)
    assert len(all_held) == 0


def test_a_termination_goes_to_the_other_side_and_stops_the_time_limit() -> None:
    """Wherever the attempt is: that side knows."""
    bridge, timer = Bridge(name="unused"), Timer()
    one = held(bridge=bridge, timer=timer)
    one.terminate(15)
    assert (list(bridge._commands), one.timer, timer.is_cancelled) == ([Terminate(delivery="d")], None, True)


def test_without_a_limit_no_time_is_left_or_over() -> None:
    """Nothing counts."""
    assert held().left_s(NOW) is None


def test_a_pod_of_any_image_is_ended_at_its_limit_and_a_tasks_pod_only_if_it_fails_to_end_itself() -> None:
    """The body of a task begins some time after its container."""
    started = datetime.now(UTC)
    any_image, task = held(name=builder.ANY_IMAGE_TASK, timeout_s=60.0), held(timeout_s=60.0)
    assert any_image.left_s(started) == pytest.approx(60 + requests.STATUS_TIME_S, abs=1)
    assert task.left_s(started) == pytest.approx(60 + builder.START_ALLOWANCE_S, abs=1)


@pytest.mark.parametrize(
    ("started_s", "left_s"),
    [(0, 60.0), (-20, 40.0), (-60, 0.0), (-3600, 0.0), (30, 60.0)],
)
def test_what_is_left_is_never_negative_and_never_more_than_all(started_s: int, left_s: float) -> None:
    """A node whose clock is ahead must not give it more."""
    started = NOW + timedelta(seconds=started_s)
    assert requests.left_s(started, limit_s=60.0, now=NOW) == left_s


def delivered(delivery: str, tag: object = "tag", **fields: Any) -> HeldRequest:
    """A delivery of the message `m`, under a tag of the broker."""
    request: Any = Request()
    request.message = SimpleNamespace(delivery_tag=tag)
    return replace(held(delivery, **fields), message=builders.message("m"), callbacks=callbacks(request))


def test_a_second_delivery_is_known_by_its_launch() -> None:
    """Another launch is another matter, though the task is the same."""
    known = HeldRequests()
    first, second, other = delivered("1"), delivered("2"), held("3")
    for one in (first, second, other):
        known.hold(one)
    assert known.first_of(second) is first
    assert known.first_of(other) is None


@pytest.mark.parametrize(("tags", "is_one"), [(("a", "a"), True), (("a", "b"), False), ((1, 1), False)])
def test_one_tag_is_one_message_only_where_tags_are_the_messages_own(tags: tuple[object, object], is_one: bool) -> None:
    """RabbitMQ counts deliveries of a channel: the same number is another message after a reconnection."""
    first, second = (delivered(str(number), tag) for number, tag in enumerate(tags))
    assert second.has_tag_of(first) is is_one
