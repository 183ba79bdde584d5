"""Selectors mean what kubectl means by them."""

import pytest

from dispatcher.localcluster.objects import refusal, selectors


def _holds(text: str, labels: dict[str, str]) -> bool:
    return all(clause.holds(labels) for clause in selectors.parse_labels(text))


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a=b", {"a": "b"}, True),
        ("a==b, c!=d", {"a": "b"}, True),
        ("a!=b", {"a": "b"}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a in (b, c),d", {"a": "c", "d": "x"}, True),
        ("a notin (b,c)", {}, True),
        ("a notin (b,c)", {"a": "c"}, False),
        ("podyard.dev/queue in (gpu)", {"podyard.dev/queue": "gpu"}, True),
    ],
)
def test_a_selector_holds_or_not(text: str, labels: dict[str, str], expected: bool) -> None:
    """A missing key meets every negative clause."""
    assert _holds(text, labels) is expected


@pytest.mark.parametrize("text", ["a=b=c", "a in b", "a in (b", "=b", "a,,b", "a b", "-a=b", "(a)"])
def test_a_selector_that_cannot_be_read_is_refused(text: str) -> None:
    """Never read as something wider."""
    with pytest.raises(refusal.Refusal) as error:
        selectors.parse_labels(text)
    assert error.value.code == 400
