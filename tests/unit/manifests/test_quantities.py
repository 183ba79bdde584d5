"""Amounts of memory: read as Kubernetes reads them, and grown without passing a cap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.manifests import quantities


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("512Mi", 512 * 1024**2),
        ("1Gi", 1024**3),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("1G", 10**9),
        ("128974848", 128_974_848),
        ("129e6", 129_000_000),
        ("1E", 10**18),
        ("500m", 1),
        (".5Ki", 512),
        (1024, 1024),
    ],
)
def test_a_quantity_is_bytes(text: object, amount: int) -> None:
    assert quantities.bytes_of(text) == amount


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1GiB", "-1Gi", "0", "٣Gi", "1e999", None, True, 1.5])
def test_what_is_none_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"quantity|amount"):
        quantities.bytes_of(text)


@pytest.mark.parametrize(
    ("text", "factor", "at_most", "grown"),
    [
        ("512Mi", 1.5, "4Gi", "768Mi"),
        ("100M", 2, "4Gi", "191Mi"),
        ("3Gi", 1.5, "4Gi", "4Gi"),
        ("4Gi", 1.5, "4Gi", "4Gi"),
        ("8Gi", 1.5, "4Gi", "8Gi"),
        ("1", 1.01, "1Gi", "1Mi"),
    ],
)
def test_it_grows_to_whole_mebibytes_and_never_past_the_cap(text: str, factor: float, at_most: str, grown: str) -> None:
    """What is above the cap already stays as it is."""
    assert quantities.grown(text, factor=factor, at_most=at_most) == grown


@given(st.integers(1, 2**50), st.floats(1.01, 10), st.integers(1, 2**50))
def test_growth_is_growth(amount: int, factor: float, most: int) -> None:
    """More than before, or at the cap."""
    after = quantities.bytes_of(quantities.grown(str(amount), factor=factor, at_most=str(most)))
    assert after > amount if amount < most else after == amount
    assert after <= max(amount, most)
