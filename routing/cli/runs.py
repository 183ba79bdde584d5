"""`podyard runs`: what was run, how it went, and stopping it."""

from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from routing.cli import lookup, plaintext, taskview, watching
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, common_options, pass_session
from routing.store import rows

_COLUMNS: out.Columns[rows.RunRow] = {
    "RUN": lambda run: Text(plaintext.line(run.run_id)),
    "DAG": lambda run: Text(plaintext.line(run.dag_id)),
    "STATE": lambda run: run.state,
    "TASKS": lambda run: sum(run.task_states.values()),
    "STARTED": lambda run: run.started_at,
    "SECONDS": lambda run: run.runtime_s,
    "REASON": lambda run: run.reason,
}

NO_SCHEDULER = "no scheduler is running: the run goes on once `podyard scheduler` does"


@click.group()
def runs() -> None:
    """Runs of DAGs. RUN is a run's id, or a part of it that no other has; without it the latest is meant."""


@runs.command("list")
@lookup.dag_option
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@common_options
@out.output_option
@pass_session
def list_runs(session: Session, dag: str | None, limit: int, output: str) -> None:
    """List runs, the newest first.

    \b
    Example:  podyard runs list --dag stdlib_census --limit 5
    """
    empty = "no runs yet; start one with `podyard dags trigger DAG`"
    out.show_list(session.store.runs(dag, limit=limit), _COLUMNS, output=output, empty=empty)


@runs.command()
@click.argument("run", required=False)
@lookup.dag_option
@common_options
@out.output_option
@pass_session
def show(session: Session, run: str | None, dag: str | None, output: str) -> None:
    """Show a run and each of its tasks: queue, side, host or pod, state, result.

    \b
    Example:  podyard runs show
              podyard runs show --output json | jq .tasks
    """
    found = lookup.find_run(session.store, run, dag=dag)
    found = session.store.run(found.run_id, dag_id=found.dag_id) or found
    tasks = session.store.tasks(found.run_id, dag_id=found.dag_id)
    if output != "table":
        out.show_data({**out.to_plain(found), "runtime_s": found.runtime_s, "tasks": tasks}, output=output)
        return
    for line in _headlines(found):
        click.echo(plaintext.line(line))
    click.echo()
    out.print_table(taskview.table(tasks))


@runs.command()
@click.argument("run", required=False)
@lookup.dag_option
@click.option(
    "--interval", type=click.FloatRange(min=0.05), default=0.5, show_default=True, help="Seconds between looks."
)
@common_options
@pass_session
def watch(session: Session, run: str | None, dag: str | None, interval: float) -> None:
    """Follow a run until it ends: a live table on a terminal, else a line for each change.

    \b
    Example:  podyard runs watch
    """
    follow(session, lookup.find_run(session.store, run, dag=dag), interval_s=interval)


@runs.command()
@click.argument("run")
@lookup.dag_option
@common_options
@pass_session
def cancel(session: Session, run: str, dag: str | None) -> None:
    """Stop a run: what waits is not started, what runs is stopped by the scheduler.

    \b
    Example:  podyard runs cancel manual__2026-01-01T00:00
    """
    found = lookup.find_run(session.store, run, dag=dag)
    if not session.store.cancel_run(found.run_id, dag_id=found.dag_id, at=datetime.now(UTC)):
        raise Failure(f"run {found.run_id} has ended already ({found.state}): there is nothing to cancel")
    click.echo(f"cancelled run {plaintext.line(found.run_id)} of {plaintext.line(found.dag_id)}")


def follow(
    session: Session, run: rows.RunRow, *, interval_s: float = watching.INTERVAL_S, stderr: bool = False
) -> watching.Look:
    """Shows a run until it has ended; returns the last look."""
    console = out.console(stderr=stderr)
    looks = watching.follow(session.store, run, interval_s=interval_s)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            for look in looks:
                warning = () if look.is_scheduled or look.is_final else (NO_SCHEDULER,)
                live.update(Group(taskview.summary(look.run), taskview.table(look.tasks), *warning), refresh=True)
        return look
    latest = datetime.min.replace(tzinfo=UTC)
    was_scheduled = True
    for look in looks:
        if was_scheduled and not look.is_scheduled and not look.is_final:
            click.echo(NO_SCHEDULER, err=True)
        was_scheduled = look.is_scheduled
        dated = [(task.ended_at or task.started_at or datetime.now(UTC), task) for task in look.changed]
        for at, task in sorted(dated, key=lambda one: one[0]):
            latest = max(latest, at)  # what was reported late is not shown as earlier
            click.echo(f"{out.clock(latest)} {taskview.change(task)}", err=stderr)
    click.echo(taskview.summary(look.run), err=stderr)
    return look


def _headlines(run: rows.RunRow) -> list[str]:
    lines: list[Any] = [taskview.summary(run)]
    if run.reason:
        lines.append(f"reason: {run.reason}")
    times = [("created", run.created_at), ("started", run.started_at)]
    lines.append(", ".join(f"{word} {out.clock(at)}" for word, at in times if at is not None))
    if run.ended_at is not None:
        lines.append(f"ended {out.clock(run.ended_at)}" + ("" if run.runtime_s is None else f", {run.runtime_s:.1f} s"))
    if run.conf:
        lines.append(f"conf: {out.to_plain(run.conf)}")
    return lines
