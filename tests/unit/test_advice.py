"""What to do next: for each way to wait or fail, the step that helps most."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

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


@pytest.mark.parametrize(("side", "program"), [("kubernetes", "dispatcher"), ("celery", "worker")])
def test_a_queue_without_a_consumer_needs_one(side: str, program: str) -> None:
    """The command is of the attempt's side."""
    (step,) = steps("queued", attempts=(attempt(side=side),), consumers=())
    assert f"`podyard {program} --queues q`" in step


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("OOMKilled", "memory"),
        ("ErrImagePull", "image"),
        ("CreateContainerConfigError", "Secrets"),
        ("DeadlineExceeded", "shorter"),
    ],
)
def test_a_known_reason_has_a_remedy_of_its_own(reason: str, words: str) -> None:
    """Before looking at logs."""
    assert words in steps("failed", attempts=(attempt(state="failed", reason=reason, cause="application"),))[0]


def test_a_pod_that_no_node_takes_is_told_while_it_waits() -> None:
    """The pod's own reason is newer than the attempt's."""
    (step,) = steps("queued", attempts=(attempt(),), pod={"reason": "Unschedulable"})
    assert "node" in step


def test_a_fault_of_the_infrastructure_is_not_put_on_the_author() -> None:
    """It says whose budget was used up."""
    assert "not the task's" in " ".join(steps("failed", attempts=(attempt(state="lost", cause="infrastructure"),)))


def test_a_failed_upstream_is_pointed_at_in_words_that_a_shell_takes() -> None:
    """Ids may have spaces."""
    assert steps("upstream_failed", upstream={"up": "failed", "ok": "success"}) == (
        "why: `podyard tasks explain 'r 1' up`",
    )


def test_what_ended_well_needs_nothing() -> None:
    """No advice for its own sake."""
    assert steps("success", attempts=(attempt(state="succeeded"),)) == ()
