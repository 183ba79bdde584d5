"""Ready tasks, trigger rules, run states and retries: all pure."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.authoring.trigger import TriggerRule
from routing.scheduling import ready, retrying

FINAL = ("success", "failed", "skipped", "upstream_failed")


def graph(**upstream: str) -> ready.Graph:
    """`c="a b"` is a task c after a and b; a name that ends with `_` is an empty operator."""
    return ready.Graph(
        ready.Node(task_id=task_id, upstream=tuple(names.split()), is_instant=task_id.endswith("_"))
        for task_id, names in upstream.items()
    )


def test_tasks_without_upstream_are_ready_at_once() -> None:
    _, settled = ready.Progress.of(graph(a="", b="", c="a b"), {})
    assert settled == ready.Settled(("a", "b"), ())


def test_a_task_is_ready_when_the_last_upstream_ends() -> None:
    progress, _ = ready.Progress.of(graph(a="", b="", c="a b"), {})
    assert progress.end([("a", "success")]) == ready.Settled((), ())
    assert progress.end([("b", "success")]) == ready.Settled(("c",), ())


def test_an_end_counts_once() -> None:
    progress, _ = ready.Progress.of(graph(a="", b="", c="a b"), {})
    progress.end([("a", "success")])
    assert progress.end([("a", "success")]) == ready.Settled((), ())
    assert progress.unfinished == 2


def test_a_failure_goes_down_the_graph_at_once() -> None:
    progress, _ = ready.Progress.of(graph(a="", b="a", c="b", d=""), {})
    assert progress.end([("a", "failed")]) == ready.Settled((), (("b", "upstream_failed"), ("c", "upstream_failed")))


def test_empty_operators_succeed_by_themselves() -> None:
    _, settled = ready.Progress.of(graph(a_="", b_="a_", c="b_"), {})
    assert settled == ready.Settled(("c",), (("a_", "success"), ("b_", "success")))


def test_a_run_without_tasks_is_done() -> None:
    progress, _ = ready.Progress.of(graph(), {})
    assert (progress.is_done, progress.outcome()) == (True, "success")


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        (("success", "success"), "success"),
        (("success", "skipped"), "success"),
        (("success", "upstream_failed"), "failed"),
        (("failed", "success"), "failed"),
        (("success", "cancelled"), "failed"),
    ],
)
def test_leaves_decide_the_run(states: tuple[str, ...], outcome: str) -> None:
    assert ready.run_state(states) == outcome


def test_a_failure_that_a_later_task_forgives_is_a_success() -> None:
    """As in Airflow: only the tasks that nothing follows decide."""
    nodes = [ready.Node(task_id="a"), ready.Node(task_id="b", upstream=("a",), rule="all_done")]
    progress, _ = ready.Progress.of(ready.Graph(nodes), {})
    assert progress.end([("a", "failed")]).ready == ("b",)
    progress.end([("b", "success")])
    assert progress.outcome() == "success"


CASES = ("one_ok", "all_ok", "one_failed", "all_failed", "one_skipped", "all_skipped")
R, U, S, OPEN = ready.RUN, "upstream_failed", "skipped", None


@pytest.mark.parametrize(
    ("rule", "answers"),
    [
        ("all_success", (OPEN, R, U, U, S, S)),
        ("all_failed", (S, S, OPEN, R, S, S)),
        ("all_done", (OPEN, R, OPEN, R, OPEN, R)),
        ("one_success", (R, R, OPEN, U, OPEN, S)),
        ("one_failed", (OPEN, S, R, R, OPEN, S)),
        ("one_done", (R, R, R, R, OPEN, S)),
        ("none_failed", (OPEN, R, U, U, OPEN, R)),
        ("none_failed_min_one_success", (OPEN, R, U, U, OPEN, S)),
        ("none_skipped", (OPEN, R, OPEN, R, S, S)),
        ("all_skipped", (S, S, S, S, OPEN, R)),
        ("always", (R, R, R, R, R, R)),
    ],
)
def test_trigger_rules(rule: str, answers: tuple[str | None, ...]) -> None:
    """What each rule says of two upstream tasks after the first and after both ended in a way."""
    states = {"ok": "success", "failed": "failed", "skipped": "skipped"}
    for case, wanted in zip(CASES, answers, strict=True):
        number, state = case.split("_")
        counts = ready.Counts(total=2)
        for _ in range(2 if number == "all" else 1):
            counts.add(states[state])
        assert ready.decide(rule, counts) == wanted, case


def test_every_rule_that_authors_may_write_is_known() -> None:
    assert {rule.value for rule in TriggerRule} <= ready.RULES.keys()


@given(st.sampled_from(sorted(ready.RULES)), st.lists(st.sampled_from(FINAL), max_size=5))
def test_every_rule_decides_in_the_end(rule: str, states: list[str]) -> None:
    """When all upstream tasks have ended no task is left undecided: a run cannot hang."""
    counts = ready.Counts(total=len(states))
    for state in states:
        counts.add(state)
    assert ready.decide(rule, counts) is not None


@st.composite
def graphs(draw: st.DrawFn) -> ready.Graph:
    count = draw(st.integers(1, 8))
    nodes = []
    for number in range(count):
        before = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        nodes.append(
            ready.Node(
                task_id=f"t{number}",
                upstream=tuple(f"t{one}" for one in sorted(before)),
                rule=draw(st.sampled_from(sorted(ready.RULES))),
                is_instant=draw(st.booleans()),
            )
        )
    return ready.Graph(nodes)


@given(graphs(), st.data())
def test_the_cache_says_what_the_record_would_say(built: ready.Graph, data: st.DataObject) -> None:
    """Step by step, in any order of ends: building anew from the states finds nothing that was not found already, each
    task is ready at most once, and the run comes to an end."""
    progress, settled = ready.Progress.of(built, {})
    running, seen = list(settled.ready), list(settled.ready)
    while running:
        again, found = ready.Progress.of(built, progress.states)
        assert found == ready.Settled((), ())
        assert (again.unfinished, again.counts) == (progress.unfinished, progress.counts)
        task_id = running.pop(data.draw(st.integers(0, len(running) - 1)))
        settled = progress.end([(task_id, data.draw(st.sampled_from(("success", "failed", "skipped"))))])
        running.extend(settled.ready)
        seen.extend(settled.ready)
    assert progress.is_done
    assert len(seen) == len(set(seen))
    assert progress.outcome() in ("success", "failed")


NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUDGET = retrying.Budget(retries=1, retry_delay_s=30, infra_retries=2, infra_retry_delay_s=5)


def decide(cause: str | None, attempts: int, infra: int) -> retrying.Retry | retrying.GiveUp:
    used = retrying.Used(attempts=attempts, infra_failures=infra)
    return retrying.decide(cause=cause, used=used, budget=BUDGET, now=NOW)


def test_the_authors_failures_use_the_authors_retries() -> None:
    assert decide("application", 1, 0) == retrying.Retry(NOW + timedelta(seconds=30), is_infrastructure=False)
    assert decide("application", 2, 0) == retrying.GiveUp("failed 2 times")
    assert decide("unknown", 2, 0) == retrying.GiveUp("failed 2 times")


def test_faults_of_the_infrastructure_are_not_charged_to_the_author() -> None:
    assert decide("infrastructure", 1, 0) == retrying.Retry(NOW + timedelta(seconds=5), is_infrastructure=True)
    assert decide("infrastructure", 2, 1) == retrying.Retry(NOW + timedelta(seconds=10), is_infrastructure=True)
    assert decide("application", 3, 2) == retrying.Retry(NOW + timedelta(seconds=30), is_infrastructure=False)
    assert decide("infrastructure", 3, 2) == retrying.GiveUp("the infrastructure failed 3 times")


def test_a_growth_of_memory_costs_nobody_a_retry() -> None:
    """Not even where the author allows none; what fails later is charged as if there had been no growth."""
    grown = retrying.Used(attempts=2, infra_failures=0, growths=1)
    none = retrying.Budget(retries=0, retry_delay_s=30, infra_retries=2, infra_retry_delay_s=5)
    assert retrying.decide(cause="application", used=grown, budget=none, now=NOW, may_grow=True) == retrying.Retry(
        NOW, is_infrastructure=False, is_growth=True
    )
    used = retrying.Used(attempts=3, infra_failures=1, growths=1)
    assert retrying.decide(cause="application", used=used, budget=BUDGET, now=NOW) == retrying.Retry(
        NOW + timedelta(seconds=30), is_infrastructure=False
    )
    assert retrying.decide(cause="application", used=used, budget=none, now=NOW) == retrying.GiveUp(
        "failed, and it has no retries"
    )
