"""Tables of the command line, at every width of a terminal."""

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from routing.cli import output

POD = "shop-render-invoice-fwifryg3j272"
COLUMNS: output.Columns[tuple[str, ...]] = {
    "POD": lambda row: row[0],
    "QUEUE": lambda row: row[1],
    "PHASE": lambda row: row[2],
    "REASON": lambda row: row[3],
    "UNTIL": lambda row: row[4],
}
ROWS = [
    (POD, "kubernetes", "Failed", "a reason of some words", ""),
    ("shop-price-1", "kubernetes", "Running", "", ""),
]


def shown(rows: list[tuple[str, ...]], width: int) -> list[str]:
    screen = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    with screen.capture() as captured:
        screen.print(output.table(rows, COLUMNS))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_wide_terminal_shows_every_column() -> None:
    """On one line for each row."""
    assert shown(ROWS, 100) == [
        f"POD{' ' * 31}QUEUE       PHASE    REASON                  UNTIL",
        f"{POD}  kubernetes  Failed   a reason of some words  -",
        f"shop-price-1{' ' * 22}kubernetes  Running  -                       -",
    ]


def test_a_narrower_one_leaves_out_what_says_nothing_and_breaks_between_words() -> None:
    """A column that is empty in every row goes first."""
    assert shown(ROWS, 64)[:2] == [
        f"POD{' ' * 31}QUEUE       PHASE    REASON",
        f"{POD}  kubernetes  Failed   a reason",
    ]


def test_a_narrow_one_shows_each_row_as_a_paragraph() -> None:
    """With what it has to say, and no name in pieces."""
    assert shown(ROWS, 50) == [
        POD,
        "  queue kubernetes  phase Failed",
        "  reason a reason of some words",
        "shop-price-1",
        "  queue kubernetes  phase Running",
    ]


@given(
    st.lists(st.tuples(*[st.from_regex(r"[a-z0-9-]{0,40}", fullmatch=True)] * 5), min_size=1, max_size=4),
    st.integers(min_value=44, max_value=200),
)
def test_no_name_that_fits_is_ever_broken_and_no_line_is_too_long(rows: list[tuple[str, ...]], width: int) -> None:
    """Whatever the names, from the width of one name on."""
    lines = shown(rows, width)
    assert max(map(len, lines)) <= width
    words = re.split(r"\s+", " ".join(lines))
    assert [name for row in rows for name in row if name and name not in words] == []
