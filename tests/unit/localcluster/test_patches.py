"""The three patch languages, by their documents' own examples."""

import copy
from typing import Any

import pytest

from dispatcher.localcluster.apiserver import patches
from dispatcher.localcluster.objects import refusal


@pytest.mark.parametrize(
    ("thing", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_is_rfc_7396(thing: Any, patch: Any, expected: Any) -> None:
    """Examples of the RFC's appendix; inputs stay as they are."""
    before = copy.deepcopy(thing)
    assert patches.merge(thing, patch) == expected
    assert thing == before


def test_strategic_merge_knows_lists_by_their_keys() -> None:
    """Containers by name, finalizers as a set, directives obeyed."""
    pod = {
        "metadata": {"finalizers": ["a/b"], "labels": {"x": "1"}},
        "spec": {"containers": [{"name": "one", "image": "i", "args": ["x"]}, {"name": "two"}]},
    }
    patch = {
        "metadata": {"finalizers": ["c/d"], "$deleteFromPrimitiveList/finalizers": ["a/b"], "labels": {"x": None}},
        "spec": {
            "$setElementOrder/containers": [{"name": "one"}],
            "containers": [{"name": "one", "args": ["y"]}, {"name": "two", "$patch": "delete"}],
        },
    }
    assert patches.strategic(pod, patch) == {
        "metadata": {"finalizers": ["c/d"], "labels": {}},
        "spec": {"containers": [{"name": "one", "image": "i", "args": ["y"]}]},
    }


@pytest.mark.parametrize(
    ("thing", "operation", "expected"),
    [
        ({"a": 1}, {"op": "add", "path": "/b", "value": 2}, {"a": 1, "b": 2}),
        ({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a": 1, "b": 2}, {"op": "remove", "path": "/a"}, {"b": 2}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}),
        ({"a": {"b~/c": 1}}, {"op": "replace", "path": "/a/b~0~1c", "value": 2}, {"a": {"b~/c": 2}}),
        ({"a": {"b": 1}}, {"op": "move", "from": "/a/b", "path": "/c"}, {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, {"op": "copy", "from": "/a", "path": "/c"}, {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a": None}, {"op": "test", "path": "/a", "value": None}, {"a": None}),
    ],
)
def test_json_patch_is_rfc_6902(thing: Any, operation: Any, expected: Any) -> None:
    """One operation each; inputs stay as they are."""
    before = copy.deepcopy(thing)
    assert patches.json_patch(thing, [operation]) == expected
    assert thing == before


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "remove", "path": "/none"}], 422),
        ([{"op": "add", "path": "/x/y", "value": 1}], 422),
        ([{"op": "add", "path": "", "value": 1}], 422),
        ([{"op": "jump", "path": "/a"}], 400),
        ([{"op": "add", "path": "a", "value": 1}], 400),
        ([{"op": "remove"}], 400),
        ({"op": "remove", "path": "/a"}, 400),
        (["remove"], 400),
    ],
)
def test_a_json_patch_that_does_not_fit_is_refused(operations: Any, code: int) -> None:
    """Refused in Kubernetes' way, never an error of ours."""
    with pytest.raises(refusal.Refusal) as error:
        patches.json_patch({"a": 1}, operations)
    assert error.value.code == code
