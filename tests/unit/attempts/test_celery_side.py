"""What crosses between the two threads are values: named by delivery, complete, and understood on the other side."""

import ast
import dataclasses
import inspect
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatcher import watching, worker
from dispatcher.attempts import celery_side
from dispatcher.attempts.attempt import Attempt
from dispatcher.worker.backend_questions import BackendQuestions
from dispatcher.worker.bridge import Bridge
from tests import cluster_side

VALUES: list[Any] = [
    one
    for _, one in sorted(inspect.getmembers(celery_side, dataclasses.is_dataclass))
    if one.__module__ == celery_side.__name__
]
EVENTS, COMMANDS = typing.get_args(celery_side.Event), typing.get_args(celery_side.Command)
ABOUT_PODS = {"Found", "Clean"}
"""Nobody has an attempt of these pods: they name the pod."""
OF_NOBODY = {"Broken", "Housekept", "SetLimit"}
"""They are about no attempt."""


def names(kinds: Any) -> set[str]:
    """The names of classes."""
    return {kind.__name__ for kind in kinds}


def test_every_value_goes_up_or_down_and_never_both_ways() -> None:
    """None is forgotten in the two unions."""
    assert names(EVENTS) | names(COMMANDS) == names(VALUES)
    assert not names(EVENTS) & names(COMMANDS)


@pytest.mark.parametrize("value", VALUES, ids=lambda one: one.__name__)
def test_a_value_cannot_be_changed_by_the_other_thread(value: Any) -> None:
    """Frozen, and spelled out by name."""
    assert value.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(value))


@pytest.mark.parametrize("value", VALUES, ids=lambda one: one.__name__)
def test_an_attempt_is_named_by_its_delivery_alone(value: Any) -> None:
    """The object itself crosses once, at its begin, and then belongs to the cluster's side."""
    hints = typing.get_type_hints(value)
    holds_attempt = Attempt in hints.values()
    assert holds_attempt is (value.__name__ in ("Submit", "Adopt"))
    is_named = "delivery" in hints or holds_attempt or value.__name__ in ABOUT_PODS | OF_NOBODY
    assert is_named, "which attempt is it about?"


def test_each_side_understands_all_that_it_is_sent() -> None:
    """What is in no `match` and no `isinstance` there would be lost in silence."""
    assert names(EVENTS) - _understood(worker) == set()
    assert names(COMMANDS) - _understood(watching) == set()


def _understood(package: ModuleType) -> set[str]:
    """The classes that the modules of a package tell apart."""
    found: set[str] = set()
    for path in Path(package.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.MatchClass):
                found |= {one.id for one in ast.walk(node.cls) if isinstance(one, ast.Name)}
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                found |= {one.id for one in ast.walk(node.args[1]) if isinstance(one, ast.Name)}
    return found


@pytest.mark.parametrize(
    ("protocol", "implementation"),
    [
        (celery_side.CelerySide, Bridge),
        (celery_side.CelerySide, cluster_side.CelerySide),
        (celery_side.Questions, BackendQuestions),
        (celery_side.Questions, cluster_side.Answers),
    ],
)
def test_who_implements_a_protocol_takes_and_gives_the_same(protocol: Any, implementation: Any) -> None:
    """The tests' own, too, so that they say something about the real one."""
    asked = [name for name, one in vars(protocol).items() if inspect.isfunction(one) and not name.startswith("_")]
    assert asked
    for name in asked:
        wanted, found = inspect.signature(getattr(protocol, name)), inspect.signature(getattr(implementation, name))
        assert found.parameters.keys() == wanted.parameters.keys(), name
        assert str(found.return_annotation) == str(wanted.return_annotation), name
        is_async = inspect.iscoroutinefunction(getattr(protocol, name))
        assert inspect.iscoroutinefunction(getattr(implementation, name)) is is_async, name
