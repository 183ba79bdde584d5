"""Which kept pods are leftovers: only those whose outcome is stored, that are old enough, and of the outcome asked."""

from datetime import timedelta
from typing import Any

import pytest

from dispatcher.finishing import retention
from dispatcher.finishing.retention import RetentionRule
from tests import builders

NOW = builders.START + timedelta(seconds=62)


def pod(status: dict[str, Any], *, is_done: bool = True, **metadata: Any) -> dict[str, Any]:
    """A pod that ended at second 2."""
    labels = {"podyard.dev/done": "true"} if is_done else {}
    return {"metadata": {"labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z", **metadata}, "status": status}


@pytest.mark.parametrize(
    ("found", "rule", "verdict"),
    [
        (pod(builders.ended()), RetentionRule(older_than_s=60), "leftover"),
        (pod(builders.ended()), RetentionRule(older_than_s=61), "young"),
        (pod(builders.ended(), is_done=False), RetentionRule(older_than_s=0), "unread"),
        (pod(builders.ended(), deletionTimestamp="2026-01-01T00:00:03Z"), RetentionRule(older_than_s=0), "unread"),
        (pod(builders.running()), RetentionRule(older_than_s=0), "unfinished"),
        (pod({}), RetentionRule(older_than_s=0), "unfinished"),
        (pod(builders.ended(1)), RetentionRule(older_than_s=0, outcome="succeeded"), "other"),
        (pod(builders.ended(1)), RetentionRule(older_than_s=0, outcome="failed"), "leftover"),
        (pod({"phase": "Failed"}), RetentionRule(older_than_s=62), "leftover"),
        (pod({"phase": "Failed"}, creationTimestamp=None), RetentionRule(older_than_s=0), "young"),
    ],
)
def test_a_leftover_is_done_old_and_of_the_outcome(found: dict[str, Any], rule: RetentionRule, verdict: str) -> None:
    """What is in doubt stays."""
    assert retention.decide(found, rule, now=NOW) == verdict


def test_pods_that_are_done_are_selected_too() -> None:
    """Dispatchers leave them out."""
    assert retention.selector("a") == "app.kubernetes.io/managed-by=podyard,podyard.dev/deployment=a"
