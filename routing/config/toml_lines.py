"""Where keys stand in a TOML text: `tomllib` gives values without lines, and an error message needs the line. Pure."""

import re
import tomllib
from collections.abc import Mapping

KeyPath = tuple[str, ...]

_AT_LINE = re.compile(r"\(at line (\d+)")
_KEY = re.compile(r"""\s*((?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*)?)+\s*=""")


def find_lines(text: str) -> dict[KeyPath, int]:
    """The line, counted from 1, of every table header and key of a valid TOML text.

    A key inside an inline table has no line of its own: ask for its parents too (`line_of` does).
    """
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    rows = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(rows):
        row = rows[at].strip()
        end = at + 1
        if row.startswith("["):
            table = _path(row)
            _note(found, table, at + 1)
        elif key := _KEY.match(row):
            _note(found, table + _path(f"{key.group().rstrip('= ')} = 0"), at + 1)
            end = _end_of_value(rows, at)
        at = end
    return found


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """The line of a key, or of the nearest table around it that has one."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


def line_of_error(error: tomllib.TOMLDecodeError, text: str) -> int:
    """The line that the parser complains of; the last one where it says "end of document"."""
    said = _AT_LINE.search(str(error))
    return int(said[1]) if said else max(len(text.splitlines()), 1)


def _note(found: dict[KeyPath, int], path: KeyPath, line: int) -> None:
    """A dotted name makes the tables around it, too."""
    for n in range(1, len(path) + 1):
        found.setdefault(path[:n], line)


def _path(statement: str) -> KeyPath:
    """The keys that one header or one `key = 0` names: the parser itself reads it, so quotes and dots are right."""
    path: list[str] = []
    node: object = tomllib.loads(statement)
    while isinstance(node, list):
        node = node[0]
    while isinstance(node, Mapping) and node:
        key, node = next(iter(node.items()))
        path.append(key)
        while isinstance(node, list):
            node = node[0]
    return tuple(path)


def _end_of_value(rows: list[str], at: int) -> int:
    """The row after a value, which may go on over rows: the first cut that the parser takes."""
    for end in range(at + 1, len(rows) + 1):
        try:
            tomllib.loads("\n".join(rows[at:end]))
        except tomllib.TOMLDecodeError:
            continue
        return end
    return at + 1
