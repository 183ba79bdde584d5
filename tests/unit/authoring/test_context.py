"""The context of a running task: a mapping that says what it has where a key is missing."""

import pytest

from routing.authoring import context

ABOUT = {"dag_id": "d", "task_id": "t", "logical_date": "2026-03-04T00:00:00+00:00"}


@pytest.mark.parametrize("key", ["ti", "task_instance", "data_interval_start"])
def test_a_key_that_is_not_there_is_told_with_those_that_are(key: str) -> None:
    """People who come from Airflow look for `ti`."""
    found = context.build(ABOUT, params={}, attempt_id="a")
    with pytest.raises(KeyError, match=rf"'{key}' is not in the context of a task; there are attempt_id, conf, dag_id"):
        found[key]
    assert found.get(key) is None
    assert set(found) == context.NAMES
