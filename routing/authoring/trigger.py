"""Trigger rules: what must have become of the tasks before a task, so that it runs. Airflow's words."""

from enum import StrEnum


class TriggerRule(StrEnum):
    """When a task runs, by the states of its direct upstream tasks."""

    ALL_SUCCESS = "all_success"
    """All succeeded (the default)."""
    ALL_DONE = "all_done"
    """All ended, however they ended."""
    ONE_FAILED = "one_failed"
    """At least one failed; the others need not have ended."""
    NONE_FAILED = "none_failed"
    """All ended, none failed; skipped ones do not hinder."""
