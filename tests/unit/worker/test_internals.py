"""The names of Celery, kombu, redis-py and Flower that are no public API, held against what is installed and used."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import pytest

from dispatcher.worker.celery_patches import internals

ROOT = Path(__file__).parents[3]
ADR = ROOT / "docs/adr/0001-dispatcher-is-a-celery-pool.md"
LIBRARIES = ("celery", "kombu", "redis", "billiard", "vine", "flower")
PUBLIC = frozenset(
    {
        # documented by Celery, kombu, redis-py
        *("celery:Celery", "celery:bootsteps", "celery:signals", "celery:states", "celery.app.task:Task"),
        *("celery.result:ResultBase", "kombu.exceptions:ContentDisallowed"),
        *("celery.app.task:Context", "celery.concurrency.base:BasePool", "celery.backends.redis:RedisBackend"),
        *(
            "celery.worker.control:inspect_command",
            "celery.app.utils:find_app",
            "celery.app:trace",
            "celery.worker:state",
            "celery.worker:WorkController",
        ),
        *("kombu", "kombu:exceptions", "kombu.exceptions", "kombu.utils:json", "kombu.utils.json:loads"),
        *("kombu.utils.encoding:bytes_to_str", "kombu.transport:redis", "kombu.transport:virtual"),
        *("redis", "redis:exceptions", "redis.exceptions", "billiard.einfo:ExceptionInfo", "flower:urls"),
    }
)
OURS = frozenset({"_eventer", "_exit", "_tasks"})
"""Private names of our own objects, of `os._exit`, and of an app's registry, which `Celery` in the list covers."""


def _found(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for word in path.split("."):
        found = inspect.getattr_static(found, word) if inspect.isclass(found) else getattr(found, word)
    return found


def _source(found: Any) -> str:
    """The code of a class with its bases', or of a function."""
    if not inspect.isclass(found):
        return inspect.getsource(inspect.unwrap(getattr(found, "__func__", found)))
    return "\n".join(inspect.getsource(one) for one in found.__mro__ if one.__module__.split(".")[0] in LIBRARIES)


def _installed() -> tuple[int, int]:
    major, minor, *_ = celery.__version__.split(".")
    return int(major), int(minor)


@pytest.mark.parametrize("one", internals.INTERNALS, ids=lambda one: one.name)
def test_what_we_lean_on_is_there_and_as_we_take_it(one: internals.Internal) -> None:
    """Each failure says what changed, and which module of ours has to be looked at."""
    if _installed() < one.since:
        return
    look = f"look at {one.used_by}, which needs it because: {one.why}"
    try:
        found = _found(one.name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{one.name} is gone ({error}); {look}")
    if one.takes:
        names = [name for name in inspect.signature(found).parameters if name != "self"]
        wanted = [name for name in one.takes if name != "self"]
        assert names[: len(wanted)] == wanted, f"{one.name} takes {names} now, not {wanted} first; {look}"
    source = _source(found) if one.says or one.sets else ""
    for piece in one.says:
        assert piece in source, f"{one.name} says no longer {piece!r}; {look}"
    for name in one.sets:
        is_there = name in vars(found) if not inspect.isclass(found) else hasattr(found, name)
        assert is_there or f".{name} = " in source, f"{one.name} has no {name} any more; {look}"


def test_a_name_that_is_gone_is_told_with_a_sentence() -> None:
    """The contract tests can fail."""
    one = internals.Internal(name="celery.app.trace:no_such_name", why="a test", used_by="nowhere.py")
    with pytest.raises(pytest.fail.Exception, match=r"no_such_name is gone .*; look at nowhere.py, .* a test"):
        test_what_we_lean_on_is_there_and_as_we_take_it(one)


@pytest.mark.parametrize("one", internals.INTERNALS, ids=lambda one: one.name)
def test_each_name_is_used_where_the_list_says(one: internals.Internal) -> None:
    """What nobody uses leaves the list."""
    text = (ROOT / one.used_by).read_text()
    words = {one.name.rpartition(":")[2].rpartition(".")[2], *one.sets}
    if one.says:  # it is a behaviour that is leant on; who leans may not spell the name
        words |= {"StartStopStep", "on_apply", "broker_channel_error_retry", "event_dispatcher"}
    assert any(word in text for word in words), f"{one.used_by} does not use {one.name}"


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    """All of our modules but those for Airflow, which lean on Airflow's provider and have a contract of their own."""
    for package in ("dispatcher", "routing"):
        for path in (ROOT / package).rglob("*.py"):
            if "airflow" not in path.relative_to(ROOT).parts:
                yield path.relative_to(ROOT), ast.parse(path.read_text())


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            yield from (f"{node.module}:{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in LIBRARIES)


def test_what_is_imported_is_public_or_in_the_list() -> None:
    """A new name of Celery's in our code is either documented by it or written down."""
    known = {*PUBLIC, *(one.name for one in internals.INTERNALS)}
    unknown = {
        f"{path}: {name}"
        for path, tree in _trees()
        for name in _imports(tree)
        if name not in known and not name.startswith("celery.exceptions:")
    }
    assert unknown == set()


def test_private_names_of_others_are_in_the_list() -> None:
    """`something._name` in modules that speak to Celery or kombu, where it is not our own `self`."""
    known = {*OURS, *(one.name.rpartition(".")[2].rpartition(":")[2] for one in internals.INTERNALS)}
    known |= {name for one in internals.INTERNALS for name in one.sets}
    unknown = {
        f"{path}:{node.lineno} {node.attr}"
        for path, tree in _trees()
        if any(_imports(tree)) or "celery_patches" in path.parts or "worker" in path.parts
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        and node.attr not in known
    }
    assert unknown == set()


def test_the_decision_record_shows_the_same_list() -> None:
    """ADR 1 is where people look for what a new release of Celery may break."""
    assert internals.as_table() in ADR.read_text()
