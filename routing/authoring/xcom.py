"""XComArg: the result of a task, before there is one, passed to another task as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, NoReturn

from routing.authoring import copies
from routing.authoring.edges import Linkable, Node


class XComArg(Linkable):
    """Stands for the result of a task. May be an argument of other tasks, also inside lists, tuples and mappings."""

    __slots__ = ("operator",)

    def __init__(self, operator: Node) -> None:
        self.operator = operator

    def nodes(self) -> tuple[Node, ...]:
        """The task whose result it is."""
        return (self.operator,)

    def __repr__(self) -> str:
        """For messages."""
        return f"{_MARK}{self.operator.task_id!r}>"

    def __str__(self) -> str:  # noqa: PLE0307 - it never returns
        """Refused, like a format."""
        self._refuse("put into text")

    def __format__(self, _format: str) -> NoReturn:
        """Refused: text made while the DAG is loaded could never hold the result."""
        self._refuse("put into text")

    def __iter__(self) -> Iterator[Any]:
        """Refused, like unpacking."""
        self._refuse("iterated over")

    def __getitem__(self, _key: Any) -> NoReturn:
        """Refused: parts of a result are picked by the task that receives it."""
        self._refuse("indexed")

    def __bool__(self) -> bool:  # noqa: PLE0304 - it never returns
        """Refused: `if result:` would always hold."""
        self._refuse("used as a condition")

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(
            f"the result of task {self.operator.task_id!r} cannot be {what} while the DAG is loaded: "
            "it is known when the task has run; pass it whole as an argument of another task"
        )


def references(value: Any) -> Iterator[XComArg]:
    """All results that a value refers to, at any depth of lists, tuples and mappings."""
    if isinstance(value, XComArg):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from references(part)


def misplaced(value: Any) -> str | None:
    """Why a body or a container would see a placeholder instead of a result, if it would: a result that stands where
    none is put in, or a text that was made of one."""
    return _misplaced(value, set())


def anywhere(options: Mapping[str, Any]) -> str | None:
    """Why options cannot be used that hold a result, or a text that was made of one; None where they hold none."""
    found = next(_anywhere(dict(options), set()), None)
    if found is not None:
        return f"{found!r} is no option: options are needed before the task is sent"
    return misplaced(dict(options))


def resolve(value: Any, inputs: Mapping[str, Any]) -> Any:
    """The value with results in place of references; lists and mappings are copies, so that a body may change them.

    A result that is missing (its task failed or was skipped, and the trigger rule allows that) is None.
    """
    if isinstance(value, XComArg):
        return inputs.get(value.operator.task_id)
    return copies.rebuilt(value, lambda _, part: resolve(part, inputs))


_MARK = "<result of task "
_REMEDY = "pass it whole as an argument, or inside a list, a tuple or the values of a mapping"


def _misplaced(value: Any, known: set[int]) -> str | None:
    if isinstance(value, XComArg) or id(value) in known:
        return None
    known.add(id(value))
    if isinstance(value, str | bytes):
        return _made_of_a_result(value)
    if isinstance(value, Mapping | list | tuple):
        keys = list(value) if isinstance(value, Mapping) else []
        hidden = next((key for key in keys if next(_anywhere(key, set()), None) is not None), None)
        if hidden is not None:
            return f"a result of a task is a key of a mapping; {_REMEDY}"
        parts = [*keys, *(value.values() if isinstance(value, Mapping) else value)]
        return next(filter(None, (_misplaced(part, known) for part in parts)), None)
    found = next(_anywhere(value, set()), None)
    return None if found is None else f"{found!r} stands in a {type(value).__name__}; {_REMEDY}"


def _made_of_a_result(value: str | bytes) -> str | None:
    # `str` and f-strings are refused; repr is not, since messages need it, so a text may have been made by that.
    begin = _MARK if isinstance(value, str) else _MARK.encode()
    if begin not in value:  # type: ignore[operator]
        return None
    return f"the text {value!r} was made of a result that is not known while the DAG is loaded; {_REMEDY}"


def _anywhere(value: Any, known: set[int]) -> Iterator[XComArg]:
    """The results in a value, also in sets, data classes, partial functions and other objects with attributes."""
    if isinstance(value, XComArg):
        yield value
        return
    # Not into tasks, modules and functions: through a task's DAG, or a module's globals, all results would be found.
    if id(value) in known or isinstance(value, str | bytes | int | float | type | ModuleType | FunctionType | Linkable):
        return
    known.add(id(value))
    if isinstance(value, Mapping):
        parts: Iterable[Any] = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    elif isinstance(value, partial):
        parts = [value.args, value.keywords]
    else:
        parts = getattr(value, "__dict__", {}).values()
    for part in list(parts):
        yield from _anywhere(part, known)
