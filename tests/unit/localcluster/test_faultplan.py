"""The plan of faults: what meets what, how often, and when; decided by a seed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.localcluster.faults import kinds, plan
from dispatcher.localcluster.objects import fault_points

CREATE = fault_points.Call(verb="create", resource="pods", namespace="default", name="a")


def _plan(*faults: kinds.Fault, seed: int = 7) -> plan.Plan:
    made = plan.Plan(seed)
    for fault in faults:
        made.add(fault, at=0.0)
    return made


def _statuses(made: plan.Plan, calls: int, *, at: float = 0.0) -> list[int | None]:
    effects = [made.effect(CREATE, at=at) for _ in range(calls)]
    return [effect.failure.status if effect.failure else None for effect in effects]


def test_the_next_calls_fail_and_then_no_more() -> None:
    """`times` is a number of calls."""
    assert _statuses(_plan(kinds.Fail(verb="create", status=429, times=2)), 4) == [429, 429, None, None]


def test_failures_queue_in_the_order_in_which_they_were_asked_for() -> None:
    """The first one that stands is used up before the second."""
    made = _plan(kinds.Fail(status=429, times=1), kinds.Fail(status=500, times=1))
    assert _statuses(made, 3) == [429, 500, None]


@pytest.mark.parametrize(
    ("fields", "meets"),
    [
        ({}, True),
        ({"verb": "create"}, True),
        ({"verb": "delete"}, False),
        ({"verb": "delete*"}, False),
        ({"resource": "pods"}, True),
        ({"resource": "secrets"}, False),
        ({"namespace": "def*"}, True),
        ({"namespace": "other"}, False),
        ({"name": "a"}, True),
        ({"name": "b*"}, False),
    ],
)
def test_a_fault_meets_the_calls_that_it_names(fields: dict[str, Any], meets: bool) -> None:
    """Verb, resource, namespace and name, as shell patterns."""
    assert (_statuses(_plan(kinds.Fail(**fields)), 1) == [500]) is meets


def test_a_fault_stands_in_its_time_only() -> None:
    """From `after_s` on, for `for_s` seconds."""
    made = _plan(kinds.Fail(after_s=10, for_s=5))
    assert [_statuses(made, 1, at=at) for at in (9.9, 10.0, 14.9, 15.0)] == [[None], [500], [500], [None]]


def test_delays_add_up_and_do_not_hide_a_failure() -> None:
    """A slow server may fail as well."""
    effect = _plan(kinds.Delay(seconds=0.1), kinds.Fail(status=503), kinds.Delay(seconds=0.2)).effect(CREATE, at=0.0)
    assert effect.delay_s == pytest.approx(0.3)
    assert effect.failure == kinds.Fail(status=503)


def test_jitter_stays_within_its_bound() -> None:
    """Between the fixed part and the whole."""
    made = _plan(kinds.Delay(seconds=0.1, jitter_s=0.5))
    found = [made.effect(CREATE, at=0.0).delay_s for _ in range(200)]
    assert 0.1 <= min(found) < 0.2
    assert 0.5 < max(found) <= 0.6


def test_the_same_seed_makes_the_same_decisions() -> None:
    """A run can be had again; another seed makes another one."""
    fault = kinds.Fail(probability=0.5)
    first, again = (_statuses(_plan(fault, seed=1), 50) for _ in range(2))
    assert first == again
    assert first != _statuses(_plan(fault, seed=2), 50)
    assert 10 < first.count(500) < 40


LINES = [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (kinds.Disturb(how="duplicate"), [b"1", b"1", b"2", b"2", b"3", b"3"]),
        (kinds.Disturb(how="duplicate", times=1), [b"1", b"1", b"2", b"3"]),
        (kinds.Disturb(how="reorder", times=1), [b"2", b"1", b"3"]),
        (kinds.Disturb(how="drop", times=2), [b"3"]),
        (kinds.Disturb(how="garbage", times=1), [plan.GARBAGE, b"1", b"2", b"3"]),
        (kinds.Disturb(how="drop", resource="secrets"), LINES),
    ],
)
def test_events_are_disturbed(fault: kinds.Disturb, expected: list[bytes]) -> None:
    """Twice, swapped, lost, or after garbage."""
    assert _plan(fault).disturb("pods", LINES, at=0.0) == expected


@given(st.lists(st.binary(min_size=1), max_size=20), st.integers())
def test_reordering_loses_nothing(lines: list[bytes], seed: int) -> None:
    """The same events, in some order."""
    made = _plan(kinds.Disturb(how="reorder", probability=0.5), seed=seed)
    assert sorted(made.disturb("pods", lines, at=0.0)) == sorted(lines)


def test_a_happening_takes_place_once_at_its_time() -> None:
    """Unless it is to come again."""
    made = _plan(kinds.CutWatches(after_s=3))
    assert made.next_at() == 3.0
    assert made.due(at=2.9) == []
    assert made.due(at=3.0) == [(1, kinds.CutWatches(after_s=3))]
    assert (made.due(at=100.0), made.next_at()) == ([], None)


def test_a_happening_can_come_again_and_again() -> None:
    """Every so many seconds, so many times; time that was slept away is not caught up."""
    made = _plan(kinds.Kill(every_s=2, times=3))
    seen = [at for at in (0.0, 1.0, 2.0, 9.0, 10.0, 11.0, 20.0) if made.due(at=at)]
    assert seen == [0.0, 2.0, 9.0]


def test_victims_are_chosen_by_the_seed() -> None:
    """So many of them, in their order; without a number all."""
    assert _plan(seed=1).choose(range(10), 3) == _plan(seed=1).choose(range(10), 3)
    assert _plan().choose([1, 2], None) == _plan().choose([1, 2], 5) == [1, 2]


def test_faults_that_are_over_are_forgotten_at_some_time() -> None:
    """A long run does not fill the memory; what stands is kept."""
    made = _plan(kinds.Delay(seconds=1))
    for _ in range(3 * plan.KEPT):
        made.add(kinds.CutWatches(), at=0.0)
        made.due(at=0.0)
    assert len(made.entries()) <= plan.KEPT + 2
    assert made.effect(CREATE, at=0.0).delay_s == 1


@pytest.mark.parametrize(
    "fault",
    [
        kinds.Fail(verb="create", status=429, retry_after_s=3, done=True, how="cut"),
        kinds.Delay(seconds=0.15),
        kinds.Evict(pod="a-*", pick=1, every_s=2.5),
        kinds.LoseNode(evict_after_s=1),
        kinds.Unschedulable(cause="taint"),
    ],
)
def test_a_fault_has_a_json_form(fault: kinds.Fault) -> None:
    """There and back."""
    assert kinds.read(kinds.write(fault)) == fault


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ({}, "missing required field `kind`"),
        ({"kind": "explode"}, "explode"),
        ({"kind": "fail", "verbs": "create"}, "unknown field `verbs`"),
        ({"kind": "fail", "status": 200}, "$[0].status"),
        ({"kind": "fail", "probability": 2}, "$[0].probability"),
        ({"kind": "delay"}, "missing required field `seconds`"),
        ("fail", "array"),
    ],
)
def test_what_is_no_fault_is_named(thing: Any, words: str) -> None:
    """The field, and where the kinds are listed."""
    with pytest.raises(kinds.FaultError, match="lists the kinds") as caught:
        kinds.read_all(thing)
    assert words in str(caught.value)
