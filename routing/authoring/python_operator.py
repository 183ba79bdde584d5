"""PythonOperator: a task whose body is a Python callable."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from routing.authoring import context as contexts
from routing.authoring import copies, rendering, xcom
from routing.authoring.dag import DAG
from routing.authoring.operator import Operator
from routing.authoring.options import OperatorOptions
from routing.authoring.spec import Template
from routing.errors import InvalidDag


class PythonOperator(Operator):
    """Calls `python_callable(*op_args, **op_kwargs)`; its return value is the task's result.

    A parameter that is named like a key of the context (`ds`, `run_id`, `params` …) and is not given gets that value; a
    callable with `**kwargs` gets them all. Texts in `op_args` and `op_kwargs` may be Jinja templates.
    """

    kind = "python"
    parameters = ("op_args", "op_kwargs", "python_callable")

    def __init__(
        self,
        *,
        task_id: str,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        dag: DAG | None = None,
        **given: Unpack[OperatorOptions],
    ) -> None:
        self.python_callable = python_callable
        self.op_args, self.op_kwargs = copies.copied(op_args), copies.copied(op_kwargs or {})
        super().__init__(task_id, dag=dag, arguments=(self.op_args, self.op_kwargs), given=given)
        if not callable(python_callable):
            raise InvalidDag(f"{self.where}: python_callable must be callable, not {python_callable!r}")
        if isinstance(op_args, str) or not isinstance(op_args, Sequence):
            raise InvalidDag(f"{self.where}: op_args must be a list, not {op_args!r}")
        if not isinstance(self.op_kwargs, Mapping):
            raise InvalidDag(f"{self.where}: op_kwargs must be a mapping, not {op_kwargs!r}")
        self.op_args, self.op_kwargs = tuple(self.op_args), dict(self.op_kwargs)
        self._context_names = _context_names(self.where, python_callable, self.op_args, self.op_kwargs)

    def templates(self) -> Iterator[Template]:
        """Texts in `op_args` and `op_kwargs`, at any depth."""
        yield from rendering.find(self.op_args, "op_args")
        yield from rendering.find(self.op_kwargs, "op_kwargs")

    def execute(self, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        """Calls the callable with results in place of references, and templates rendered."""
        op_args = rendering.rendered(self.op_args, context, inputs, "op_args")
        op_kwargs = rendering.rendered(self.op_kwargs, context, inputs, "op_kwargs")
        args = [xcom.resolve(value, inputs) for value in op_args]
        kwargs = {name: xcom.resolve(value, inputs) for name, value in op_kwargs.items()}
        for name in self._context_names:
            kwargs[name] = context[name]
        return self.python_callable(*args, **kwargs)


def _context_names(
    where: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """The keys of the context that the callable wants. Raises InvalidDag where a call could never succeed."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ()  # some builtins have no signature; they refuse wrong arguments when they run
    name = getattr(function, "__name__", repr(function))
    try:
        # While the file is loaded, so that a call that can never succeed costs no run.
        bound = signature.bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        raise InvalidDag(f"{where}: {name}{signature} cannot be called with these arguments: {error}") from None
    wanted = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            taken = {*signature.parameters, *kwargs}
            wanted += [key for key in contexts.NAMES if key not in taken]
        elif parameter.kind is parameter.VAR_POSITIONAL or parameter.name in bound:
            continue
        elif parameter.name in contexts.NAMES and parameter.kind is not parameter.POSITIONAL_ONLY:
            wanted.append(parameter.name)
        elif parameter.default is parameter.empty:
            raise InvalidDag(f"{where}: {name}{signature} lacks a value for {parameter.name!r}")
    return tuple(wanted)
