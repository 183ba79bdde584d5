"""`podyard tasks`: the tasks of a run, what they print, and why one waits or failed."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from routing import router
from routing.cli import advice, logview, lookup, plaintext, taskview
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, common_options, pass_session
from routing.store import rows, states
from routing.worker import task_log

_ENDED = states.final(states.ATTEMPT_MOVES)
_ERROR_LINES = 15
_OURS = ("routing.errors.", "dispatcher.errors.")


@click.group()
def tasks() -> None:
    """Tasks of a run. RUN is a run's id or a part of it; without it the latest run is meant."""


@tasks.command("list")
@click.argument("run", required=False)
@lookup.dag_option
@click.option("--state", help="Only tasks in this state, such as failed.")
@common_options
@out.output_option
@pass_session
def list_tasks(session: Session, *, run: str | None, dag: str | None, state: str | None, output: str) -> None:
    """List the tasks of a run: state, queue, side, host or pod, result or reason.

    \b
    Example:  podyard tasks list
              podyard tasks list --state failed --output json
    """
    found = lookup.find_run(session.store, run, dag=dag)
    listed = [
        task for task in session.store.tasks(found.run_id, dag_id=found.dag_id) if state is None or task.state == state
    ]
    out.show_list(listed, taskview.COLUMNS, output=output, empty=f"run {found.run_id} has no such task")


@tasks.command()
@click.argument("words", nargs=-1, metavar="[RUN] TASK | ATTEMPT")
@lookup.dag_option
@click.option("--attempt", "number", type=click.IntRange(min=1), help="The attempt's number; else the latest.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the attempt ends.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many last lines.")
@common_options
@pass_session
def logs(
    session: Session, *, words: tuple[str, ...], dag: str | None, number: int | None, follow: bool, tail: int | None
) -> None:
    """Print what a task printed: the saved log, or the log of its pod while it runs.

    \b
    Example:  podyard tasks logs count_json
              podyard tasks logs --attempt 1 --tail 20 manual__2026-01-01 count_json
    """
    target = lookup.find_target(session.store, words, dag=dag, number=number)
    attempt = target.attempt
    if attempt is None:
        raise Failure(
            f"task {target.task.task_id!r} has not been sent yet ({target.task.state}), so it has no log;"
            f" `podyard tasks explain {target.run.run_id} {target.task.task_id}` says why"
        )
    path = task_log.path_of(session.settings.logs, attempt.id)
    is_open = attempt.state not in _ENDED
    if attempt.side == "kubernetes" and not path.exists() and attempt.pod:
        namespace = _namespace(session, attempt)
        logview.print_live(session.settings, namespace=namespace, pod=attempt.pod, follow=follow and is_open, tail=tail)
    elif follow and is_open:
        logview.follow_file(path, has_ended=lambda: _has_ended(session, attempt.id))
    elif path.exists():
        logview.print_file(path, tail=tail)
    else:
        _say_no_log(attempt, path)


@tasks.command()
@click.argument("words", nargs=-1, metavar="[RUN] TASK | ATTEMPT")
@lookup.dag_option
@common_options
@out.output_option
@pass_session
def explain(session: Session, words: tuple[str, ...], dag: str | None, output: str) -> None:
    """Say why a task waits, runs or failed, attempt by attempt, and what to do next.

    \b
    Example:  podyard tasks explain count_json
              podyard tasks explain manual__2026-01-01 count_json --output json
    """
    target = lookup.find_target(session.store, words, dag=dag)
    run, task_id = target.run, target.task.task_id
    facts = session.store.explain(run.run_id, task_id, dag_id=run.dag_id, at=datetime.now(UTC))
    steps = advice.next_steps(facts)
    if output != "table":
        out.show_data({**out.to_plain(facts), "next": steps}, output=output)
        return
    for line in (*facts.lines, *_details(session, facts), *(f"next: {step}" for step in steps)):
        click.echo(_harmless(line))


def _details(session: Session, facts: rows.Explanation) -> Iterator[str]:
    """The times of each attempt, where its log is, and the end of the last error."""
    for attempt in facts.attempts:
        names = ("created_at", "sent_at", "started_at", "ended_at")
        times = {name.removesuffix("_at"): getattr(attempt, name) for name in names}
        told = ", ".join(f"{word} {out.clock(at)}" for word, at in times.items() if at is not None)
        yield f"attempt {attempt.number}: {told}" + (f", sent {attempt.sends} times" if attempt.sends > 1 else "")
        yield (
            f"  routed by the rule {attempt.rule}" if attempt.rule != router.NO_RULE else "  routed by no rule: Celery"
        )
        path = task_log.path_of(session.settings.logs, attempt.id)
        if path.exists():
            yield f"  log {path}"
    if facts.task.state in ("failed", "up_for_retry") and facts.attempts:
        yield from _error(facts.attempts[-1])


def _error(attempt: rows.AttemptRow) -> Iterator[str]:
    """The end of a traceback of the author's code. Where we made the error ourselves, its text is the reason above."""
    lines = (attempt.error or "").rstrip().splitlines()
    if lines and not lines[-1].startswith(_OURS):
        yield "the error of the last attempt:"
        yield from (f"  {line}" for line in lines[-_ERROR_LINES:])


def _harmless(line: str) -> str:
    """The line without control characters, its indentation kept."""
    return plaintext.lines(line).replace("\n", " ").rstrip()


def _has_ended(session: Session, attempt_id: str) -> bool:
    attempt = session.store.attempt(attempt_id)
    return attempt is None or attempt.state in _ENDED


def _namespace(session: Session, attempt: rows.AttemptRow) -> str:
    """Where the dispatcher recorded the pod, else where its queue's rule puts it."""
    pods = session.pod_store.pods(attempt_ids=[attempt.id], limit=1)
    return pods[0].namespace if pods else session.settings.router.route(attempt.queue).profile.namespace


def _say_no_log(attempt: rows.AttemptRow, path: Path) -> None:
    """A task that printed nothing leaves no file; that is no failure, if the file would be here."""
    if attempt.started_at is None:
        not_started = f"attempt {attempt.number} has not started ({attempt.state}), so it has no log"
        raise Failure(f"{not_started}; `podyard tasks explain` says why")
    if attempt.host != socket.gethostname():
        raise Failure(
            f"there is no log at {path}: it printed nothing, or its log is on {attempt.host or 'another host'}"
        )
    click.echo(f"attempt {attempt.number} printed nothing", err=True)
