"""Templates in what authors write: text with `{{ ds }}` becomes the text of one run. Jinja, in its sandbox.

Text in, text out: a template never becomes a list or a number, and results of tasks are put in afterwards, so that what
a task returned is never executed. `check` is for the child process that loads a DAG file, `rendered` for the process
that runs a body, `render` for the scheduler's renderer, which is a process of its own. jinja2 is imported only where
some text is a template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from routing.authoring import context as contexts
from routing.authoring import copies
from routing.authoring.spec import Template
from routing.errors import InvalidDag, TaskFailed

if TYPE_CHECKING:
    import jinja2

NAMES = contexts.NAMES | {"dag", "dag_run", "macros", "task", "task_instance", "ti"}
"""The variables of a template."""

_ABSENT = {
    "conn": "there are no connections; give the task an environment variable, or a pod a Secret",
    "data_interval_end": "runs have no data interval; use logical_date",
    "data_interval_start": "runs have no data interval; use logical_date",
    "execution_date": "its name is logical_date",
    "next_ds": "runs have no schedule; use macros.ds_add(ds, 1)",
    "prev_ds": "runs have no schedule; use macros.ds_add(ds, -1)",
    "var": "there are no variables of Airflow's kind; use params, or what the run was started with (conf)",
    "yesterday_ds": "use macros.ds_add(ds, -1)",
    "tomorrow_ds": "use macros.ds_add(ds, 1)",
}


@dataclass(frozen=True)
class Pulls:
    """Whose results templates ask for by `ti.xcom_pull`."""

    task_ids: frozenset[str] = frozenset()
    is_open: bool = False
    """Some id is computed when the task runs: any result of a task directly before may be meant."""

    def __or__(self, other: Pulls) -> Pulls:
        return Pulls(self.task_ids | other.task_ids, self.is_open or other.is_open)


def is_template(text: str) -> bool:
    """Whether Jinja would change it. `{#` alone is no comment: `${#list}` is an ordinary word of a shell."""
    return "{{" in text or "{%" in text or ("{#" in text and "#}" in text)


def find(value: Any, path: str) -> Iterator[Template]:
    """The templates in a value, at any depth of lists, tuples and values of mappings."""
    if isinstance(value, str):
        if is_template(value):
            yield Template(path, value)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from find(part, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from find(part, f"{path}[{index}]")


def check(where: str, template: Template) -> Pulls:
    """Whose results it asks for. Raises InvalidDag for what could never be rendered: a mistake in its grammar, a
    variable that does not exist."""
    from jinja2 import TemplateSyntaxError, meta

    environment = _environment_for(template.text)
    try:
        tree = environment.parse(template.text)
    except TemplateSyntaxError as error:
        raise InvalidDag(f"{where}: {template.path}: not a Jinja template: {error.message}") from None
    generator = meta.TrackingCodeGenerator(environment)
    generator.optimizer = None  # as `find_undeclared_variables`, which would compute the template's constants
    generator.visit(tree)
    for name in sorted(generator.undeclared_identifiers):
        if name not in NAMES and name not in environment.globals:
            raise InvalidDag(f"{where}: {template.path}: {{{{ {name} }}}} is not known; {_hint(name)}")
    return _pulls(tree)


def rendered(value: Any, context: Mapping[str, Any], inputs: Mapping[str, Any], path: str) -> Any:
    """The value with its templates rendered; itself where it has none, else its lists and mappings are copies.

    `context` as `contexts.build` makes it, `inputs` maps task ids to results. Raises TaskFailed with the path.
    """
    if next(find(value, path), None) is None:
        return value
    names = variables(context, inputs)
    return _rendered(value, path, lambda template: _render_one(template, names))


def render(templates: Iterable[Template], message: Mapping[str, Any]) -> list[str]:
    """The texts of templates for one task run: `message` is that of `routing.run`, with `params` of the DAG and
    `attempt_id` beside."""
    context = contexts.build(message, params=message.get("params") or {}, attempt_id=message.get("attempt_id"))
    names = variables(context, message.get("inputs") or {})
    return [_render_one(template, names) for template in templates]


def warm() -> None:
    """Imports what the first template would have to wait for."""
    _environment(has_comments=False)


def variables(context: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a template sees: the context of the task, and Airflow's objects as far as they mean something here."""
    run = {name: context[name] for name in ("conf", "dag_id", "logical_date", "run_id")}
    instance = _TaskInstance(
        dag_id=context["dag_id"],
        task_id=context["task_id"],
        run_id=context["run_id"],
        try_number=context["try_number"],
        map_index=context["map_index"],
        _inputs=inputs,
    )
    return {
        **context,
        "dag": SimpleNamespace(dag_id=context["dag_id"]),
        "dag_run": SimpleNamespace(**run),
        "macros": SimpleNamespace(datetime=datetime, timedelta=timedelta, ds_add=_ds_add, ds_format=_ds_format),
        "task": SimpleNamespace(task_id=context["task_id"]),
        "task_instance": instance,
        "ti": instance,
    }


@dataclass(frozen=True, kw_only=True)
class _TaskInstance:
    """`ti` of a template."""

    dag_id: str
    task_id: str
    run_id: str | None
    try_number: int
    map_index: int
    _inputs: Mapping[str, Any] = field(repr=False)

    def xcom_pull(
        self, task_ids: Any = None, dag_id: str | None = None, key: str = "return_value", **unknown: Any
    ) -> Any:
        """The result of a task, or a list of results for a list of ids; None where it left none."""
        if unknown or key != "return_value" or dag_id not in {None, self.dag_id}:
            raise ValueError("ti.xcom_pull gives results of tasks of this run: call it with task_ids alone")
        if isinstance(task_ids, list | tuple):
            return [self._result(task_id) for task_id in task_ids]
        return self._result(task_ids)

    def _result(self, task_id: Any) -> Any:
        if task_id not in self._inputs:
            known = ", ".join(map(repr, self._inputs)) or "none"
            raise ValueError(
                f"ti.xcom_pull: the result of {task_id!r} is not at hand (at hand: {known}); write its id as text in "
                "the template, or put the task directly before this one"
            )
        return self._inputs[task_id]


def _rendered(value: Any, path: str, one: Callable[[Template], str]) -> Any:
    if isinstance(value, str):
        return one(Template(path, value)) if is_template(value) else value
    return copies.rebuilt(value, lambda key, part: _rendered(part, f"{path}[{key!r}]", one))


def _render_one(template: Template, names: Mapping[str, Any]) -> str:
    try:
        return _compiled(template.text).render(names)
    except Exception as error:  # a template may raise anything, and it is the task's failure
        what = str(error) or type(error).__name__
    # Raised out here, where it has no context: Jinja's traceback is of no use to the author.
    raise TaskFailed(
        f"{template.path}: the template cannot be rendered: {what}", {"reason": "TemplateError", "cause": "application"}
    )


@lru_cache(maxsize=256)
def _compiled(text: str) -> jinja2.Template:
    return _environment_for(text).from_string(text)


def _environment_for(text: str) -> jinja2.Environment:
    return _environment(has_comments="{#" in text and "#}" in text)


@cache
def _environment(*, has_comments: bool) -> jinja2.Environment:
    from jinja2 import StrictUndefined, pass_context, sandbox

    @pass_context  # what needs the context cannot be asked before there is one
    def _unchanged(_: jinja2.runtime.Context, value: Any) -> Any:
        return value

    marks = {} if has_comments else {"comment_start_string": "{#\0", "comment_end_string": "\0#}"}
    # Immutable: `params` and results are shared by all templates of a task.
    # Undefined names fail instead of becoming "".
    environment = sandbox.ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # the text becomes arguments of programs, never HTML
        keep_trailing_newline=True,
        optimized=False,  # Jinja computes constants while it reads a template, `'x' * 10**9` included …
        finalize=_unchanged,  # … in the process that loads the file; so they wait for the one that renders
        **marks,
    )
    environment.filters.update(
        ds=lambda at: at.strftime("%Y-%m-%d"),
        ds_nodash=lambda at: at.strftime("%Y%m%d"),
        ts=lambda at: at.isoformat(),
        ts_nodash=lambda at: at.strftime("%Y%m%dT%H%M%S"),
    )
    return environment


def _pulls(tree: jinja2.nodes.Template) -> Pulls:
    from jinja2 import nodes

    mentions = sum(1 for node in tree.find_all(nodes.Getattr) if node.attr == "xcom_pull")
    found = [
        _pulled(call)
        for call in tree.find_all(nodes.Call)
        if isinstance(call.node, nodes.Getattr)
        and call.node.attr == "xcom_pull"
        and isinstance(call.node.node, nodes.Name)
        and call.node.node.name in {"ti", "task_instance"}
    ]
    ids = frozenset(task_id for one in found if one is not None for task_id in one)
    # A mention that is no call (`{% set pull = ti.xcom_pull %}`) may ask for anything.
    return Pulls(ids, is_open=None in found or len(found) < mentions)


def _pulled(call: jinja2.nodes.Call) -> tuple[str, ...] | None:
    """The ids that a call of `xcom_pull` names; None where they are computed."""
    from jinja2 import nodes

    given = [*call.args[:1], *(keyword.value for keyword in call.kwargs if keyword.key == "task_ids")]
    try:
        value = given[0].as_const() if given else None
    except nodes.Impossible:
        return None
    ids = (value,) if isinstance(value, str) else value
    return tuple(ids) if isinstance(ids, list | tuple) and all(isinstance(one, str) for one in ids) else None


def _hint(name: str) -> str:
    if name in _ABSENT:
        return _ABSENT[name]
    from difflib import get_close_matches

    near = get_close_matches(name, NAMES, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(NAMES))}"


def _ds_add(ds: str, days: int) -> str:
    return (datetime.strptime(ds, "%Y-%m-%d") + timedelta(days=days)).strftime("%Y-%m-%d")  # noqa: DTZ007 - days only


def _ds_format(ds: str, input_format: str, output_format: str) -> str:
    return datetime.strptime(ds, input_format).strftime(output_format)  # noqa: DTZ007 - a day has no zone
