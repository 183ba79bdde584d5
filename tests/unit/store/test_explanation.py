"""An explanation says each thing once: what happened, why, whose it is, what to do; for every kind of ending."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.attempts import endings, wait_rules
from dispatcher.status import pod_events
from routing.cli import advice
from routing.results import report_merge, reported
from routing.store import explanation, rows
from tests.unit.test_advice import CONSUMER, NOW, RUN, attempt, task

LABELS = ["what happened", "why", "whose", "what to do"]
WAIT_LABELS = ["what happens", "why", "whose", "what to do"]


def of_pod(message: str, reason: str, *, event: tuple[str, str] | None = None, **details: Any) -> Mapping[str, Any]:
    """The result of an attempt whose pod failed, as Celery stores it."""
    failure = errors.PodFailed(message, {"reason": reason, "pod": "d-t-abc", **details})
    events = (pod_events.Event(at="", reason=event[0], message=event[1], is_warning=True),) if event else ()
    told = endings.diagnosed(failure, events=events)
    return {"status": "FAILURE", "result": {"exc_type": "PodFailed", "exc_message": [told.message, told.details]}}


def of_body(message: str, details: Mapping[str, Any], *, kind: str = "TaskFailed") -> Mapping[str, Any]:
    """The result of an attempt whose body ended by itself."""
    return {"status": "FAILURE", "result": {"exc_type": kind, "exc_message": [message, dict(details)]}}


def raised(kind: str, *words: str, status: str = "FAILURE", traceback: str | None = None) -> Mapping[str, Any]:
    return {"status": status, "traceback": traceback, "result": {"exc_type": kind, "exc_message": list(words)}}


OWNERS = {"author": "the task's author's", "infrastructure": "the infrastructure's"}
AUTHOR, INFRA = {"cause": "application"}, {"cause": "infrastructure"}
ENDINGS: dict[str, tuple[Mapping[str, Any], str, str, str]] = {
    # name: result, side, whose, words that stand once
    "out of memory": (
        of_pod("the pod d-t-abc failed: OOMKilled, exit code 137", "OOMKilled", exit_code=137, container="base",
               memory_limit="64Mi", **AUTHOR),
        "kubernetes", "author", "OOMKilled",
    ),
    "image": (
        of_pod('the pod d-t-abc failed: ErrImagePull, failed to resolve "r.example/x:1": not found',
               "ErrImagePull", container="base", **AUTHOR),
        "kubernetes", "author", "ErrImagePull",
    ),
    "image, network": (
        of_pod("the pod d-t-abc failed: ErrImagePull, dial tcp 10.0.0.1:443: connect: network is unreachable",
               "ErrImagePull", container="base", **INFRA),
        "kubernetes", "infrastructure", "network is unreachable",
    ),
    "unschedulable": (
        of_pod(wait_rules.too_long(
                   wait_rules.Wait(kind="unschedulable", reason="Unschedulable", detail="1 Insufficient cpu.",
                                   since_mono_s=0, rule=wait_rules.Rule(action="retry", after_s=60), said_by="waits"),
                   subject="the pod d-t-abc"),
               "Unschedulable", **INFRA),
        "kubernetes", "infrastructure", "Unschedulable",
    ),
    "quota": (
        of_pod('the pod was not launched: 403 Forbidden: pods "x" is forbidden: exceeded quota: team, requested: '
               "requests.memory=64Gi, limited: requests.memory=32Gi", "LargerThanQuota", **AUTHOR),
        "kubernetes", "author", "LargerThanQuota",
    ),
    "revoked": (raised("TaskRevokedError", "terminated", status="REVOKED"), "kubernetes", "nobody", "on request"),
    "deadline": (
        of_pod("the pod d-t-abc failed: DeadlineExceeded, Pod was active on the node longer than it may",
               "DeadlineExceeded", **AUTHOR),
        "kubernetes", "author", "DeadlineExceeded",
    ),
    "exit code on a worker": (
        of_body("the bash command failed with exit code 127", {"reason": "Error", "exit_code": 127, **AUTHOR}),
        "celery", "author", "exit code 127",
    ),
    "exit code 3 on a worker": (
        of_body("the bash command failed with exit code 3", {"reason": "Error", "exit_code": 3, **AUTHOR}),
        "celery", "author", "the bash command failed",
    ),
    "exit code in a pod": (
        of_pod("the pod d-t-abc failed: Error, exit code 126", "Error", exit_code=126, container="base", **AUTHOR),
        "kubernetes", "author", "exit code 126",
    ),
    "init container": (
        of_pod("the pod d-t-abc failed: its container fetch: Error, exit code 9", "Error", exit_code=9,
               container="fetch", **AUTHOR),
        "kubernetes", "author", "container fetch: Error",
    ),
    "DAG file": (
        of_body("the DAG file a.py is not in /dags here", {"reason": "DagFileMissing", **AUTHOR}),
        "celery", "author", "DagFileMissing",
    ),
    "exception": (
        raised("ValueError", "no such thing", traceback="Traceback (most recent call last):\n  …\nValueError: x"),
        "celery", "author", "no such thing",
    ),
    "killed worker": (
        raised("WorkerLostError", "Worker exited prematurely: signal 9 (SIGKILL) Job: 0."), "celery", "nobody can say",
        "killed by signal 9",
    ),
    "node pressure": (
        of_pod("the pod d-t-abc failed: Evicted, The node was low on resource: memory. Threshold quantity: 1",
               "Evicted", **INFRA),
        "kubernetes", "infrastructure", "Evicted",
    ),
}  # fmt: skip


def ended(result: Mapping[str, Any], side: str) -> rows.AttemptRow:
    """The attempt as the record has it, once the collector has merged its result."""
    report = reported.read_result("a", result, now=NOW + timedelta(seconds=3))
    assert isinstance(report, reported.EndReport)
    merged = report_merge.merge(report_merge.Facts(state="sent"), report)
    assert isinstance(merged, report_merge.Apply)
    facts = {
        name: getattr(merged.facts, name) for name in ("state", "exit_code", "reason", "cause", "error", "diagnosis")
    }
    return attempt(side=side, **facts)


def story(state: str, *attempts: rows.AttemptRow, **changes: Any) -> list[str]:
    """What the command prints of it."""
    reason = changes.pop("reason", None)
    facts = rows.Explanation(
        task=replace(task(state), reason=reason), run=RUN, attempts=attempts, upstream={}, consumers=(CONSUMER,),
        pod=None, wait=None, lines=(),
    )  # fmt: skip
    facts = replace(facts, **changes)
    facts = replace(facts, wait=explanation.wait(facts), diagnosis=explanation.diagnosed(facts))
    lines = explanation.lines(facts, trigger_rule="all_success", at=NOW + timedelta(seconds=90))
    return [*lines, *(f"next: {step}" for step in advice.next_steps(facts))]


def labels(lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines if line.partition(":")[0] in {*LABELS, *WAIT_LABELS}]


@pytest.mark.parametrize("name", ENDINGS)
def test_each_thing_is_said_once_and_in_order(name: str) -> None:
    """What happened, why, whose, what to do; the record's own words for the task repeat none of it."""
    result, side, whose, words = ENDINGS[name]
    latest = ended(result, side)
    lines = story("failed", latest, reason=f"{latest.reason}: {latest.error} (failed, and it has no retries)")
    text = "\n".join(lines)
    assert labels(lines) == LABELS, text
    assert f"\nwhose: {OWNERS.get(whose, whose)}" in text, text
    assert text.count(words) == 1, text
    for part in {*latest.diagnosis.values()} if latest.diagnosis else ():  # type: ignore[union-attr]
        assert text.count(str(part)) <= 1 or len(str(part)) < 12, text
    assert text.count("to do: ") == 1
    assert text.count("podyard tasks logs") <= 1


def test_what_a_body_on_a_worker_did_is_told_without_pods() -> None:
    """There is no container, no image and nothing to render."""
    for name in ("exit code on a worker", "exit code 3 on a worker", "exception", "DAG file"):
        text = "\n".join(story("failed", ended(*ENDINGS[name][:2])))
        assert not re.search(r"\b(?:container|image|dags render)\b", text), text


def test_a_stopped_attempt_is_revoked_and_not_an_error_of_its_code() -> None:
    """The class of Celery's exception is no reason."""
    latest = ended(*ENDINGS["revoked"][:2])
    assert (latest.state, latest.reason, latest.cause) == ("revoked", "Revoked", None)
    assert "TaskRevokedError" not in "\n".join(story("failed", latest))


def test_a_cancelled_task_says_who_stopped_it() -> None:
    """With an attempt that is over, one that is being stopped, and none."""
    for attempts in ((ended(*ENDINGS["revoked"][:2]),), (attempt(state="running"),), ()):
        lines = story("cancelled", *attempts, reason="the run was cancelled")
        assert labels(lines) == LABELS
        assert "\n".join(lines).count("the run was cancelled") == 1


def test_a_task_that_was_left_out_names_what_failed() -> None:
    """In the same order."""
    lines = story("upstream_failed", upstream={"up": "failed"})
    assert labels(lines) == LABELS
    assert "whose: not its own; that of up" in lines


def test_an_attempt_that_gets_more_memory_is_charged_to_nobody() -> None:
    """The record says with what it is tried again."""
    latest = ended(*ENDINGS["out of memory"][:2])
    lines = story("up_for_retry", latest, reason="OOMKilled: x; tried again with 768Mi")
    assert "whose: the task's author's; tried again with 768Mi" in lines


def test_earlier_attempts_are_told_in_a_line_each() -> None:
    """Theirs is not the story; why each failed is, once."""
    first = replace(ended(*ENDINGS["node pressure"][:2]), id="b")
    lines = story("failed", first, replace(ended(*ENDINGS["out of memory"][:2]), number=2))
    text = "\n".join(lines)
    assert labels(lines)[:4] == LABELS
    assert (text.count("Evicted"), text.count("OOMKilled"), text.count("ran low on memory, and")) == (1, 1, 1)


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (
            {"reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu.", "phase": "Pending"},
            "0/1",
        ),
        ({"reason": "ImagePullBackOff", "message": "Back-off pulling image", "phase": "Pending"}, "Back-off pulling"),
        ({"reason": "QuotaExceeded", "message": "exceeded quota: team", "phase": "Waiting"}, "exceeded quota: team"),
    ],
)
def test_a_wait_is_told_once_and_in_order(pod: Mapping[str, Any], words: str) -> None:
    """What it waits for stands in one line, with the cluster's words."""
    whole = {
        "name": "p",
        "namespace": "n",
        "node": None,
        "waiting_since": NOW,
        "deadline_at": None,
        "at_deadline": "wait",
    }
    lines = story("queued", attempt(started_at=None), pod={**whole, **pod})
    text = "\n".join(lines)
    assert labels(lines) == WAIT_LABELS, text
    assert text.count(words) == 1, text
    assert text.count(pod["reason"]) == 1, text


@pytest.mark.parametrize(("side", "program"), [("kubernetes", "dispatcher"), ("celery", "worker")])
def test_a_queue_without_a_consumer_needs_one(side: str, program: str) -> None:
    """The command is of the attempt's side, and stands once."""
    waiting = attempt(side=side, started_at=None, created_at=datetime(2026, 1, 1, tzinfo=UTC), queue="a b")
    text = "\n".join(story("queued", waiting, consumers=()))
    assert text.count(f"`podyard {program} --queues 'a b'`") == 1
