"""DAG: tasks under one id, and which DAG a `with` block or a DAG file is about."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from routing.authoring import copies, graph, jsonvalue, names, options
from routing.authoring.edges import Node
from routing.authoring.spec import DagSpec
from routing.errors import InvalidDag

_open: list[DAG] = []
"""The DAGs of the `with` blocks around the running line, the innermost last."""
_collecting: list[list[DAG]] = []
_OUR_FOLDER = __file__.removesuffix("dag.py")


class DAG:
    """Tasks and their order. Use it as a context manager: tasks made inside belong to it.

    `schedule` must be None: runs are started by hand in this version. `default_args` are options for every task that
    does not say otherwise. `params` are defaults of the run's `conf`, together given to tasks as `params`.
    """

    def __init__(
        self,
        dag_id: str,
        description: str | None = None,
        *,
        schedule: None = None,
        default_args: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        self.dag_id = names.checked_id("dag_id", dag_id)
        where = f"DAG {dag_id!r}"
        known = ("dag_id", "description", "schedule", "default_args", "params")
        names.refuse_unknown(f"{where}: parameter", unknown, known)
        if schedule is not None:
            raise InvalidDag(
                f"{where}: schedule={schedule!r} is not possible yet: runs are started with `podyard dags trigger`; "
                "write schedule=None or leave it out"
            )
        if description is not None and not isinstance(description, str):
            raise InvalidDag(f"{where}: description must be a string, not {description!r}")
        self.description = description
        self.default_args = _mapping(f"{where}: default_args", default_args)
        names.refuse_unknown(f"{where}: default_args: option", self.default_args, options.NAMES)
        options.read(f"{where}: default_args", self.default_args)
        self.params = _mapping(f"{where}: params", params)
        refusal = jsonvalue.refusal(self.params)
        if refusal:
            raise InvalidDag(f"{where}: params: {refusal}")
        self.tasks: dict[str, Node] = {}
        self.warnings: list[str] = []
        self.file = _module_file()
        self.line = line_in(self.file)
        for found in _collecting[-1:]:
            found.append(self)

    def __enter__(self) -> Self:
        """Tasks that are made from now on belong to this DAG."""
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        """The DAG around this one, if any, takes its place again."""
        _open.pop()

    def __repr__(self) -> str:
        """For messages."""
        return f"<DAG {self.dag_id!r}>"

    def add(self, node: Node) -> None:
        """Takes a task in. Raises InvalidDag if its id is taken."""
        if node.task_id in self.tasks:
            raise InvalidDag(f"DAG {self.dag_id!r} has two tasks with the task_id {node.task_id!r}; rename one")
        self.tasks[node.task_id] = node

    def warn(self, message: str, kind: type[Warning] | None = None) -> None:
        """Keeps a sentence for `podyard dags show`; with a kind, Python's warnings show it too."""
        self.warnings.append(message)
        if kind is not None:
            # The warning names the author's line, however deep it was found.
            ours = list(itertools.takewhile(_is_ours, _frames()))
            warnings.warn(message, kind, stacklevel=len(ours) + 1)

    def free_id(self, task_id: str) -> str:
        """The id, with `__1`, `__2` … appended if it is taken: a `@task` function may be called many times."""
        number, candidate = 0, task_id
        while candidate in self.tasks:
            number += 1
            candidate = f"{task_id}__{number}"
        return candidate

    def spec(self, file: str) -> DagSpec:
        """The DAG as a plain value. Raises InvalidDag where the tasks go in a circle or an option cannot be written."""
        cycle = graph.find_cycle({task_id: node.upstream for task_id, node in self.tasks.items()})
        if cycle:
            raise InvalidDag(
                f"DAG {self.dag_id!r} has a cycle: {' >> '.join(cycle)}; take one arrow out", line=self.line
            )
        tasks = tuple(node.spec() for node in self.tasks.values())
        return DagSpec(
            dag_id=self.dag_id,
            file=file,
            description=self.description,
            tasks=tasks,
            params=self.params,
            warnings=tuple(self.warnings),
        )


def current() -> DAG | None:
    """The DAG of the innermost `with` block."""
    return _open[-1] if _open else None


@contextmanager
def collecting() -> Iterator[list[DAG]]:
    """Gathers every DAG made inside the block; blocks may be nested, each gathers its own."""
    found: list[DAG] = []
    outer = _open[:]
    # A file that is loaded while another one's `with` block is open must not join that DAG.
    _open.clear()
    _collecting.append(found)
    try:
        yield found
    finally:
        _collecting.pop()
        _open[:] = outer


def _mapping(where: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidDag(f"{where} must be a mapping with text as keys, not {value!r}")
    return {key: copies.copied(part) for key, part in value.items()}


def line_in(file: str | None) -> int | None:
    """The line of this file that is being executed, in the innermost of its frames."""
    return next((frame.f_lineno for frame in _frames() if frame.f_code.co_filename == file), None)


def _module_file() -> str | None:
    """The file whose module body is being executed: a DAG belongs to it, also when another file's function makes it."""
    return next((frame.f_code.co_filename for frame in _frames() if frame.f_code.co_name == "<module>"), None)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OUR_FOLDER)


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as the logging module does
    while frame is not None:
        yield frame
        frame = frame.f_back
