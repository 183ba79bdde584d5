"""What a dispatcher does with a message, by what stands under its attempt's claim."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.protocol import launch_claim
from dispatcher.protocol.launch_claim import LEASE_S, Answer, Claim, Step, decide


def held(*, retries: int = 0, state: str = launch_claim.LAUNCHING) -> str:
    """The claim of another delivery, as the result backend keeps it."""
    claim = Claim(token="other", retries=retries, owner="first@host", state=state)
    return f'{{"launch":{claim.encode()},"since_ms":1}}'


WORKER = '{"at":"2026-01-01T00:00:00+00:00","holder":"w:1","instance":"i","nonce":"n"}'
OLD, NEW = LEASE_S, LEASE_S - 0.1


@pytest.mark.parametrize(
    ("answer", "was_ours", "is_pod_missing", "expected"),
    [
        (Answer(), False, False, Step("create", "Claimed")),
        (Answer(), True, True, Step("create", "Claimed")),
        (Answer(has_outcome=True), False, False, Step("drop", "Ended")),
        (Answer(held=held(), age_s=OLD, has_outcome=True), False, True, Step("drop", "Ended")),
        (Answer(held='{"blocked":true}'), False, False, Step("drop", "Blocked")),
        (Answer(held='{"blocked":true}'), True, False, Step("drop", "Blocked")),
        (Answer(held=WORKER), False, False, Step("drop", "RunsElsewhere")),
        (Answer(held=held(retries=1)), False, False, Step("replace", "EarlierLaunch", "first@host")),
        (Answer(held=held(retries=3)), False, False, Step("drop", "LaterLaunch", "first@host")),
        (Answer(held=held(retries=2), age_s=OLD), False, False, Step("look", "ClaimedBefore", "first@host")),
        (Answer(held=held(retries=2), age_s=NEW), False, True, Step("wait", "ClaimedBefore", "first@host")),
        (Answer(held=held(retries=2), age_s=OLD), False, True, Step("lose", "PodLost", "first@host")),
        (Answer(held=held(retries=2, state="lost")), False, False, Step("report", "PodLost", "first@host")),
        (Answer(held=held(retries=2, state="lost")), True, False, Step("drop", "PodLost", "first@host")),
    ],
)
def test_each_claim_that_is_found_has_one_answer(
    answer: Answer, was_ours: bool, is_pod_missing: bool, expected: Step
) -> None:
    """The table of docs/adr/0006; the launch is Celery's third (retries 2)."""
    assert decide(answer, place=(0, 2), was_ours=was_ours, is_pod_missing=is_pod_missing) == expected


@given(
    st.one_of(st.text(max_size=30), st.recursive(st.none() | st.integers(), st.lists).map(json.dumps)),
    st.booleans(),
    st.booleans(),
)
def test_a_claim_that_cannot_be_read_is_never_overridden(text: str, was_ours: bool, is_pod_missing: bool) -> None:
    """Another version, or another program, may have written it."""
    step = decide(Answer(held=text), place=(0, 0), was_ours=was_ours, is_pod_missing=is_pod_missing)
    assert step.action == "drop"


@given(st.integers(0, 5), st.integers(0, 5), st.sampled_from(["launching", "lost"]), st.floats(0, 100), st.booleans())
def test_nothing_is_created_where_another_has_claimed_the_same_launch(
    retries: int, theirs: int, state: str, age_s: float, is_pod_missing: bool
) -> None:
    """Only a launch before this one makes room."""
    answer = Answer(held=held(retries=theirs, state=state), age_s=age_s)
    step = decide(answer, place=(0, retries), was_ours=False, is_pod_missing=is_pod_missing)
    assert (step.action == "replace") == (theirs < retries)
    assert step.action != "create"


@pytest.mark.parametrize(
    ("text", "expected"), [(held(retries=1), True), (held(), False), (WORKER, False), ("{", False), (None, False)]
)
def test_a_claim_is_known_as_that_of_a_launch(text: Any, expected: bool) -> None:
    """What may be taken back when a message is put back into its queue."""
    assert launch_claim.is_of_launch(text, place=(0, 1)) is expected


def test_a_create_is_sent_well_within_the_lease() -> None:
    """Renewals come in time, and what was sent on a fresh claim is settled when the lease is over."""
    assert 3 * launch_claim.RENEW_S < LEASE_S
    assert 2 * launch_claim.FRESH_S <= LEASE_S
