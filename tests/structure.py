"""The structure of `dispatcher/`, counted on the real code: `python -m tests.structure` prints the figures.

Four things that no linter sees: constructors with many parameters, parameters that take a callable, objects that reach
each other at run time, and modules without unit tests. A module graph without cycles says little where callbacks lead
back up, and what cannot be constructed alone has no unit tests.
`tests/unit/test_structure.py` holds the bars.
"""

import ast
import asyncio
import dataclasses
import enum
import functools
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from dispatcher import options
from dispatcher.attempts.attempt import Attempt
from dispatcher.watching import wiring
from dispatcher.watching.controller import Controller
from dispatcher.worker.backend_questions import BackendQuestions
from dispatcher.worker.bridge import Bridge
from dispatcher.worker.deliveries import Deliveries
from dispatcher.worker.replay import Replay
from dispatcher.worker.result_outbox import ResultOutbox
from tests import fake_api

ROOT = Path(__file__).parents[1] / "dispatcher"
MOST_PARAMETERS = 6
MOST_CALLABLES = 25
MOST_IN_A_CYCLE = 2
TESTED = ("attempts", "admission", "launching", "watching", "finishing")
"""The packages of which every module has unit tests: `tests/unit/<package>/test_<module>.py`."""
_PROCESSES = frozenset({"multiprocessing", "subprocess"})


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of one function."""

    module: str
    function: str
    name: str

    def __str__(self) -> str:
        """Where it stands."""
        return f"{self.module}: {self.function}({self.name})"


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of `dispatcher` outside `localcluster`, by its path."""
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if not name.startswith("localcluster/"):
            yield name, ast.parse(path.read_text())


def functions(tree: ast.AST, *, within: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function, with the classes and functions around it in its name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{within}{node.name}"
            if not isinstance(node, ast.ClassDef):
                yield name, node
            yield from functions(node, within=f"{name}.")
        else:
            yield from functions(node, within=within)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """All of them but `self` and `cls`."""
    asked = function.args
    found = [*asked.posonlyargs, *asked.args, *asked.kwonlyargs]
    found += [one for one in (asked.vararg, asked.kwarg) if one is not None]
    return [one for one in found if one.arg not in ("self", "cls")]


def large_constructors() -> list[str]:
    """The `__init__`s that somebody wrote with more parameters than the bar; a dataclass is a record, not counted."""
    return [
        f"{module}: {name} takes {len(parameters(function))}"
        for module, tree in modules()
        for name, function in functions(tree)
        if function.name == "__init__" and len(parameters(function)) > MOST_PARAMETERS
    ]


def callable_aliases() -> set[str]:
    """Names that stand for a type of callables, such as `Demand = Callable[[], …]`, wherever they are defined."""
    found: set[str] = set()
    for _, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.Assign) and _is_callable(node.value, set()):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def callable_parameters() -> list[Parameter]:
    """Every parameter of a function whose annotation is `Callable`, or a name for one, alone or among others."""
    aliases = callable_aliases()
    return [
        Parameter(module, name, one.arg)
        for module, tree in modules()
        for name, function in functions(tree)
        for one in parameters(function)
        if one.annotation is not None and _is_callable(one.annotation, aliases)
    ]


def _is_callable(annotation: ast.expr, aliases: set[str]) -> bool:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return re.search(r"\bCallable\b", annotation.value) is not None
    names = (node.id if isinstance(node, ast.Name) else node.attr for node in ast.walk(annotation) if _is_name(node))
    return any(name == "Callable" or name in aliases for name in names)


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute)


# Unit tests


def untested_modules(*, root: Path = ROOT, tests: Path = ROOT.parent / "tests" / "unit") -> list[str]:
    """The modules of `TESTED` without unit tests, each with what is missing.

    A test file counts if it has tests, uses the module (imported, or as a part of a dispatcher that is wired), and
    starts no process.
    """
    return [
        f"{package}/{path.name}: {missing}"
        for package in TESTED
        for path in sorted((root / package).glob("*.py"))
        if path.stem != "__init__"
        if (missing := _missing_tests(tests / package / f"test_{path.stem}.py", of=path.stem))
    ]


def _missing_tests(path: Path, *, of: str) -> str | None:
    if not path.exists():
        return f"there is no {path.parent.name}/{path.name}"
    tree = ast.parse(path.read_text())
    used = set(_used_names(tree))
    if not any(name.startswith("test_") for name, _ in functions(tree)):
        return f"{path.name} holds no test"
    if of not in used:
        return f"{path.name} does not use it"
    if processes := sorted(_PROCESSES & used):
        return f"{path.name} starts processes: it uses {', '.join(processes)}"
    return None


def _used_names(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported, and the names of what is held; a part's own name without its underscore."""
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                addresses = [getattr(node, "module", None) or "", *(one.name for one in node.names)]
                yield from (name for address in addresses for name in address.split("."))
            case ast.Attribute():
                yield node.attr.removeprefix("_")


# Objects at run time


def wired() -> list[object]:
    """A dispatcher as it works: both sides, and the bridge between them; only the API server is a fake."""
    made: list[object] = []

    async def wire() -> None:
        app = Mock(name="app")
        settings = options.Options(
            profile_for=lambda queue: options.QueueProfile(), app_path="a:b", database_url="sqlite://"
        )
        bridge = Bridge(name="structure")
        questions = BackendQuestions(app, nodename="me@host")
        outbox = ResultOutbox(app.probe)
        deliveries = Deliveries(
            app,
            options=settings,
            bridge=bridge,
            replay=Replay(app, hostname="me@host"),
            outbox=outbox,
            questions=questions,
        )
        controller = Controller(
            settings,
            owner="me@host",
            limit=10,
            celery=bridge,
            questions=questions,
            claim_store=Mock(name="claim_store"),
        )
        controller._begin(wiring.wire(fake_api.FakeApi(), controller._shared, limit=10))  # type: ignore[arg-type]
        made.extend([deliveries, controller])

    asyncio.run(wire())
    return made


def graph(roots: Iterable[object]) -> dict[int, tuple[object, set[int]]]:
    """id -> the object and the ids of those that it reaches: only ours, and no frozen values."""
    found: dict[int, tuple[object, set[int]]] = {}
    todo = list(roots)
    while todo:
        one = todo.pop()
        if id(one) in found:
            continue
        reached = {id(other): other for held in _held(one) for other in _ours(held, set())}
        reached.pop(id(one), None)
        found[id(one)] = (one, set(reached))
        todo.extend(reached.values())
    return found


def cycles(reaches: Mapping[int, tuple[object, set[int]]]) -> list[list[str]]:
    """The strongly connected components of more than one object, by the names of their classes; largest first."""
    components = [
        sorted(type(reaches[one][0]).__name__ for one in part) for part in _components(reaches) if len(part) > 1
    ]
    return sorted(components, key=len, reverse=True)


def _held(one: object) -> list[object]:
    """What stands in the attributes of an object."""
    slots = [
        getattr(one, name)
        for kind in type(one).__mro__
        for name in getattr(kind, "__slots__", ())
        if hasattr(one, name)
    ]
    return [*vars(one).values(), *slots] if hasattr(one, "__dict__") else slots


def _ours(value: object, seen: set[int]) -> Iterator[object]:
    """The objects of our classes in a value: itself, in containers, behind bound methods and closures."""
    if id(value) in seen:
        return
    seen.add(id(value))
    inner: Iterable[object] = ()
    match value:
        case types.MethodType():
            inner = (value.__self__, value.__func__)
        case types.FunctionType():
            inner = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
        case Mapping():
            inner = [*value.keys(), *value.values()]
        case list() | tuple() | set() | frozenset():
            inner = value
        case functools.partial():
            inner = (value.func, *value.args, *value.keywords.values())
        case _ if _is_object_of_ours(value):
            if _is_frozen(value):
                inner = _held(value)  # a record is no object, but what it holds is reached through it
            else:
                yield value
    for one in inner:
        yield from _ours(one, seen)


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # raises where nothing was bound yet
    except ValueError:
        return True
    return False


def _is_object_of_ours(value: object) -> bool:
    kind = type(value)
    is_ours = kind.__module__.split(".")[0] in ("dispatcher", "tests")
    return is_ours and not isinstance(value, type | enum.Enum | Attempt)


def _is_frozen(value: object) -> bool:
    return dataclasses.is_dataclass(value) and type(value).__dataclass_params__.frozen  # type: ignore[attr-defined]


def _components(reaches: Mapping[int, tuple[object, set[int]]]) -> list[set[int]]:
    """Two objects are in one component where each reaches the other."""
    closure: dict[int, set[int]] = {}
    for start in reaches:
        seen: set[int] = set()
        todo = list(reaches[start][1])
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo.extend(reaches[one][1])
        closure[start] = seen
    parts: list[set[int]] = []
    done: set[int] = set()
    for one, reached in closure.items():
        if one not in done:
            part = {one} | {other for other in reached if one in closure[other]}
            parts.append(part)
            done |= part
    return parts


def figures() -> dict[str, int]:
    """The figures that docs/architecture.md shows."""
    reaches = graph(wired())
    found = cycles(reaches)
    return {
        "constructors with more than 6 parameters": len(large_constructors()),
        "parameters that take a callable": len(callable_parameters()),
        "objects of a dispatcher that is wired": len(reaches),
        "objects in the largest cycle": len(found[0]) if found else 1,
        "modules of the flow without unit tests": len(untested_modules()),
    }


if __name__ == "__main__":
    for name, figure in figures().items():
        print(f"{name}: {figure}")
    found_cycles = map(" <-> ".join, cycles(graph(wired())))
    for line in (*large_constructors(), *map(str, callable_parameters()), *found_cycles, *untested_modules()):
        print(f"  {line}")
