"""What follows from what is known of an attempt: in each state, for each fact."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.attempts import endings, states
from dispatcher.attempts.attempt import Attempt, Closed, Sighting
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.states import Move, State
from dispatcher.attempts.wait_rules import Rule, Wait
from dispatcher.status.observation import Observation
from dispatcher.watching import decision
from dispatcher.watching.decision import Do, Now
from tests import builders

NOW = Now(1000.0)
MOVE_OF = {
    Do.START: Move.STARTED,
    Do.COLLECT: Move.COLLECT,
    Do.DROP: Move.CLOSE,
    Do.FINISH: Move.END,
    Do.FINISH_WITHOUT_RESULT: Move.END,
    Do.EXPIRE: Move.EXPIRE,
}
"""What the executor asks the registry for."""


@pytest.fixture
def attempts() -> Attempts:
    """The attempts of a test."""
    return Attempts(is_strict=True)


def wait(*, kind: str = "start", action: Any = "retry", since_mono_s: float = 0.0) -> Wait:
    """A wait of 100 seconds."""
    rule = Rule(action=action, after_s=100.0)
    return Wait(kind=kind, reason=None, detail=None, since_mono_s=since_mono_s, rule=rule, said_by="a test")


def sighting(verdict: Any, **fields: Any) -> Sighting:
    """What a pod says."""
    started_at = fields.pop("started_at", builders.START if verdict in ("running", "succeeded", "failed") else None)
    return Sighting(seen=Observation(verdict=verdict), phase="P", at_mono_s=0.0, started_at=started_at, **fields)


def told(attempts: Attempts, one: Attempt) -> Attempt:
    """One of which Celery knows all so far."""
    attempts.reported(one, launched=True, started=one.started_at is not None)
    return one


@pytest.mark.parametrize("state", [State.QUEUED, State.PARKED, State.LAUNCHING, State.PENDING, State.RUNNING])
def test_nothing_new_means_nothing_to_do(attempts: Attempts, state: State) -> None:
    """Looking again and again is harmless."""
    assert decision.decide(told(attempts, builders.in_state(attempts, state)), NOW) is Do.NOTHING


def test_a_pod_is_reported_then_its_start(attempts: Attempts) -> None:
    """In this order, each once, though both are seen at once."""
    one = builders.launched(attempts)
    attempts.saw(one, builders.seen(one, builders.running()), uid="u")
    steps = []
    for act in (
        lambda: attempts.reported(one, launched=True),
        lambda: attempts.started(one),
        lambda: attempts.reported(one, started=True),
    ):
        steps.append(decision.decide(one, NOW))
        act()
    assert [*steps, decision.decide(one, NOW)] == [Do.REPORT_LAUNCHED, Do.START, Do.REPORT_STARTED, Do.NOTHING]


@pytest.mark.parametrize(
    "state", sorted(set(states.UNLAUNCHED | states.LIVE) - {State.EXPIRING_LAUNCH, State.EXPIRING_POD})
)
@pytest.mark.parametrize(("verdict", "do"), [("gone", Do.DROP), ("succeeded", Do.FINISH), ("failed", Do.FINISH)])
def test_a_pod_that_ended_or_left_decides_whatever_came_before(
    attempts: Attempts, state: State, verdict: str, do: Do
) -> None:
    """Also where its create had seemed to fail: its events are the truth."""
    one = builders.in_state(attempts, state)
    attempts.reported(one, launched=True, started=True)
    attempts.saw(one, replace(sighting(verdict), started_at=None), uid="u")
    assert decision.decide(one, NOW) is do


def test_a_pod_that_was_over_before_it_was_looked_at_is_reported_as_launched_and_started(attempts: Attempts) -> None:
    """So that people see where it ran, and for how long; then its outcome is read."""
    one = builders.in_state(attempts, State.PENDING)
    attempts.saw(one, replace(sighting("succeeded"), started_at=builders.START), uid="u")
    assert decision.decide(one, NOW) is Do.REPORT_LAUNCHED
    attempts.reported(one, launched=True)
    assert decision.decide(one, NOW) is Do.START
    attempts.started(one)
    assert decision.decide(one, NOW) is Do.REPORT_STARTED
    attempts.reported(one, started=True)
    assert decision.decide(one, NOW) is Do.FINISH


@pytest.mark.parametrize("state", [State.EXPIRING_LAUNCH, State.EXPIRING_POD])
@pytest.mark.parametrize("verdict", ["none", "running", "succeeded", "failed", "gone"])
def test_while_a_deadline_is_acted_on_nothing_else_is_done(attempts: Attempts, state: State, verdict: str) -> None:
    """Its calls come back as a change; then what was seen meanwhile counts."""
    one = builders.in_state(attempts, state)
    attempts.saw(one, sighting(verdict), uid="u")
    assert decision.decide(one, NOW) is Do.NOTHING


def test_a_result_is_waited_for_within_bounds(attempts: Attempts) -> None:
    """A sidecar that never reports does not hang the task."""
    one = told(attempts, builders.in_state(attempts, State.RUNNING))
    at_s = NOW.mono_s - decision.RESULT_WAIT_S
    attempts.saw(one, sighting("succeeded", is_result_awaited=True, result_awaited_mono_s=at_s), uid="u")
    assert decision.decide(one, NOW) is Do.COLLECT
    attempts.collect(one)
    assert decision.decide(one, NOW) is Do.NOTHING
    assert decision.decide(one, Now(NOW.mono_s + 0.1)) is Do.FINISH_WITHOUT_RESULT
    attempts.saw(one, sighting("succeeded"), uid="u")
    assert decision.decide(one, NOW) is Do.FINISH


def test_what_a_list_lacked_is_looked_for(attempts: Attempts) -> None:
    """Once its pod has been reported."""
    one = told(attempts, builders.launched(attempts))
    attempts.missed(one)
    assert decision.decide(one, NOW) is Do.FIND
    attempts.found(one)
    assert decision.decide(one, NOW) is Do.NOTHING


@pytest.mark.parametrize(
    ("closed", "do"),
    [
        (Closed.STORED, Do.NOTHING),
        (Closed.TERMINATED, Do.NOTHING),
        (Closed.DROPPED, Do.REPORT_DROPPED),
        (Closed.WITHDRAWN, Do.REPORT_WITHDRAWN),
    ],
)
def test_a_farewell_is_said_where_celery_waits_for_one(attempts: Attempts, closed: Closed, do: Do) -> None:
    """Once."""
    one = builders.queued(attempts)
    attempts.close(one, closed)
    assert decision.decide(one, NOW) is do
    attempts.reported(one, ended=True)
    assert decision.decide(one, NOW) is Do.NOTHING


def test_an_end_is_reported_when_the_outcome_is_read(attempts: Attempts) -> None:
    """Not before, and once."""
    one = builders.launched(attempts)
    attempts.end(one, endings.of_pod())
    assert decision.decide(one, NOW) is Do.NOTHING
    attempts.result(one, endings.deleted(one))
    assert decision.decide(one, NOW) is Do.REPORT_ENDED
    attempts.reported(one, ended=True)
    assert decision.decide(one, NOW) is Do.NOTHING


@pytest.mark.parametrize(
    ("state", "action", "do"),
    [
        (State.QUEUED, "retry", Do.EXPIRE),
        (State.QUEUED, "wait", Do.WARN),
        (State.PARKED, "fail", Do.EXPIRE),
        (State.LAUNCHING, "fail", Do.NOTHING),
        (State.LAUNCHING, "wait", Do.WARN),
        (State.PENDING, "fail", Do.EXPIRE),
        (State.PENDING, "wait", Do.WARN),
    ],
)
def test_a_deadline_does_what_its_rule_says(attempts: Attempts, state: State, action: str, do: Do) -> None:
    """But a launch under way is left alone: its calls are bounded."""
    one = told(attempts, builders.in_state(attempts, state))
    attempts.waits(one, wait(action=action))
    assert decision.decide(one, Now(99.9)) is (Do.READ_EVENTS if state is State.PENDING else Do.NOTHING)
    assert decision.decide(one, Now(100.0)) is do


@pytest.mark.parametrize("fields", [{"delivery_info": {"redelivered": True}}, {}])
def test_what_may_have_a_pod_is_not_ended_while_nobody_can_look(attempts: Attempts, fields: dict[str, Any]) -> None:
    """Its task may run: without an API server only what was never sent is ended at its deadline."""
    one = builders.queued(attempts, **fields)
    attempts.waits(one, wait(kind="slot"))
    without = Now(1000.0, is_connected=False)
    assert decision.decide(one, without) is (Do.NOTHING if fields else Do.EXPIRE)
    for doubt in ({"is_in_doubt": True}, {"doubted_mono_s": 1.0}):
        attempts.prepare(one, replace(builders.Launch(), **doubt))
        assert decision.decide(one, without) is Do.NOTHING
    assert decision.decide(one, Now(1000.0)) is Do.EXPIRE


sightings = st.none() | st.builds(
    sighting,
    st.sampled_from(["none", "running", "succeeded", "failed", "gone"]),
    started_at=st.sampled_from([None, builders.START]),
    is_result_awaited=st.booleans(),
    result_awaited_mono_s=st.sampled_from([None, 0.0, 999.0]),
)
waits = st.none() | st.builds(
    wait,
    kind=st.sampled_from(["start", "volume", "image", "slot", "quota"]),
    action=st.sampled_from(["wait", "retry", "fail"]),
    since_mono_s=st.sampled_from([0.0, 999.0]),
)


@settings(max_examples=300, deadline=None)
@given(
    state=st.sampled_from(list(State)),
    seen=sightings,
    waited=waits,
    flags=st.tuples(*[st.booleans()] * 6),
)
def test_no_decision_asks_for_a_move_that_the_table_refuses(
    state: State, seen: Sighting | None, waited: Wait | None, flags: tuple[bool, ...]
) -> None:
    """Whatever is known of an attempt, in whatever state."""
    attempts = Attempts(is_strict=True)
    one = builders.in_state(attempts, state)
    launched, started, ended, missing, doubt, connected = flags
    one.sighting, one.wait, one.is_missing = seen, waited, missing
    one.launch = replace(one.launch, is_in_doubt=doubt)
    attempts.reported(one, launched=launched, started=started, ended=ended)
    do = decision.decide(one, Now(1000.0, is_connected=connected))
    if do in MOVE_OF:
        assert states.after(one.state, MOVE_OF[do]) is not None
    if do is Do.REPORT_STARTED:
        assert one.started_at is not None
    if do is Do.REPORT_ENDED:
        assert one.ending is not None
        assert one.ending.result is not None
