"""Names say what kind of time they hold: `_at` an aware UTC time, `_mono_s` a monotonic second, `_s` a duration.

Mixed up, a wait ends decades too late or at once, and no type tells: all three but the first are floats.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = frozenset({"_brpop_sent_at", "received_at"})
"""Names of kombu, which reads a monotonic second from them."""


def _modules() -> Iterator[Path]:
    for package in ("dispatcher", "routing"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "localcluster" not in path.parts:
                yield path


def _name(node: ast.expr | None) -> str:
    """What a value or a target is called; empty where it has no name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_call(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


def _is_mono(node: ast.expr | None) -> bool:
    """Whether an expression is a point on the monotonic clock, as far as its names tell."""
    match node:
        case ast.Call():
            return _is_call(node, "time.monotonic") or (
                ast.unparse(node.func) in ("max", "min") and any(map(_is_mono, node.args))
            )
        case ast.BinOp(op=ast.Add()):
            return _is_mono(node.left) or _is_mono(node.right)
        case ast.BinOp(op=ast.Sub()):
            return _is_mono(node.left) and not _is_mono(node.right)
        case ast.BoolOp():
            return any(map(_is_mono, node.values))
        case ast.IfExp():
            return _is_mono(node.body) or _is_mono(node.orelse)
        case _:
            return _name(node).endswith("mono_s")


def _given(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Each name with the value that it is given: by an assignment, a keyword or a default."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign():
                for target in node.targets:
                    pairs = [(target, node.value)]
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                        pairs = list(zip(target.elts, node.value.elts, strict=True))
                    yield from ((_name(one), value) for one, value in pairs)
            case ast.AnnAssign(value=ast.expr() as value) | ast.NamedExpr(value=value):
                yield _name(node.target), value
            case ast.keyword(arg=str(name)):
                yield name, node.value


def _annotated(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each parameter, variable, field and function with the type that it is annotated with."""
    for node in ast.walk(tree):
        match node:
            case ast.arg(annotation=ast.expr() as annotation):
                yield node.arg, ast.unparse(annotation)
            case ast.AnnAssign():
                yield _name(node.target), ast.unparse(node.annotation)
            case ast.FunctionDef(returns=ast.expr() as annotation) | ast.AsyncFunctionDef(returns=annotation):
                yield node.name, ast.unparse(annotation)


def _compared(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each pair of values that are compared, in both orders."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            yield from ((one, other) for one in sides for other in sides if one is not other)


def _wrong(tree: ast.AST) -> Iterator[str]:
    for name, annotation in _annotated(tree):
        if name in FOREIGN:
            continue
        if name.endswith("_at") and re.search(r"\b(float|int)\b", annotation):
            yield f"{name}: {annotation} is no aware time"
        if name.endswith("_s") and "datetime" in annotation:
            yield f"{name}: {annotation} is no number of seconds"
    for name, value in _given(tree):
        if name in FOREIGN or not name:
            continue
        is_mono = _is_mono(value)
        if is_mono and not name.endswith("mono_s"):
            yield f"{name} = {ast.unparse(value)} is a monotonic second"
        if name.endswith("mono_s") and not is_mono and _name(value).endswith(("_s", "_at")):
            yield f"{name} = {ast.unparse(value)} is no monotonic second"
        if _is_call(value, "time.time") and not name.endswith("_epoch_s"):
            yield f"{name} = {ast.unparse(value)} is a second of the epoch"
    for left, right in _compared(tree):
        is_mono = _is_call(left, "time.monotonic") or _name(left).endswith("mono_s")
        if is_mono and not _is_mono(right) and _name(right).endswith(("_s", "_at")):
            yield f"{ast.unparse(left)} is a monotonic second, {ast.unparse(right)} is none"


def test_each_name_says_which_kind_of_time_it_holds() -> None:
    """In both packages, without exception."""
    wrong = [f"{path.relative_to(ROOT)}: {what}" for path in _modules() for what in _wrong(ast.parse(path.read_text()))]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "class One:\n    seen_at: float = 0.0",
        "def look(self, seen_at: float | None): ...",
        "def look(self, seen_s: datetime): ...",
        "began = time.monotonic()",
        "self._until_s = time.monotonic() + AGAIN_S",
        "now, other = time.monotonic(), 3",
        "look(attempt, now_s=time.monotonic())",
        "look(attempt, since_s=begun_mono_s)",
        "last = max(seen_mono_s, other)",
        "begun_mono_s = after_s",
        "made_at = time.time()",
        "until_at: dict[str, float] = {}",
        "if until_s <= now_mono_s: ...",
    ],
)
def test_a_name_that_misleads_is_found(text: str) -> None:
    assert list(_wrong(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "took_s = time.monotonic() - begun_mono_s",
        "limit_mono_s = time.monotonic() - FORGOTTEN_S",
        "seen_at: datetime | None = None",
        "self._due_mono_s = now_mono_s + after_s",
        "written_epoch_s = time.time()",
    ],
)
def test_a_name_that_tells_is_not(text: str) -> None:
    assert list(_wrong(ast.parse(text))) == []
