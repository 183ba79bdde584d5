"""XComArg: the result of a task, before there is one, passed to another task as an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

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
        return f"<result of task {self.operator.task_id!r}>"

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


def resolve(value: Any, inputs: Mapping[str, Any]) -> Any:
    """The value with results in place of references; lists and mappings are copies, so that a body may change them.

    A result that is missing (its task failed or was skipped, and the trigger rule allows that) is None.
    """
    if isinstance(value, XComArg):
        return inputs.get(value.operator.task_id)
    kind = type(value)
    if kind is dict:
        return {key: resolve(part, inputs) for key, part in value.items()}
    if kind is list:
        return [resolve(part, inputs) for part in value]
    if kind is tuple:
        return tuple(resolve(part, inputs) for part in value)
    return value
