"""task: makes tasks of a Python function; each call inside a DAG is a task, and its value stands for the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any, Unpack, overload

from routing.authoring import copies, names
from routing.authoring import dag as dags
from routing.authoring import options as all_options
from routing.authoring.options import OperatorOptions
from routing.authoring.python_operator import PythonOperator
from routing.authoring.xcom import XComArg
from routing.errors import InvalidDag


class TaskFunction:
    """A function that becomes a task when it is called inside a DAG. `.function` is the plain function."""

    def __init__(self, function: Callable[..., Any], *, task_id: str | None, given: Mapping[str, Any]) -> None:
        if not callable(function):
            raise InvalidDag(f"@task decorates functions, not {function!r}; options are given by keyword")
        names.refuse_unknown(f"@task of {_name(function)!r}: parameter", given, (*all_options.NAMES, "task_id"))
        self.function = function
        self._task_id = task_id
        self._given = copies.copied(dict(given))
        update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> XComArg:
        """Makes a task with these arguments; results of other tasks may be among them."""
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

    def override(self, *, task_id: str | None = None, **given: Unpack[OperatorOptions]) -> TaskFunction:
        """The same function with other options, or another task_id."""
        return TaskFunction(self.function, task_id=task_id or self._task_id, given={**self._given, **given})


@overload
def task(function: Callable[..., Any], /) -> TaskFunction: ...


@overload
def task(
    *, task_id: str | None = None, **given: Unpack[OperatorOptions]
) -> Callable[[Callable[..., Any]], TaskFunction]: ...


def task(
    function: Callable[..., Any] | None = None, /, *, task_id: str | None = None, **given: Unpack[OperatorOptions]
) -> Any:
    """`@task` or `@task(queue="kubernetes", retries=2, …)`: makes tasks of a function."""
    if function is not None:
        return TaskFunction(function, task_id=task_id, given=given)
    return lambda decorated: TaskFunction(decorated, task_id=task_id, given=given)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))
