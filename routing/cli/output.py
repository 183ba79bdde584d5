"""What commands print: the same items as a table for people, or as JSON or YAML for programs.

Tables hold no control characters from tasks or pods, turn into paragraphs on a terminal that is too narrow for them,
and are never cut or folded when something else reads them. Colours are rich's: none when piped or with NO_COLOR.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from routing.cli import plaintext

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], object]]
"""Heading -> what stands in its column for an item."""

FORMATS = ("table", "json", "yaml")
_ENDLESS = 100_000
"""The width of a table that no terminal shows."""
_LONGEST_NAME = 63
"""The name of a pod; what is longer is broken where a terminal is narrow."""
_GAP = 2
NOTHING = "-"
"""What stands in a cell without a value."""
_NUMBERS = frozenset({"SECONDS", "TRY", "TASKS", "RETRIES", "LINE", "MESSAGES", "IN FLIGHT", "WAITING", "OLDEST"})

_STYLES = {
    "success": "green",
    "succeeded": "green",
    "ok": "green",
    "Succeeded": "green",
    "running": "cyan",
    "Running": "cyan",
    "failed": "bold red",
    "Failed": "bold red",
    "wrong": "bold red",
    "NO CONSUMER": "bold red",
    "lost": "red",
    "upstream_failed": "red",
    "up_for_retry": "yellow",
    "queued": "yellow",
    "Pending": "yellow",
    "Waiting": "yellow",
    "cancelled": "magenta",
    "revoked": "magenta",
    "skipped": "dim",
    "none": "dim",
}

output_option = click.option(
    "--output", "-o", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print it."
)


def console(*, stderr: bool = False) -> Console:
    """Rich's console for people."""
    stream = sys.stderr if stderr else sys.stdout
    # No markup: ids may hold brackets. Without a terminal there is no width, so that grep finds each row on one line.
    return Console(stderr=stderr, highlight=False, markup=False, width=None if stream.isatty() else _ENDLESS)


def show_list(
    items: Sequence[T], columns: Columns[T], *, output: str, empty: str, record: Callable[[T], object] | None = None
) -> None:
    """Prints a list: one row or one object for each item. `empty` goes to stderr where a table would have no rows."""
    if output != "table":
        show_data([record(item) if record else item for item in items], output=output)
    elif items:
        print_table(table(items, columns))
    else:
        click.echo(empty, err=True)


def show_data(data: object, *, output: str) -> None:
    """Prints plain data as JSON or YAML."""
    plain = to_plain(data)
    if output == "yaml":
        import yaml

        text = json.dumps(plain, ensure_ascii=False)
        is_harmless = plaintext.json_text(text) == text  # else YAML, too, writes escapes
        # Endless, or YAML folds long texts into lines of its own.
        click.echo(yaml.safe_dump(plain, allow_unicode=is_harmless, sort_keys=False, width=_ENDLESS), nl=False)
    else:
        click.echo(plaintext.json_text(json.dumps(plain, indent=2, ensure_ascii=False)))


def table(items: Iterable[T], columns: Columns[T]) -> "Listing":
    """The items as people read them, once it is known how wide the terminal is."""
    return Listing(headings=tuple(columns), rows=[[cell(value(item)) for value in columns.values()] for item in items])


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Rows under headings. On a terminal that is too narrow for that, without columns that say nothing; and where even
    that breaks names into pieces, each row as a paragraph of its own: its first cell, then heading and value."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for kept in (range(len(self.headings)), self._saying()):
            made = self._table(kept, width=options.max_width)
            if made is not None:
                yield made
                return
        for row in self.rows:
            yield row[0]
            for line in _lines(list(zip(self.headings, row, strict=True))[1:], width=options.max_width):
                yield Padding(line, (0, 0, 0, _GAP))

    def _saying(self) -> Sequence[int]:
        """The columns in which some row says something, and the first one."""
        return [
            place for place in range(len(self.headings)) if not place or any(_says(row[place]) for row in self.rows)
        ]

    def _table(self, kept: Sequence[int], *, width: int) -> Table | None:
        """The table of these columns; None where names would be broken in it."""
        least = {place: max(_longest_word(text) for text in self._column(place)) for place in kept}
        if sum(least.values()) + _GAP * (len(kept) - 1) > width:
            return None
        made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for place in kept:
            heading = self.headings[place]
            justify: JustifyMethod = "right" if heading in _NUMBERS else "left"
            made.add_column(heading, overflow="fold", justify=justify, min_width=least[place])
        for row in self.rows:
            made.add_row(*(row[place] for place in kept))
        return made

    def _column(self, place: int) -> list[Text]:
        return [Text(self.headings[place]), *(row[place] for row in self.rows)]


def _says(text: Text) -> bool:
    return text.plain not in ("", NOTHING)


def _longest_word(text: Text) -> int:
    """How narrow its column may be. A word longer than any name is broken wherever it stands."""
    return min(_LONGEST_NAME, max((cell_len(word) for word in text.plain.split()), default=1))


def _lines(fields: Sequence[tuple[str, Text]], *, width: int) -> Iterator[Text]:
    """Heading and value of each field that says something, as many on a line as fit."""
    line = Text()
    for heading, value in fields:
        if not _says(value):
            continue
        labelled = Text.assemble((heading.lower(), "dim"), " ", value)
        if line and line.cell_len + _GAP + labelled.cell_len > width - _GAP:
            yield line
            line = Text()
        line = Text.assemble(line, " " * _GAP, labelled) if line else labelled
    if line:
        yield line


def print_table(made: RenderableType) -> None:
    """Prints it; without the padding at line ends when nobody looks at it on a terminal."""
    screen = console()
    if screen.is_terminal:
        screen.print(made)
        return
    with screen.capture() as captured:
        screen.print(made)
    click.echo("\n".join(row.rstrip() for row in captured.get().rstrip("\n").split("\n")))


def cell(value: object) -> Text:
    """A value as people read it: `-` for nothing, times in local time, a state in its colour."""
    if value is None or value == "":
        return Text(NOTHING, style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(f"{value:.1f}" if value < 100 else f"{value:.0f}")
    if isinstance(value, datetime):
        return Text(clock(value))
    if isinstance(value, Text):
        return value
    text = plaintext.line(str(value))
    return Text(text, style=_STYLES.get(text, ""))


def clock(at: datetime | None) -> str:
    """A time as people read it, in the zone of this machine."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def to_plain(value: Any) -> Any:
    """Rows, times and paths as JSON knows them: times in ISO 8601 with their zone."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
