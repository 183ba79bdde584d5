"""The one table of states and moves of attempts, task instances and runs.

The SQL guards (`store`), the Python check (`merging.merge`) and the diagram in `docs/states.md` are computed from the
tables in this module; nothing else in the project lists states or moves. Pure: no clock, no database.
"""

from collections.abc import Mapping

# An attempt is one row, one id, one message and at most one pod.
ATTEMPT_MOVES: Mapping[str, frozenset[str]] = {
    # From `recorded` to everything: the message leaves after the commit, and its
    # end may be reported before "sent" is noted.
    "recorded": frozenset({"sent", "running", "succeeded", "failed", "lost", "revoked"}),
    "sent": frozenset({"running", "succeeded", "failed", "lost", "revoked"}),
    "running": frozenset({"succeeded", "failed", "lost", "revoked"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "lost": frozenset(),
    "revoked": frozenset(),
}
"""`recorded`: the row is committed, the message is not known to be sent. `sent`: the broker has the message (or the
dispatcher has the pod pending; the attempt's `waiting_reason` says which). `lost`: nobody will ever report."""

TASK_MOVES: Mapping[str, frozenset[str]] = {
    "none": frozenset({"queued", "success", "skipped", "upstream_failed", "failed", "cancelled"}),
    "queued": frozenset({"running", "up_for_retry", "success", "failed", "skipped", "cancelled"}),
    "running": frozenset({"up_for_retry", "success", "failed", "skipped", "cancelled"}),
    "up_for_retry": frozenset({"queued", "failed", "cancelled"}),
    "success": frozenset(),
    "failed": frozenset(),
    "skipped": frozenset(),
    "upstream_failed": frozenset(),
    "cancelled": frozenset(),
}
"""Airflow's words for task instances. A task instance follows its latest attempt."""

RUN_MOVES: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"success", "failed", "cancelled"}),
    "success": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


def final(moves: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The states of a table that nothing leaves."""
    return frozenset(state for state, targets in moves.items() if not targets)


def sources(moves: Mapping[str, frozenset[str]], target: str) -> frozenset[str]:
    """The states that may move to `target`: the `WHERE state IN (…)` of its UPDATE.

    Raises KeyError where the table does not know `target`.
    """
    if target not in moves:
        raise KeyError(target)
    return frozenset(state for state, targets in moves.items() if target in targets)
