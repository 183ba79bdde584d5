"""docs/failure-modes.md names every row of the catalogue, and tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "failure-modes.md").read_text()
ROWS = dict(re.findall(r"^\| ([A-Z]\d+) \| .* \| ([^|]*) \|$", PAGE, re.MULTILINE))
CATALOGUE = {"K": 22, "W": 12, "P": 31, "D": 17, "B": 23, "S": 11, "A": 19, "T": 7}
"""Letter -> how many rows it has."""


def test_every_row_of_the_catalogue_is_there_once() -> None:
    """Each id, none twice."""
    ids = re.findall(r"^\| ([A-Z]\d+) \|", PAGE, re.MULTILINE)
    assert sorted(ids) == sorted(
        f"{letter}{number}" for letter, count in CATALOGUE.items() for number in range(1, count + 1)
    )


def test_each_row_has_a_proof_that_exists_or_says_that_it_is_open() -> None:
    """A test that was renamed or removed takes its row back to `open`."""
    wrong = []
    for row, proof in ROWS.items():
        named = re.findall(r"`([^`:]+)::(\w+)`", proof)
        if not named and not proof.startswith("open"):
            wrong.append(f"{row}: neither a test nor open")
        wrong += [f"{row}: {file}::{test}" for file, test in named if not _exists(TESTS / file, test)]
    assert wrong == []


def test_the_page_counts_its_proven_rows() -> None:
    """The number in its first paragraph is that of the rows with a test."""
    proven = sum("::" in proof for proof in ROWS.values())
    assert f"{proven} of {len(ROWS)} rows are" in PAGE


def _exists(file: Path, test: str) -> bool:
    return file.exists() and re.search(rf"^def {test}\(", file.read_text(), re.MULTILINE) is not None
