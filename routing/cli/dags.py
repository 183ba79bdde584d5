"""`podyard dags`: which DAGs there are, what they look like, and starting one."""

import difflib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from routing import commands
from routing.cli import output as out
from routing.cli import plaintext, render, runs, watching
from routing.cli.failure import Failure
from routing.cli.session import Session, common_options, pass_session
from routing.router import Router
from routing.store import rows

_COLUMNS: out.Columns[rows.DagRow] = {
    "DAG": lambda dag: Text(plaintext.line(dag.dag_id)),
    "TASKS": lambda dag: dag.task_count,
    "PAUSED": lambda dag: dag.is_paused,
    "FILE": lambda dag: Text(plaintext.line(dag.file)),
    "DESCRIPTION": lambda dag: dag.description,
}
_ERROR_COLUMNS: out.Columns[rows.DagErrorRow] = {
    "FILE": lambda error: Text(plaintext.line(error.file)),
    "LINE": lambda error: error.line,
    "MESSAGE": lambda error: error.message,
    "SEEN": lambda error: error.seen_at,
}


@click.group()
def dags() -> None:
    """DAGs, as the scheduler found them in the folder that the setting dags.folder names."""


dags.add_command(render.render)


@dags.command("list")
@click.option("--errors", is_flag=True, help="List the files that cannot be used, and why.")
@common_options
@out.output_option
@pass_session
def list_dags(session: Session, errors: bool, output: str) -> None:
    """List the DAGs.

    \b
    Example:  podyard dags list
              podyard dags list --errors
    """
    broken = session.store.dag_errors()
    if errors:
        out.show_list(broken, _ERROR_COLUMNS, output=output, empty="no errors: every DAG file can be used")
        return
    found = [dag for dag in session.store.dags() if dag.is_active]
    empty = f"no DAGs yet; put files into {session.settings.dags.folder} and run `podyard scheduler`"
    out.show_list(found, _COLUMNS, output=output, empty=empty, record=_record)
    if broken:
        first = broken[0]
        where = first.file if first.line is None else f"{first.file}:{first.line}"
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        click.echo(
            plaintext.line(f"cannot be used: {where}: {first.message}{more}; see `podyard dags list --errors`"),
            err=True,
        )


@dags.command()
@click.argument("dag")
@common_options
@out.output_option
@pass_session
def show(session: Session, dag: str, output: str) -> None:
    """Show the tasks of DAG: operator, queue and its side, what each waits for.

    \b
    Example:  podyard dags show stdlib_census
    """
    found = _find(session, dag)
    if output != "table":
        tasks = [{**task, "side": _side(session.settings.router, task)} for task in found.structure.get("tasks", ())]
        warnings = list(found.structure.get("warnings", ()))
        out.show_data({**_record(found), "tasks": tasks, "warnings": warnings}, output=output)
        return
    click.echo(plaintext.line(f"{found.dag_id}: {found.description or 'no description'}"))
    click.echo(
        plaintext.line(f"file {found.file}, loaded {out.clock(found.loaded_at)}{', paused' if found.is_paused else ''}")
    )
    click.echo()
    out.print_table(out.table(found.structure.get("tasks", ()), _task_columns(session.settings.router)))
    for warning in found.structure.get("warnings", ()):
        click.echo(plaintext.line(f"warning: {warning}"), err=True)


@dags.command()
@click.argument("dag")
@click.option(
    "--conf", metavar="JSON", help="Parameters of the run: a JSON object, or @FILE. Example: '{\"limit\": 3}'"
)
@click.option("--run-id", metavar="ID", help="The run's id; made from the time if not given.")
@click.option("--wait", is_flag=True, help="Follow the run to its end; exits with 1 if it does not succeed.")
@common_options
@out.output_option
@pass_session
def trigger(session: Session, *, dag: str, conf: str | None, run_id: str | None, wait: bool, output: str) -> None:
    """Start a run of DAG. Where no scheduler is at work, it says so: the run begins once one is.

    \b
    Example:  podyard dags trigger stdlib_census --wait
              podyard dags trigger nightly --conf '{"day": "2026-01-01"}'
    """
    parameters = _parse_conf(conf)
    _find(session, dag)
    run = session.store.create_run(dag, run_id=run_id, conf=parameters, at=datetime.now(UTC))
    if wait:
        _follow(session, run, output=output)
        return
    _say_triggered(run, output=output)
    if not watching.is_scheduled(session.store):
        click.echo(runs.NO_SCHEDULER, err=True)


def _say_triggered(run: rows.RunRow, *, output: str) -> None:
    if output != "table":
        out.show_data(run, output=output)
    else:
        click.echo(plaintext.line(f"triggered run {run.run_id} of {run.dag_id}; follow it with `podyard runs watch`"))


def _follow(session: Session, run: rows.RunRow, *, output: str) -> None:
    """Changes go to stderr, so that the outcome alone is on stdout."""
    look = runs.follow(session, run, stderr=True)
    if output != "table":
        out.show_data(look.run, output=output)
    if look.run.state == "success":
        return
    bad = [task for task in look.tasks if task.state == "failed"]
    if not bad:
        raise Failure(f"run {run.run_id} of {run.dag_id} ended {look.run.state}: {look.run.reason or 'no task failed'}")
    first = bad[0]
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    why = f"task {first.task_id!r}{more}: {first.reason or 'no reason recorded'}"
    look_at = commands.shown("tasks", "explain", run.run_id, first.task_id)
    raise Failure(f"run {run.run_id} of {run.dag_id} failed: {why}; see {look_at}")


def _find(session: Session, dag: str) -> rows.DagRow:
    found = session.store.dag(dag)
    if found is not None and found.is_active:
        return found
    known = [one.dag_id for one in session.store.dags() if one.is_active]
    if not known and not session.store.dag_errors():
        folder = session.settings.dags.folder
        raise Failure(
            f"the DAG {dag!r} is not known: no scheduler has found a DAG in {folder} yet; run `podyard scheduler`"
        )
    near = difflib.get_close_matches(dag, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`podyard dags list` lists them"
    gone = "is not in the DAG folder any more" if found else "does not exist"
    broken = len(session.store.dag_errors())
    unusable = f"; {broken} files cannot be used (`podyard dags list --errors`)" if broken else ""
    raise Failure(f"the DAG {dag!r} {gone}: {hint}{unusable}")


def _parse_conf(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        conf = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise click.BadParameter(f"{text[1:]}: {error.strerror}", param_hint="--conf") from error
    except ValueError as error:
        raise click.BadParameter(f'{error}; write a JSON object such as {{"limit": 3}}', param_hint="--conf") from error
    if not isinstance(conf, dict):
        raise click.BadParameter(f'{text} is no JSON object; write one such as {{"limit": 3}}', param_hint="--conf")
    return conf


def _side(router: Router, task: Mapping[str, Any]) -> str | None:
    """Where the task will run; a task without a body is done by the scheduler, a pod operator's is always a pod."""
    if task["operator"] == "empty":
        return None
    return "kubernetes" if task["operator"] == "pod" else router.route(task.get("queue")).side


def _task_columns(router: Router) -> out.Columns[Mapping[str, Any]]:
    return {
        "TASK": lambda task: Text(plaintext.line(task["task_id"])),
        "OPERATOR": lambda task: task["operator"],
        "QUEUE": lambda task: task.get("queue"),
        "SIDE": lambda task: _side(router, task),
        "RETRIES": lambda task: task.get("retries", 0),
        "TRIGGER RULE": lambda task: task.get("trigger_rule"),
        "AFTER": lambda task: ", ".join(task.get("upstream", ())),
    }


def _record(dag: rows.DagRow) -> dict[str, Any]:
    keys = ("dag_id", "file", "description", "is_paused", "is_active", "loaded_at", "version", "task_count")
    return {key: getattr(dag, key) for key in keys}
