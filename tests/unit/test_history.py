"""The history checker finds what it is there to find: every bad history here was made by hand."""

import dataclasses

import pytest

from tests import history
from tests.history import BodyEnded, BodyStarted, Held, LeftOver, PodSeen, Recorded, Recovered, Submitted, Verdict

GOOD: tuple[history.Event, ...] = (
    Submitted(task="t"),
    Recorded(attempt="a1", task="t", number=1, state="sent", waiting_reason="waiting for a free worker slot"),
    PodSeen(attempt="a1", uid="u1"),
    BodyStarted(attempt="a1", at=10.0),
    Recorded(attempt="a1", task="t", number=1, state="lost", ended_at=12.0, cause="infrastructure"),
    Recorded(attempt="a2", task="t", number=2, state="succeeded", ended_at=14.0),
    PodSeen(attempt="a2", uid="u2"),
    BodyStarted(attempt="a2", at=13.0),
    BodyEnded(attempt="a2", at=13.5),
    Verdict(task="t", state="running"),
    Verdict(task="t", state="success"),
    Recovered(part="dispatcher", seconds=3.0, bound_s=30.0),
    Held(what="pods", count=4, limit=4),
)
LOST, GOOD_ROW, START_2, END_2, SUCCESS = GOOD[4], GOOD[5], GOOD[7], GOOD[8], GOOD[10]


def found(*events: history.Event) -> set[tuple[str, str]]:
    """(guarantee, kind) of what is wrong."""
    return {(one.guarantee, one.kind) for one in history.check(events)}


def without(*events: history.Event) -> list[history.Event]:
    """The good history, less some events."""
    return [event for event in GOOD if event not in events]


def test_a_lost_attempt_that_was_tried_again_is_no_violation() -> None:
    """Its body began, its worker was killed, it was recorded as lost: that is what we promise."""
    assert history.check(GOOD) == []


def test_an_accepted_task_of_which_nothing_is_known_is_lost() -> None:
    """G1."""
    assert found(Submitted(task="t")) == {("G1", "lost")}


@pytest.mark.parametrize("state", ["none", "queued", "running", "up_for_retry"])
def test_a_task_without_a_final_verdict_is_stuck(state: str) -> None:
    """G1: whatever it waits for."""
    assert found(Submitted(task="t"), Verdict(task="t", state=state)) == {("G1", "stuck")}


def test_a_success_without_the_effects_of_its_body_is_lost() -> None:
    """G1: the record says success, the file says that the body never came to its end."""
    assert found(*without(END_2)) == {("G1", "lost")}


def test_a_success_whose_attempts_all_failed_is_a_false_verdict() -> None:
    """G2."""
    bad = dataclasses.replace(GOOD_ROW, state="failed", cause="application")

    assert found(*without(GOOD_ROW), bad) == {("G2", "verdict")}


def test_two_attempts_that_succeeded_are_one_too_many() -> None:
    """G2: and the second began before the first had a verdict of its own."""
    first = dataclasses.replace(LOST, state="succeeded")

    assert ("G2", "verdict") in found(*without(LOST), first, BodyEnded(attempt="a1", at=11.0))


@pytest.mark.parametrize("later", ["failed", "running"])
def test_a_verdict_that_changes_is_seen(later: str) -> None:
    """G2: of a task."""
    assert ("G2", "changed") in found(*GOOD[:-2], Verdict(task="t", state=later), Verdict(task="t", state="success"))


def test_an_attempt_whose_verdict_changes_is_seen() -> None:
    """G2: of an attempt: it was lost, then it was not."""
    earlier = dataclasses.replace(GOOD_ROW, state="lost")

    assert found(earlier, *GOOD) == {("G2", "changed")}


def test_a_body_that_began_twice_under_one_attempt_is_doubled() -> None:
    """G3: the heart of the promise."""
    assert found(*GOOD, BodyStarted(attempt="a2", at=13.2)) == {("G3", "doubled")}


def test_a_body_that_ended_twice_is_doubled_though_one_line_of_its_start_is_missing() -> None:
    """G3."""
    assert ("G3", "doubled") in found(*GOOD, BodyEnded(attempt="a2", at=13.9))


def test_two_pods_of_one_launch_are_doubled_and_those_of_two_launches_are_not() -> None:
    """G3: the name is the claim; a retry of Celery's is another launch of the same id."""
    assert found(*GOOD, PodSeen(attempt="a2", uid="u3")) == {("G3", "doubled")}
    assert found(*GOOD, PodSeen(attempt="a2", uid="u3", launch=1)) == set()


def test_an_attempt_that_begins_beside_the_one_before_it_is_doubled() -> None:
    """G3: attempt 1 was declared lost at 12.0; attempt 2 must not begin at 11.0."""
    early = dataclasses.replace(START_2, at=11.0)

    assert found(*without(START_2), early) == {("G3", "doubled")}


def test_a_body_that_begins_after_its_verdict_is_doubled() -> None:
    """G3: but for an attempt given up with its worker, whose process may come back to life."""
    late = (BodyStarted(attempt="a2", at=20.0), BodyEnded(attempt="a2", at=21.0))

    assert found(*without(START_2, END_2), *late) == {("G3", "doubled"), ("G2", "early")}


@pytest.mark.parametrize("event", [BodyStarted(attempt="x", at=1.0), PodSeen(attempt="x", uid="u")])
def test_what_nobody_recorded_must_not_run(event: history.Event) -> None:
    """G4: the row comes before the message and before the pod."""
    assert found(*GOOD, event) == {("G4", "unrecorded")}


def test_what_is_left_over_is_told() -> None:
    """G4: pods, messages, rows, slots."""
    assert found(*GOOD, LeftOver(kind="pod", name="p")) == {("G4", "left over")}


def test_a_sound_task_that_failed_was_charged_wrongly() -> None:
    """G5."""
    failed = Verdict(task="t", state="failed")
    row = dataclasses.replace(GOOD_ROW, state="failed", cause="infrastructure")

    assert found(*without(GOOD_ROW, SUCCESS), row, failed) == {("G5", "failed")}


def test_a_task_that_is_meant_to_fail_may_fail() -> None:
    """`wanted` is what its body earns."""
    assert found(Submitted(task="t", wanted="failed"), Verdict(task="t", state="failed")) == set()


def test_slow_recovery_and_overshoot_are_told() -> None:
    """G6 and G9."""
    bad = (Recovered(part="worker", seconds=31.0, bound_s=30.0), Held(what="pods", count=5, limit=4))

    assert found(*GOOD, *bad) == {("G6", "slow"), ("G9", "overshoot")}


def test_an_open_attempt_is_stuck_and_without_a_reason_unexplained() -> None:
    """G1 and G7."""
    open_row = Recorded(attempt="a3", task="u", number=1, state="sent")

    assert found(open_row) == {("G1", "stuck"), ("G7", "unexplained")}


def test_a_task_that_runs_again_after_its_success_is_doubled() -> None:
    """G3: whatever becomes of the attempt that nobody needed."""
    again = Recorded(attempt="a3", task="t", number=3, state="lost", ended_at=16.0)

    assert found(*GOOD, again) == set(), "recorded, and never begun"
    assert found(*GOOD, again, BodyStarted(attempt="a3", at=15.0)) == {("G3", "doubled")}


def test_two_attempts_of_one_number_are_one_too_many() -> None:
    """G3: a try was recorded twice, though each of them may have run once."""
    twin = Recorded(attempt="a3", task="t", number=1, state="lost", ended_at=12.5)

    assert found(*GOOD, twin) == {("G3", "doubled")}


def test_a_verdict_that_comes_before_the_end_of_its_body_is_early() -> None:
    """G2: somebody said success while the body still worked; whole seconds are no lie."""
    late = dataclasses.replace(END_2, at=16.0)  # type: ignore[call-arg]

    assert found(*without(END_2), late) == {("G2", "early")}
    assert found(*without(END_2), dataclasses.replace(END_2, at=14.9)) == set()  # type: ignore[call-arg]


def test_an_end_before_its_beginning_is_of_another_life() -> None:
    """G3: one line of a start and one of an end, of two runs."""
    assert found(*without(END_2), dataclasses.replace(END_2, at=12.5)) == {("G3", "doubled")}  # type: ignore[call-arg]


@pytest.mark.parametrize("state", ["failed", "skipped", "upstream_failed", "cancelled"])
def test_a_verdict_that_its_body_did_not_earn_is_told(state: str) -> None:
    """G5: whatever it is instead of a success."""
    assert ("G5", "failed") in found(*without(SUCCESS), Verdict(task="t", state=state))


def test_order_and_doubled_looks_make_no_difference() -> None:
    """G2: all that is seen may be seen again, in any order in which looks may come."""
    again = [event for event in GOOD for _ in range(2) if not isinstance(event, BodyStarted | BodyEnded)]
    bodies = [event for event in GOOD if isinstance(event, BodyStarted | BodyEnded)]

    assert history.check([*reversed(bodies), *again]) == []


VIOLATIONS = {
    "lost task": ([Submitted(task="x")], "lost"),
    "stuck attempt": ([Recorded(attempt="x", task="x", number=1, state="running")], "stuck"),
    "doubled body": ([BodyStarted(attempt="a2", at=13.1)], "doubled"),
    "left over": ([LeftOver(kind="message", name="x")], "left over"),
    "overshoot": ([Held(what="pods", count=9, limit=8)], "overshoot"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_one_wrong_thing_among_thousands_of_right_ones_is_found_alone(name: str) -> None:
    """A thousand good lives beside it neither hide it nor are blamed for it."""
    planted, kind = VIOLATIONS[name]
    crowd = [
        dataclasses.replace(event, **{key: f"{getattr(event, key)}-{number}" for key in NAMES if hasattr(event, key)})
        for number in range(1000)
        for event in GOOD
    ]

    wrong = history.check([*crowd, *GOOD, *planted])

    assert [one.kind for one in wrong if one.guarantee != "G7"] == [kind]


NAMES = ("task", "attempt", "uid")


def test_an_end_of_which_there_was_no_beginning_is_seen() -> None:
    """G3: alone, where nothing else is wrong with the attempt."""
    lost = Recorded(attempt="a3", task="u", number=1, state="lost", ended_at=9.0)

    assert found(lost, BodyEnded(attempt="a3", at=8.0)) == {("G3", "doubled")}


def test_what_waits_with_a_reason_is_explained_and_what_runs_needs_none() -> None:
    """G7: both are stuck at the end, neither is unexplained."""
    waits = Recorded(attempt="a3", task="u", number=1, state="sent", waiting_reason="no slot is free")
    runs = Recorded(attempt="a4", task="v", number=1, state="running")

    assert found(waits, runs) == {("G1", "stuck")}


def test_a_bound_itself_is_kept() -> None:
    """G6 and G9: what comes in time, and what fills its limit, is as promised."""
    assert found(Recovered(part="w", seconds=30.0, bound_s=30.0), Held(what="pods", count=8, limit=8)) == set()


def test_the_summary_names_the_four_kinds_of_the_audit_even_where_there_is_none() -> None:
    """So that a report shows four zeros and not an empty line."""
    assert history.summary([]) == {"lost": 0, "doubled": 0, "stuck": 0, "left over": 0}
    assert history.summary(history.check([Submitted(task="t")]))["lost"] == 1
