"""The arrows between tasks: `a >> b`, `a << b`, lists on either side.

A node knows its id, its DAG and who comes before it. Results (`XComArg`) take part in arrows for the task behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from routing.authoring.spec import TaskSpec
from routing.errors import InvalidDag

T = TypeVar("T")


class Graph(Protocol):
    """What a node needs to know of its DAG."""

    dag_id: str


class Linkable:
    """Something that stands for tasks at an end of an arrow."""

    __slots__ = ()

    def nodes(self) -> tuple[Node, ...]:
        """The tasks that it stands for."""
        raise NotImplementedError

    def __rshift__(self, other: T) -> T:
        """`self >> other`: other comes after self."""
        link(self, other)
        return other

    def __lshift__(self, other: T) -> T:
        """`self << other`: other comes before self."""
        link(other, self)
        return other

    def __rrshift__(self, other: Any) -> Any:
        """`[a, b] >> self`."""
        link(other, self)
        return self

    def __rlshift__(self, other: Any) -> Any:
        """`[a, b] << self`."""
        link(self, other)
        return self


class Node(Linkable):
    """A task's place in its DAG."""

    task_id: str
    dag: Graph
    upstream: dict[str, None]
    """Ids of the tasks directly before it, in the author's order."""

    def nodes(self) -> tuple[Node, ...]:
        """Itself."""
        return (self,)

    def spec(self) -> TaskSpec:
        """The task as a plain value."""
        raise NotImplementedError


def link(before: Any, after: Any) -> None:
    """Makes every task of `before` an upstream of every task of `after`.

    Raises InvalidDag where something is no task, a task of another DAG, or the same task.
    """
    for upstream in _nodes(before):
        for downstream in _nodes(after):
            _link(upstream, downstream)


def _link(upstream: Node, downstream: Node) -> None:
    if upstream.dag is not downstream.dag:
        raise InvalidDag(
            f"task {upstream.task_id!r} of DAG {upstream.dag.dag_id!r} cannot come before task {downstream.task_id!r} "
            f"of DAG {downstream.dag.dag_id!r}: a dependency stays inside one DAG"
        )
    if upstream is downstream:
        raise InvalidDag(f"DAG {upstream.dag.dag_id!r}: task {upstream.task_id!r} cannot come before itself")
    downstream.upstream[upstream.task_id] = None


def _nodes(end: Any) -> tuple[Node, ...]:
    if isinstance(end, Linkable):
        return end.nodes()
    if isinstance(end, Sequence) and not isinstance(end, str):
        return tuple(node for part in end for node in _nodes(part))
    hint = "; call it, with brackets, to make a task of it" if callable(end) else ""
    raise InvalidDag(f"an arrow (>> or <<) needs tasks or lists of tasks at both ends, not {end!r}{hint}")
