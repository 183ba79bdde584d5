"""task: makes tasks of a Python function; each call inside a DAG is a task, and its value stands for the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from routing.authoring import copies, names
from routing.authoring import dag as dags
from routing.authoring import options as all_options
from routing.authoring.options import OperatorOptions
from routing.authoring.python_operator import PythonOperator
from routing.errors import InvalidDag

P = ParamSpec("P")
R = TypeVar("R")


class TaskFunction(Generic[P, R]):
    """A function that becomes a task when it is called inside a DAG. `.function` is the plain function."""

    def __init__(self, function: Callable[P, R], *, task_id: str | None, given: Mapping[str, Any]) -> None:
        if not callable(function):
            raise InvalidDag(f"@task decorates functions, not {function!r}; options are given by keyword")
        names.refuse_unknown(f"@task of {_name(function)!r}: parameter", given, (*all_options.NAMES, "task_id"))
        self.function = function
        self._task_id = task_id
        self._given = copies.copied(dict(given))
        # Without `updated` the function's attributes would be written over ours.
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Makes a task with these arguments; results of other tasks may be among them. Returns an XComArg.

        To a type checker it is Any: it takes the place of a value of any type among another task's arguments, which no
        type can say of an XComArg. A parameter that the context fills needs a default there (`ds: str = ""`).
        """
        dag = dags.current()
        task_id = self._task_id or _name(self.function)
        if dag is None:
            raise InvalidDag(
                f"task {task_id!r} is outside of a DAG: call it inside `with DAG(...):`; "
                f"the plain function is {_name(self.function)}.function"
            )
        return PythonOperator(
            task_id=dag.free_id(task_id),
            python_callable=self.function,
            op_args=args,
            op_kwargs=kwargs,
            dag=dag,
            **self._given,
        ).output

    def override(self, *, task_id: str | None = None, **given: Unpack[OperatorOptions]) -> TaskFunction[P, R]:
        """The same function with other options, or another task_id."""
        return TaskFunction(self.function, task_id=task_id or self._task_id, given={**self._given, **given})


class _Decorator(Protocol):
    """What `@task(…)` gives: unlike a Callable, it takes the signature of the function that it meets."""

    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(*, task_id: str | None = None, **given: Unpack[OperatorOptions]) -> _Decorator: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    task_id: str | None = None,
    **given: Unpack[OperatorOptions],
) -> Any:
    """`@task` or `@task(queue="kubernetes", retries=2, …)`: makes tasks of a function."""
    if function is not None:
        return TaskFunction(function, task_id=task_id, given=given)
    return lambda decorated: TaskFunction(decorated, task_id=task_id, given=given)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))
