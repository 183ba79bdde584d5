"""Operator: a task of a DAG as its author wrote it; the kinds of tasks are built on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from routing.authoring import copies, edges, names, options, rendering, xcom
from routing.authoring import dag as dags
from routing.authoring.spec import TaskSpec, Template
from routing.errors import InvalidDag


class Operator(edges.Node):
    """One task, with the options that every kind has (`options.OperatorOptions`)."""

    kind: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that are not options of every operator."""
    without_effect: ClassVar[Mapping[str, str]] = {}
    """Options that change nothing for this kind of task, and why: reported where a task is given one."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Options that this kind of task cannot have, and what to use; among the DAG's `default_args` they mean others."""
    dag: dags.DAG

    def __init__(self, task_id: str, *, dag: dags.DAG | None, arguments: Any, given: Mapping[str, Any]) -> None:
        """Joins the DAG. `arguments` may hold results of tasks, which then come before it; `given` are options.

        Whatever the author keeps in hands must be a copy here (`copies`): options are copied here, a kind's own
        parameters by the kind.
        """
        self.task_id = names.checked_id("task_id", task_id)
        owner = dag or dags.current()
        if not isinstance(owner, dags.DAG):
            raise InvalidDag(
                f"task {task_id!r} is outside of a DAG: make it inside `with DAG(...):`, or pass dag=… (a DAG)"
            )
        self.dag = owner
        names.refuse_unknown(f"{self.where}: parameter", given, (*self.parameters, *options.NAMES, "task_id", "dag"))
        # A refused option that is None asks for nothing.
        given = {name: value for name, value in given.items() if value is not None or name not in self.refused}
        for name, remedy in self.refused.items():
            if name in given:
                raise InvalidDag(f"{self.where}: {name} {remedy}")
        for name, why in self.without_effect.items():
            if name in given:
                owner.warn(f"{self.where}: {name} has no effect: {why}")
        # `default_args` are for all tasks of the DAG: one of a kind that has no such option is no mistake.
        defaults = {name: value for name, value in owner.default_args.items() if name not in self.refused}
        self.options = options.read(self.where, copies.copied({**defaults, **given}))
        self.upstream = {}
        self.line = dags.line_in(owner.file)
        owner.add(self)
        misplaced = xcom.misplaced(arguments) or xcom.anywhere(given)
        # Found while the file is loaded: otherwise the body would get the text «<result of task …>».
        if misplaced:
            raise InvalidDag(f"{self.where}: {misplaced}", line=self.line)
        self.inputs = tuple({reference.operator.task_id: None for reference in xcom.references(arguments)})
        # An argument is an arrow, too: a result is there only once its task has ended.
        for reference in xcom.references(arguments):
            edges.link(reference, self)

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"DAG {self.dag.dag_id!r}, task {self.task_id!r}"

    @property
    def output(self) -> xcom.XComArg:
        """Its result, to be passed to other tasks."""
        return xcom.XComArg(self)

    def __repr__(self) -> str:
        """For messages."""
        return f"<{type(self).__name__} {self.task_id!r}>"

    def execute(self, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        """Runs the body once and returns its result. `inputs` maps upstream task ids to their results."""
        raise NotImplementedError

    def pod_arguments(self) -> dict[str, Any] | None:
        """For the spec: arguments of a pod operator."""
        return None

    def beside(self, path: str) -> str:
        """A path whose file lies beside the DAG file, made whole; any other text as it is (a name, or a path that
        means something elsewhere)."""
        if not self.dag.file or path.startswith("/") or not ("/" in path or "." in path):
            return path
        from pathlib import Path

        found = Path(self.dag.file).parent / path
        return str(found) if found.is_file() else path

    def templates(self) -> Iterable[Template]:
        """The texts that are rendered for each run."""
        return ()

    def spec(self) -> TaskSpec:
        """The task as a plain value."""
        chosen = self.options
        return TaskSpec(
            task_id=self.task_id,
            operator=self.kind,
            upstream=tuple(self.upstream),
            inputs=tuple(dict.fromkeys((*self.inputs, *self._pulled()))),
            queue=chosen.queue,
            retries=chosen.retries,
            retry_delay_s=chosen.retry_delay_s,
            trigger_rule=chosen.trigger_rule,
            pod_override=self._pod_override(),
            pod_template_file=None if chosen.pod_template_file is None else self.beside(chosen.pod_template_file),
            pod=self.pod_arguments(),
            execution_timeout_s=chosen.execution_timeout_s,
        )

    def _pulled(self) -> tuple[str, ...]:
        """Ids of the tasks whose results its templates ask for. Raises InvalidDag for a template that cannot be one."""
        try:
            pulls = [rendering.check(self.where, template) for template in self.templates()]
        except InvalidDag as error:
            raise InvalidDag(str(error), line=self.line) from None
        named = dict.fromkeys(task_id for pull in pulls for task_id in sorted(pull.task_ids))
        before = self._before() if named else frozenset()
        for task_id in named:
            if task_id not in before:
                why = "is not before this task; write an arrow" if task_id in self.dag.tasks else "does not exist"
                raise InvalidDag(
                    f"{self.where}: a template pulls the result of task {task_id!r}, which {why}", line=self.line
                )
        return (*named, *(self.upstream if any(pull.is_open for pull in pulls) else ()))

    def _before(self) -> frozenset[str]:
        """Ids of all tasks before it, near and far."""
        found: dict[str, None] = {}
        waiting = [*self.upstream]
        while waiting:
            task_id = waiting.pop()
            if task_id not in found:
                found[task_id] = None
                waiting += self.dag.tasks[task_id].upstream
        return frozenset(found)

    def _pod_override(self) -> dict[str, Any] | None:
        override = self.options.pod_override
        if override is None:
            return None
        # Its table of fields is needed only where a file is loaded for the scheduler, not where a body runs.
        from dispatcher import errors
        from dispatcher.manifests import merge

        try:
            return merge.plain_override(override)
        except errors.InvalidOverride as error:
            raise InvalidDag(f"{self.where}: executor_config: {error}", line=self.line) from None
