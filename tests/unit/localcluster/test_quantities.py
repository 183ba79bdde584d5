"""Quantities as Kubernetes reads them."""

from decimal import Decimal

import pytest

from dispatcher.localcluster.objects import quantities


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("-1", "-1"),
        ("500m", "0.5"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("1Gi", "1073741824"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1000000000000000000"),
        ("12e-1", "1.2"),
        (2, "2"),
        (0.25, "0.25"),
    ],
)
def test_a_quantity_is_a_number(text: str | float, value: str) -> None:
    """Decimal and binary suffixes, exponents, plain numbers."""
    assert quantities.read(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1GiB", "1K", "one", "1e", "1.2.3", "0x10", "१"])
def test_anything_else_is_none(text: str) -> None:
    """With the expression that it should match."""
    with pytest.raises(ValueError, match="quantities must match"):
        quantities.read(text)
