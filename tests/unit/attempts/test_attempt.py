"""An attempt: what was given with it, and what can be asked of it whatever is known yet."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.attempts import attempt
from dispatcher.attempts.attempt import Attempt, Ending, Launch, Pod, Reported, Sighting
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import State
from dispatcher.protocol.message import LaunchKey
from dispatcher.status.observation import Observation
from tests import builders


def test_a_fresh_one_knows_nothing_but_its_message() -> None:
    """It waits for its turn, has no pod, and nothing was said of it."""
    one = builders.attempt(task_id="a", queue="gpu")
    assert (one.id, one.queue, one.namespace, one.state) == ("a", "gpu", "", State.QUEUED)
    assert (one.pod, one.launch, one.reported) == (Pod(), Launch(), Reported())
    assert (one.sighting, one.ending, one.closed, one.wait, one.started_at, one.ended_at) == (None,) * 6
    assert one.seen == Observation(verdict="none")


def test_its_key_is_that_of_its_launch() -> None:
    """A retry, and a task that has replaced itself, are launches of their own under one id."""
    keys = [
        builders.attempt(task_id="a").key,
        builders.attempt(task_id="a", headers={"retries": 1}).key,
        builders.attempt(task_id="a", headers={"replaced_task_nesting": 1}).key,
    ]
    assert keys == [
        LaunchKey(attempt_id="a", replaced=0, retries=0),
        LaunchKey(attempt_id="a", replaced=0, retries=1),
        LaunchKey(attempt_id="a", replaced=1, retries=0),
    ]


def test_two_deliveries_of_one_message_are_two_attempts() -> None:
    """Of one key, but not equal: sets and dicts hold both."""
    message = builders.message("a")
    first, second = builders.attempt(message=message), builders.attempt(message=message)
    assert first.key == second.key
    assert first.delivery != second.delivery
    assert first != second
    assert len({first, second}) == 2


def test_what_it_holds_of_two_attempts_is_never_the_same_object() -> None:
    """The wait of one is not the wait of another."""
    first, second = builders.attempt(), builders.attempt()
    first.first_waits["slot"] = 1.0
    assert second.first_waits == {}


@pytest.mark.parametrize("record", [Pod, Launch, Sighting, Ending, Reported])
def test_its_records_are_replaced_and_never_changed(record: type) -> None:
    """So whoever has read one has read something that was true."""
    assert record.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.kw_only for field in dataclasses.fields(record))


@pytest.mark.parametrize(("name", "is_any_image"), [("shop.render", False), ("dispatcher.pod", True)])
def test_a_pod_of_any_image_is_known_by_its_tasks_name(name: str, is_any_image: bool) -> None:
    """Its exit code decides."""
    assert builders.attempt(message=builders.message(name=name)).is_any_image is is_any_image


def test_its_times_are_those_of_its_pod() -> None:
    """As it was seen last."""
    attempts = Attempts(is_strict=True)
    one = builders.launched(attempts)
    attempts.saw(one, builders.seen(one, builders.ended(3)), uid="u")
    assert (one.seen.verdict, one.seen.exit_code) == ("failed", 3)
    assert one.started_at == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert one.ended_at == datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)


def test_what_its_sender_asked_for_is_read_once() -> None:
    """It is asked for at every look."""
    one = builders.attempt(message=builders.message(name="dispatcher.pod", kwargs={"pod": {"image": "busybox"}}))
    assert one.options is one.options


def test_a_reason_to_be_closed_is_a_word_for_programs() -> None:
    """Each of them once."""
    words = [str(closed) for closed in attempt.Closed]
    assert words == ["stored", "terminated", "withdrawn", "dropped"]


@pytest.mark.parametrize("state", list(State))
def test_in_every_state_it_can_be_asked_everything(state: State) -> None:
    """Nothing raises because something is not known yet."""
    made: Attempt = builders.in_state(Attempts(is_strict=True), state)
    asked: dict[str, Any] = {
        name: getattr(made, name) for name in dir(Attempt) if isinstance(getattr(Attempt, name), property)
    }
    assert {"seen", "started_at", "ended_at", "namespace", "options"} <= set(asked)
