"""Each package's errors module draws every error of the package, below the error that it is a kind of."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = frozenset({"ClickException"})
"""Errors of libraries that ours derive from."""
DRAWN = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)  +\S")


def _classes(package: str) -> Iterator[tuple[str, list[str]]]:
    """Public classes with the names of their bases; the local cluster models another program, with its own errors."""
    for path in sorted((ROOT / package).rglob("*.py")):
        if "localcluster" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, [ast.unparse(base).rpartition(".")[2] for base in node.bases]


def _is_foreign(name: str) -> bool:
    known = getattr(builtins, name, None)
    return name in FOREIGN or (isinstance(known, type) and issubclass(known, BaseException))


def _errors(package: str) -> dict[str, str | None]:
    """Error -> the error of ours that it is a kind of."""
    found: dict[str, str | None] = {}
    classes: dict[str, list[str]] = {}
    for name, bases in _classes(package):
        classes.setdefault(name, []).extend(bases)
    is_news = True
    while is_news:
        news = {
            name: next((base for base in bases if base in found), None)
            for name, bases in classes.items()
            if name not in found and any(base in found or _is_foreign(base) for base in bases)
        }
        # A class whose base of ours is found later would seem to have none: it waits for the next round.
        news = {name: base for name, base in news.items() if base or not any(b in classes for b in classes[name])}
        found |= news
        is_news = bool(news)
    return found


def _drawn(package: str) -> dict[str, str | None]:
    text = ast.get_docstring(ast.parse((ROOT / package / "errors.py").read_text())) or ""
    above: list[tuple[int, str]] = []
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        if match := DRAWN.match(line):
            indent, name = len(match["indent"]), match["name"]
            above = [(depth, other) for depth, other in above if depth < indent]
            found[name] = above[-1][1] if above else None
            above.append((indent, name))
    return found


@pytest.mark.parametrize("package", ["dispatcher", "routing"])
def test_the_drawing_is_the_tree(package: str) -> None:
    """Nobody needs to search the package for what it may raise."""
    assert _drawn(package) == _errors(package)
