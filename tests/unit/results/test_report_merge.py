"""Merging reports into the row of an attempt: pure, order-free, the first verdict stands."""

import json
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.results import report_merge, reported
from routing.store import states

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SENT = report_merge.Facts(state="sent")


def started(second: int = 1, **fields: Any) -> reported.StartReport:
    return reported.StartReport(attempt_id="a", at=T0 + timedelta(seconds=second), **{"host": "h1", "pid": 7, **fields})


def ended(verdict: str = "succeeded", second: int = 3, **fields: Any) -> reported.EndReport:
    return reported.EndReport(attempt_id="a", verdict=verdict, at=T0 + timedelta(seconds=second), **fields)


def merged(row: report_merge.Facts, *reports: reported.Outcome) -> report_merge.Facts:
    """The row after all reports."""

    def step(row: report_merge.Facts, report: reported.Outcome) -> report_merge.Facts:
        answer = report_merge.merge(row, report)
        return answer.facts if isinstance(answer, report_merge.Apply) else row

    return reduce(step, reports, row)


def test_a_start_makes_it_running() -> None:
    assert merged(SENT, started()) == report_merge.Facts(
        state="running", started_at=T0 + timedelta(seconds=1), host="h1", pid=7
    )


def test_an_end_is_the_verdict() -> None:
    row = merged(SENT, started(), ended("failed", reason="ValueError", cause="application", error="no", exit_code=3))
    assert row == report_merge.Facts(
        state="failed",
        started_at=T0 + timedelta(seconds=1),
        ended_at=T0 + timedelta(seconds=3),
        host="h1",
        pid=7,
        reason="ValueError",
        cause="application",
        error="no",
        exit_code=3,
    )
    assert row.runtime_s == 2.0


def test_an_end_may_come_before_the_start() -> None:
    assert merged(SENT, ended(), started()) == merged(SENT, started(), ended())


def test_the_same_report_again_is_stale() -> None:
    row = merged(SENT, started(), ended())
    assert report_merge.merge(row, started()) == report_merge.Stale("this start is known")
    assert report_merge.merge(row, ended()) == report_merge.Stale("this verdict is known")


def test_the_first_verdict_stands_and_the_second_is_evidence() -> None:
    row = merged(SENT, ended("lost", 2, reason="Lost", cause="infrastructure"), ended("succeeded", 3))
    assert (row.state, row.cause) == ("lost", "infrastructure")
    assert [(entry["kind"], entry["verdict"]) for entry in row.evidence] == [("ended", "succeeded")]


def test_a_second_start_is_evidence() -> None:
    """Two starts of one attempt must not happen; if they do, the record shows both."""
    row = merged(SENT, started(2, host="h2"), started(1, host="h1"))
    assert (row.host, row.started_at) == ("h1", T0 + timedelta(seconds=1))
    assert [entry["host"] for entry in row.evidence] == ["h2"]


def test_a_verdict_that_no_table_knows_is_a_bug() -> None:
    with pytest.raises(KeyError):
        report_merge.merge(SENT, ended("exploded"))


starts = st.builds(started, st.integers(0, 3), host=st.sampled_from(["h1", "h2"]), pod=st.sampled_from([None, "p"]))
verdicts = st.builds(
    ended,
    st.sampled_from(["succeeded", "failed", "lost", "revoked"]),
    st.integers(3, 5),
    reason=st.sampled_from([None, "X"]),
    started=st.none() | starts,
)


@given(st.data(), st.lists(starts, max_size=4), verdicts, st.sampled_from(["recorded", "sent"]))
def test_order_and_doubling_do_not_matter(
    data: st.DataObject, several_starts: list[reported.StartReport], verdict: reported.EndReport, state: str
) -> None:
    """Any permutation of any multiple of the reports of an attempt with one verdict gives the same row."""
    reports: list[reported.Outcome] = [*several_starts, verdict]
    doubled = reports + data.draw(st.lists(st.sampled_from(reports), max_size=4))
    row = report_merge.Facts(state=state)
    assert merged(row, *data.draw(st.permutations(doubled))) == merged(row, *reports)


@given(st.lists(starts | verdicts, min_size=1, max_size=8))
def test_a_verdict_never_changes(reports: list[reported.Outcome]) -> None:
    """Whatever comes after the first verdict changes neither state, end nor reason; only ends are final."""
    row, verdict = SENT, None
    for report in reports:
        row = merged(row, report)
        if verdict is None and isinstance(report, reported.EndReport):
            verdict = report
        if verdict is not None:
            assert (row.state, row.ended_at, row.reason) == (verdict.verdict, verdict.at, verdict.reason)
        else:
            assert not row.is_final


@given(st.lists(starts | verdicts, max_size=8))
def test_every_step_is_a_move_of_the_table(reports: list[reported.Outcome]) -> None:
    row = SENT
    for report in reports:
        after = merged(row, report)
        assert after.state == row.state or after.state in states.ATTEMPT_MOVES[row.state]
        row = after


def read(meta: dict[str, Any]) -> reported.EndReport | None:
    return reported.read_result("a", meta, now=T0)


def failure(kind: str, message: list[Any], **more: Any) -> dict[str, Any]:
    return {"status": "FAILURE", "result": {"exc_type": kind, "exc_module": "m", "exc_message": message}, **more}


def test_a_success_carries_value_and_start() -> None:
    meta = {
        "status": "SUCCESS",
        "result": {"n": 1},
        "date_done": "2026-01-02T03:04:08",
        "started": {"at": "2026-01-02T03:04:06+00:00", "host": "h1", "pid": 7},
    }
    assert read(meta) == ended(value={"n": 1}, started=started())


@pytest.mark.parametrize("status", ["RETRY", "STARTED", "PENDING", None, 7])
def test_what_is_not_final_is_no_end(status: object) -> None:
    assert read({"status": status, "result": None}) is None


def test_an_exception_is_the_authors() -> None:
    end = read(failure("ValueError", ["no"], traceback="Traceback: …"))
    assert end is not None
    assert (end.verdict, end.reason, end.cause, end.message) == ("failed", "ValueError", "application", "no")
    assert end.error == "no\nTraceback: …"


def test_a_pods_details_are_read() -> None:
    details = {"reason": "Evicted", "exit_code": 137, "cause": "infrastructure", "pod": "p-1", "node": "n-1"}
    end = read(failure("PodFailed", ["the pod was evicted", details]))
    assert end is not None
    assert (end.reason, end.exit_code, end.cause) == ("Evicted", 137, "infrastructure")
    assert (end.pod, end.host, end.message) == ("p-1", "n-1", "the pod was evicted")
    assert not end.is_skip


def test_only_details_can_say_skipped() -> None:
    """An exception that happens to have this name is a failure."""
    skipped = read(failure("PodSkipped", ["exit code 99", {"reason": "Skipped", "exit_code": 99}]))
    named = read(failure("Skipped", ["no"]))
    assert skipped is not None
    assert named is not None
    assert (skipped.is_skip, named.is_skip) == (True, False)


@pytest.mark.parametrize(
    ("text", "reason", "exit_code", "cause"),
    [
        ("Worker exited prematurely: exitcode 1 Job: 3.", "ProcessExited", 1, "application"),
        ("Worker exited prematurely: signal 9 (SIGKILL) Job: 0.", "ProcessKilled", 137, "unknown"),
        ("Worker exited prematurely: signal 11 (SIGSEGV) Job: 0.", "ProcessKilled", 139, "unknown"),
        ("Worker exited prematurely: exitcode 155 Job: 1.", "ProcessKilled", 155, "unknown"),
        ("something else", "ProcessKilled", None, "unknown"),
    ],
)
def test_a_lost_process_says_how(text: str, reason: str, exit_code: int | None, cause: str) -> None:
    end = read(failure("WorkerLostError", [text]))
    assert end is not None
    assert (end.reason, end.exit_code, end.cause) == (reason, exit_code, cause)
    assert text in (end.error or "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["status", "result", "traceback", "date_done", "started", "exc_type", "exc_message", "at", "id", "pid"]


@given(st.dictionaries(st.sampled_from(KEYS), json_values | st.sampled_from(["SUCCESS", "FAILURE", "REVOKED"])))
def test_no_result_from_outside_raises(meta: dict[str, Any]) -> None:
    """Whatever stands in a result key is read or refused, never raised, and can be written down."""
    end = read(meta)
    assert reported.read_started(meta) is None or isinstance(reported.read_started(meta), reported.StartReport)
    if end is not None:
        row = merged(SENT, end, ended("lost", 9))
        json.dumps(row.evidence)
        assert row.is_final
