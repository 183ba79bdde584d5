"""The commands that help next, for each way to wait or fail."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from routing.cli import advice
from routing.store import explanation, rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = rows.RunRow(
    id=1,
    run_id="r 1",
    dag_id="d",
    run_type="manual",
    logical_date=NOW,
    conf={},
    state="running",
    created_at=NOW,
    started_at=NOW,
    ended_at=None,
    reason=None,
)
CONSUMER = rows.ConsumerRow(queue="q", worker="w", pool="prefork", seen_at=NOW)


def task(state: str) -> rows.TaskRow:
    nothing = dict.fromkeys(
        ("queue", "side", "host", "pod", "started_at", "ended_at", "runtime_s", "reason", "waiting_reason")
    )
    return rows.TaskRow(
        run_id="r 1",
        dag_id="d",
        task_id="t",
        map_index=-1,
        state=state,
        operator="python",
        try_number=1,
        next_try_at=None,
        attempt=None,
        **nothing,  # type: ignore[arg-type]
    )


def attempt(**changes: Any) -> rows.AttemptRow:
    values = dict.fromkeys(rows.AttemptRow.__dataclass_fields__) | {
        "id": "a",
        "number": 1,
        "side": "kubernetes",
        "queue": "q",
        "state": "sent",
        "started_at": NOW,
        "evidence": (),
    }
    return rows.AttemptRow(**(values | changes))  # type: ignore[arg-type]


def steps(state: str, **changes: Any) -> tuple[str, ...]:
    facts = rows.Explanation(
        task=task(state), run=RUN, attempts=(), upstream={}, consumers=(CONSUMER,), pod=None, wait=None, lines=()
    )
    facts = replace(facts, **changes)
    return advice.next_steps(replace(facts, diagnosis=explanation.diagnosed(facts)))


def test_what_failed_is_looked_into_and_run_again() -> None:
    """Its log where it began to run; what to do about the failure stands in the explanation."""
    ended = attempt(state="failed", reason="OOMKilled", cause="application")
    assert steps("failed", attempts=(ended,)) == (
        "what it printed: `podyard tasks logs 'r 1' t`",
        "then run it again: `podyard dags trigger d`",
    )
    never = replace(ended, started_at=None)
    assert steps("failed", attempts=(never,)) == ("then run it again: `podyard dags trigger d`",)


def test_a_failed_upstream_is_pointed_at_in_words_that_a_shell_takes() -> None:
    """Ids may have spaces."""
    assert steps("upstream_failed", upstream={"up": "failed", "ok": "success"}) == (
        "why: `podyard tasks explain 'r 1' up`",
    )


def test_what_ended_well_needs_nothing() -> None:
    """No advice for its own sake."""
    assert steps("success", attempts=(attempt(state="succeeded"),)) == ()
