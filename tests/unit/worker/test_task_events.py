"""Task events: what Celery announces of a pod task carries the pod's times, and nothing is announced too early."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.worker import task_events

START = datetime.now(UTC) - timedelta(seconds=60)
HALF = timedelta(seconds=0.5)


class Eventer:
    """Celery's event dispatcher, which tells nobody."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.sent.append((kind, fields))


class Request:
    """Of Celery's Request what touches events: it sends by its `eventer`, as the real one does."""

    def __init__(self, eventer: Eventer | None) -> None:
        self.eventer: Any = eventer
        self.accepted_as: Any = None
        self.is_revoked = False

    def send_event(self, kind: str, **fields: Any) -> None:
        if self.eventer and self.eventer.enabled:
            self.eventer.send(kind, uuid="a", **fields)

    def on_accepted(self, pid: Any, accepted_mono_s: float) -> None:
        self.accepted_as = (pid, accepted_mono_s)
        self.send_event("task-started")
        if self.is_revoked:
            self.send_event("task-revoked", terminated=True)


def times(eventer: Eventer) -> list[tuple[str, float]]:
    """Kind and time of each event."""
    return [(kind, fields["timestamp"]) for kind, fields in eventer.sent]


def test_a_pod_is_accepted_and_nobody_is_told_that_its_task_has_started() -> None:
    """It may wait for a node for an hour."""
    eventer = Eventer()
    request = Request(eventer)
    before_s = time.monotonic()
    task_events.accepted(request, "pod-1")
    pid, accepted_s = request.accepted_as
    assert (pid, eventer.sent, request.eventer) == ("pod-1", [], eventer)
    assert before_s <= accepted_s <= time.monotonic()


def test_a_revocation_that_waited_for_the_pod_is_told() -> None:
    """Celery ends it in the same breath."""
    eventer = Eventer()
    request = Request(eventer)
    request.is_revoked = True
    task_events.accepted(request, "pod-1")
    assert eventer.sent == [("task-revoked", {"uuid": "a", "terminated": True})]


def test_a_start_is_told_when_it_was_and_not_before_its_pod_was_made() -> None:
    """A pod's status has whole seconds."""
    eventer = Eventer()
    task_events.started(Request(eventer), pod="p", not_before=None, at=START)
    task_events.started(Request(eventer), pod="p", not_before=START + HALF, at=START)
    assert times(eventer) == [("task-started", START.timestamp()), ("task-started", (START + HALF).timestamp())]
    assert {fields["pod"] for _, fields in eventer.sent} == {"p"}


def test_no_event_is_of_the_future() -> None:
    """A node's clock may be ahead."""
    eventer = Eventer()
    task_events.started(Request(eventer), pod="p", not_before=None, at=datetime.now(UTC) + timedelta(hours=1))
    ((_, told_s),) = times(eventer)
    assert told_s <= time.time()


def test_an_end_is_told_when_it_was_as_near_as_it_is_known() -> None:
    """By the status, in whole seconds, or by the start and what the body took."""
    eventer = Eventer()
    request = Request(eventer)
    task_events.ending(request, started_at=START, ended_at=START + timedelta(seconds=5), runtime_s=5.25)
    request.send_event("task-succeeded")
    task_events.ending(request, started_at=START, ended_at=START + timedelta(seconds=9), runtime_s=5.25)
    request.send_event("task-succeeded")
    assert [told_s - START.timestamp() for _, told_s in times(eventer)] == pytest.approx([5.25, 9.0])


def test_an_end_of_which_no_time_is_known_is_told_now() -> None:
    """Such as that of a task without a pod."""
    eventer = Eventer()
    request = Request(eventer)
    task_events.ending(request, started_at=None, ended_at=None, runtime_s=3.0)
    request.send_event("task-failed")
    assert eventer.sent == [("task-failed", {"uuid": "a"})]


def test_a_worker_without_events_tells_nothing() -> None:
    """Nobody listens."""
    quiet, silent = Eventer(enabled=False), Request(None)
    for request in (Request(quiet), silent):
        task_events.accepted(request, "p")
        task_events.started(request, pod="p", not_before=None, at=START)
        task_events.ending(request, started_at=START, ended_at=START, runtime_s=1.0)
        request.send_event("task-succeeded")
    assert (quiet.sent, silent.eventer) == ([], None)


class Hub:
    """Celery's hub, as far as it has timers."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_later(self, after_s: float, call: Any) -> None:
        assert after_s == task_events.FLUSH_AFTER_S
        self.timers.append(call)


class Flushes:
    """Counts what is sent."""

    def __init__(self) -> None:
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1


class Consumer:
    """What a consumer has for its events."""

    def __init__(self, *, hub: Hub | None) -> None:
        self.hub = hub
        self.event_dispatcher: Flushes | None = Flushes()
        self.sent = 0

    def on_send_event_buffered(self) -> None:
        self.sent += 1


def test_events_are_sent_in_batches_and_none_is_left_behind() -> None:
    """However many come, one timer sends them; what comes after it gets another one."""
    hub = Hub()
    consumer = Consumer(hub=hub)
    task_events.batch(consumer)
    for _ in range(100):
        consumer.on_send_event_buffered()
    assert len(hub.timers) == 1
    hub.timers.pop()()
    assert consumer.event_dispatcher is not None
    assert (consumer.event_dispatcher.flushes, consumer.sent) == (1, 0)
    consumer.on_send_event_buffered()
    assert len(hub.timers) == 1
    consumer.event_dispatcher = None  # a reconnect is under way
    hub.timers.pop()()


def test_without_a_hub_events_are_sent_as_Celery_sends_them() -> None:
    """There is nobody to do it later."""
    consumer = Consumer(hub=None)
    task_events.batch(consumer)
    consumer.on_send_event_buffered()
    assert consumer.sent == 1
