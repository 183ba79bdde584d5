"""Which values can travel as JSON."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.authoring import jsonvalue

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_accepted_comes_back_the_same(value: Any) -> None:
    """And what is refused, JSON would have refused or changed."""
    try:
        survives = json.loads(json.dumps(value, allow_nan=False)) == value
    except ValueError:
        survives = False
    assert (jsonvalue.refusal(value) is None) == survives


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"rows": [0, 1, 2, {"when": datetime(2026, 1, 1, tzinfo=UTC)}]},
            "$.rows[3].when: datetime is not JSON; return an ISO string",
        ),
        (math.nan, "$: nan is not JSON; return None or leave it out"),
        ([math.inf], "$[0]: inf is not JSON; return None or leave it out"),
        (b"x", "$: bytes is not JSON; return text, for example base64"),
        ({"a b": {1}}, "$['a b']: set is not JSON; return a list"),
        ({1: 2}, "$: the key 1 is not text, as JSON wants it; use str() of it"),
        (Decimal(1), "$: Decimal is not JSON; return str() or float() of it"),
        (Path("/x"), "$: PosixPath is not JSON; return str() of it"),
        (object(), "$: object is not JSON; return lists, mappings, text, numbers, booleans or None"),
    ],
)
def test_a_refusal_names_the_place_and_the_way_out(value: Any, message: str) -> None:
    """Not only that something in it was wrong."""
    assert jsonvalue.refusal(value) == message


def test_a_list_that_contains_itself_is_refused() -> None:
    """Without running forever."""
    value: list[Any] = []
    value.append(value)
    assert str(jsonvalue.refusal(value)).endswith("nested deeper than 100 levels, or it contains itself")
