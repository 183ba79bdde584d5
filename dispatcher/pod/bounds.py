"""Bounds: what of an outcome can travel from the pod to the dispatcher, and what is reported in place of the rest."""

from dataclasses import replace
from typing import Any

from celery.result import ResultBase

from dispatcher.pod import failures
from dispatcher.protocol import outcome, typed_json

MAX_DEPTH = 200
"""Levels of lists and mappings in a result. The dispatcher decodes and stores it in a deeper stack than this one, and
Python's own limit is 1,000 for both together: what fits here by a hair could not be stored there, at any try."""
_SHORT = 1000


def plain(value: Any) -> Any:
    """The value as result backends take it: of the result of another task its ids, as Celery does."""
    return value.as_tuple() if isinstance(value, ResultBase) else value


def bounded(ended: outcome.Outcome, *, max_bytes: int) -> outcome.Outcome:
    """The outcome itself, or one that says why it cannot travel."""
    # The pod's own tracer has stored the value; what travels is a text that nobody reads back.
    if ended.is_stored:
        return ended
    if ended.state == "SUCCESS":
        return _bounded_success(ended, max_bytes)
    if ended.state == "RETRY":
        return _bounded_retry(ended)
    return _bounded_failure(ended, max_bytes)


def _bounded_success(ended: outcome.Outcome, max_bytes: int) -> outcome.Outcome:
    try:
        # The encoder runs before the depth is counted: only what has a
        # JSON form is known to be lists and mappings without cycles.
        size = len(typed_json.dumps(ended.value))
    except Exception as error:  # encoding calls into the author's own objects
        why = f"the result has no JSON form: {error}; return plain JSON values"
        return _unusable(ended, why, reason="ResultUnusable")
    if _depth(ended.value) > MAX_DEPTH:
        why = f"the result is nested deeper than {MAX_DEPTH} levels; return a flatter value"
        return _unusable(ended, why, reason="ResultUnusable")
    if size > max_bytes:
        limit = f"the limit of {max_bytes} (results.max_bytes)"
        why = f"the result has {size} bytes, more than {limit}; store it and return its address"
        return _unusable(ended, why, reason="ResultTooLarge")
    return ended


def _bounded_retry(ended: outcome.Outcome) -> outcome.Outcome:
    """A retry whose arguments cannot be sent is rejected, as Celery's `Task.retry` does."""
    try:
        typed_json.dumps(ended.retry)
    except Exception as error:
        # `False` is `requeue`: put back into the queue it would come again and fail again.
        rejected = outcome.Failure(type="Reject", module="celery.exceptions", args=[repr(error), False])
        return replace(ended, state="REJECTED", retry=None, failure=rejected)
    return ended


def _bounded_failure(ended: outcome.Outcome, max_bytes: int) -> outcome.Outcome:
    """Arguments of an exception that are too large are cut: that it failed must be reported."""
    failure = ended.failure
    # `failures.of` has made the arguments serializable: this cannot raise.
    if failure is None or len(typed_json.dumps(failure.args)) <= max_bytes:
        return ended
    cut = [f"{str(value)[:_SHORT]} … (cut: more than results.max_bytes)" for value in failure.args[:10]]
    return replace(ended, failure=replace(failure, args=cut))


def _depth(value: Any) -> int:
    """Levels of lists and mappings in what has a JSON form, counted without recursion; stops above the limit."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inside = [one for one in level if isinstance(one, dict | list | tuple)]
        depth += bool(inside)
        level = [part for one in inside for part in (one.values() if isinstance(one, dict) else one)]
    return depth


def _unusable(ended: outcome.Outcome, why: str, *, reason: str) -> outcome.Outcome:
    return replace(ended, state="FAILURE", value=None, failure=failures.ours(why, reason=reason))
