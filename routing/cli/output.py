"""What commands print: the same items as a table for people, or as JSON or YAML for programs.

Tables hold no control characters from tasks or pods, fold instead of cutting on a narrow terminal, and are never cut or
folded when something else reads them. Colours are rich's: none when piped or with NO_COLOR.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from routing.cli import plaintext

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], object]]
"""Heading -> what stands in its column for an item."""

FORMATS = ("table", "json", "yaml")
_ENDLESS = 100_000
"""The width of a table that no terminal shows."""
_KEPT_WIDTH = 10
_GAP = 2
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
        click.echo(yaml.safe_dump(plain, allow_unicode=is_harmless, sort_keys=False, width=_ENDLESS), nl=False)
    else:
        click.echo(plaintext.json_text(json.dumps(plain, indent=2, ensure_ascii=False)))


def table(items: Iterable[T], columns: Columns[T]) -> Table:
    """A rich table of the items. Where the terminal is narrow long cells are folded, and short ones are left alone."""
    rows = [[cell(value(item)) for value in columns.values()] for item in items]
    kept = [
        max(*map(len, ("", *heading.split())), min(_KEPT_WIDTH, max((row[place].cell_len for row in rows), default=0)))
        for place, heading in enumerate(columns)
    ]
    has_room = sum(kept) + _GAP * len(kept) <= console().width
    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for heading, width in zip(columns, kept, strict=True):
        justify: JustifyMethod = "right" if heading in _NUMBERS else "left"
        made.add_column(heading, overflow="fold", justify=justify, min_width=width if has_room else None)
    for row in rows:
        made.add_row(*row)
    return made


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
        return Text("-", style="dim")
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
