"""The page on differences from Airflow answers every row, and every parameter that the pod operator takes."""

import re
from pathlib import Path

import pytest

from routing.authoring import pod_parameters

PAGE = (Path(__file__).parents[2] / "docs" / "airflow-differences.md").read_text()
ROWS = {"D": 28, "E": 10, "F": 21, "G": 15, "H": 15, "P": 3, "Q": 9, "R": 7, "T": 12, "Z": 29}
"""Letter of a section -> how many rows it has."""


@pytest.mark.parametrize("row", [f"{letter}{number}" for letter, last in ROWS.items() for number in range(1, last + 1)])
def test_each_row_is_answered(row: str) -> None:
    """Once, with what Airflow does, and with one of the four words (defects: with what is done instead)."""
    found = re.findall(rf"^\| {row} \| (.+) \|$", PAGE, re.MULTILINE)
    assert len(found) == 1
    cells = found[0].split(" | ")
    if row.startswith("Z"):
        assert len(cells) == 2
        return
    assert len(cells) == 3 or cells[1] == "same |"
    assert cells[1].split()[0] in {"same", "other", "none", "open"}


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            *pod_parameters.TABLE,
            *pod_parameters.WITHOUT_EFFECT,
            *pod_parameters.DEPRECATED,
            *pod_parameters.FUNCTIONS,
        }
    ),
)
def test_each_parameter_of_the_pod_operator_is_told(name: str) -> None:
    """Also those that are old, without effect, or refused; T stands at exactly the templated ones."""
    assert f"`{name}`" in PAGE
    if name in pod_parameters.TABLE and name != "xcom_path":
        rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
        row = next(line for line in rows if f"`{name}`" in line.split(" | ")[0])
        assert (f"`{name}` T" in row.split(" | ")[0]) == pod_parameters.TABLE[name].is_templated
