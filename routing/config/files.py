"""Files of settings: a TOML text becomes a document whose every value knows its line."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher.settings import layers
from routing.config import toml_lines

FILE_NAME = "podyard.toml"


class Unreadable(Exception):
    """A file of settings cannot be read at all; the message is the line to report."""


def read(into: layers.Layers, file: Path) -> None:
    """Adds a TOML file to the layers. Raises Unreadable."""
    shown = str(file.relative_to(into.cwd)) if file.is_relative_to(into.cwd) else str(file)
    text = _read_text(file, shown)
    document = _parse(text, shown)
    into.add_document(document, _File(shown=shown, base=file.parent, lines=toml_lines.find_lines(text)))


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file as a source of settings."""

    shown: str
    base: Path
    lines: Mapping[tuple[str, ...], int]

    def place(self, *path: str) -> str:
        line = toml_lines.line_of(self.lines, path)
        return self.shown if line is None else f"{self.shown}:{line}"


def _read_text(file: Path, shown: str) -> str:
    try:
        # Editors on Windows begin a file with a byte order mark, which is no TOML.
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Unreadable(f"{shown}: cannot be read: {error.strerror}; correct the path or its permissions") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Unreadable(f"{shown}:{line}: this is not UTF-8 text; save the file as UTF-8") from error


def _parse(text: str, shown: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = toml_lines.line_of_error(error, text)
        raise Unreadable(f"{shown}:{line}: this is not TOML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise Unreadable(f"{shown}: this is not TOML that we read: it is nested too deeply") from error
