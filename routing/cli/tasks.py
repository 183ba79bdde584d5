"""`podyard tasks`: the tasks of a run, what they print, and why one waits or failed."""

import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from dispatcher.attempts.status_store import UNLAUNCHED_PHASES, PodRow
from routing import commands, router
from routing.cli import advice, launches, logview, lookup, plaintext, taskview
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, app_option, common_options, pass_session
from routing.store import rows, states
from routing.worker import task_log

_ENDED = states.final(states.ATTEMPT_MOVES)
_ERROR_LINES = 15
_OURS = ("routing.errors.", "dispatcher.errors.")


@click.group()
def tasks() -> None:
    """Tasks of a run. RUN is a run's id or a part of it; without it the latest run is meant.

    ID is the id of an attempt, or of a Celery task of your own that ran in a pod.
    """


@tasks.command("list")
@click.argument("run", required=False)
@lookup.dag_option
@click.option("--state", help="Only tasks in this state, such as failed.")
@app_option
@common_options
@out.output_option
@pass_session
def list_tasks(session: Session, *, run: str | None, dag: str | None, state: str | None, output: str) -> None:
    """List the tasks of a run: state, queue, side, host or pod, result or reason.

    \b
    Example:  podyard tasks list
              podyard tasks list --state failed --output json
    """
    if session.app:
        raise Failure(
            f"a Celery application has no runs of tasks; {commands.shown('pods', 'list', '--app', session.app)} lists"
            " those that ran in pods, and Flower (`podyard flower`) the others"
        )
    found = lookup.find_run(session.store, run, dag=dag)
    listed = [
        task for task in session.store.tasks(found.run_id, dag_id=found.dag_id) if state is None or task.state == state
    ]
    out.show_list(listed, taskview.COLUMNS, output=output, empty=f"run {found.run_id} has no such task")


@tasks.command()
@click.argument("words", nargs=-1, metavar="[RUN] TASK | ID")
@lookup.dag_option
@click.option("--attempt", "number", type=click.IntRange(min=1), help="The attempt's number; else the latest.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the attempt ends.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many last lines.")
@app_option
@common_options
@pass_session
def logs(
    session: Session, *, words: tuple[str, ...], dag: str | None, number: int | None, follow: bool, tail: int | None
) -> None:
    """Print what a task printed: the saved log, or the log of its pod while it runs.

    \b
    Example:  podyard tasks logs count_json
              podyard tasks logs --attempt 1 --tail 20 manual__2026-01-01 count_json
              podyard tasks logs --app shop:app 5f0c1a52
    """
    if session.application and len(words) == 1:
        saved = task_log.path_of(session.settings.logs, words[0])
        if saved.exists():  # then no record of pods is needed
            logview.print_file(saved, tail=tail)
            return
    if found := _launches(session, words):
        _print_log_of(session, found[-1], follow=follow, tail=tail)
        return
    target = _target(session, words, dag=dag, number=number)
    attempt = target.attempt
    if attempt is None:
        raise Failure(
            f"task {target.task.task_id!r} has not been sent yet ({target.task.state}), so it has no log;"
            f" {commands.shown('tasks', 'explain', target.run.run_id, target.task.task_id)} says why"
        )
    path = task_log.path_of(session.settings.logs, attempt.id)
    is_open = attempt.state not in _ENDED
    # A log that was saved is whole; that of a live pod may be rotated away, and is gone with it.
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
@click.argument("words", nargs=-1, metavar="[RUN] TASK | ID")
@lookup.dag_option
@app_option
@common_options
@out.output_option
@pass_session
def explain(session: Session, words: tuple[str, ...], dag: str | None, output: str) -> None:
    """Say why a task waits, runs or failed, attempt by attempt, and what to do next.

    \b
    Example:  podyard tasks explain count_json
              podyard tasks explain manual__2026-01-01 count_json --output json
              podyard tasks explain --app shop:app 5f0c1a52
    """
    if found := _launches(session, words):
        _explain_launches(session, found, output=output)
        return
    target = _target(session, words, dag=dag)
    run, task_id = target.run, target.task.task_id
    facts = session.store.explain(run.run_id, task_id, dag_id=run.dag_id, at=datetime.now(UTC))
    steps = advice.next_steps(facts)
    if output != "table":
        remedies = [facts.diagnosis["what_to_do"]] if facts.diagnosis else []
        out.show_data({**out.to_plain(facts), "next": [*remedies, *steps]}, output=output)
        return
    for line in (*facts.lines, *_details(session, facts), *(f"next: {step}" for step in steps)):
        click.echo(_harmless(line))


def _launches(session: Session, words: Sequence[str]) -> list[PodRow]:
    """The launches of a plain Celery task; none where a task of a DAG is meant. Raises Failure where none is known."""
    if session.application is None:
        if len(words) != 1 or lookup.find_attempt(session.store, words[0]):
            return []
        return launches.find(session, words[0])
    if len(words) != 1:
        raise click.UsageError("with --app name a task by its id")
    try:
        found = launches.find(session, words[0])
    except Failure as error:
        raise Failure(f"{error.format_message()}{_outcome(session, words[0])}") from error
    if not found:
        listing = commands.shown("pods", "list", "--app", session.app or "")
        raise Failure(
            f"the record of pods has no task {words[0]!r}: it was not taken by a dispatcher, or by one without this"
            f" database ({listing} lists what it has){_outcome(session, words[0])}"
        )
    return found


def _target(session: Session, words: Sequence[str], *, dag: str | None, number: int | None = None) -> lookup.Target:
    try:
        return lookup.find_target(session.store, words, dag=dag, number=number)
    except Failure as error:
        if len(words) != 1 or not lookup.may_be_id(words[0]):
            raise
        raise Failure(
            f"this record has no attempt and no pod of a task with the id {words[0]!r};"
            " if it is a task of a Celery application with a record of its own, name that with --app"
        ) from error


def _outcome(session: Session, task_id: str) -> str:
    """What the result backend of the application knows, as the end of a sentence."""
    from celery.backends.base import DisabledBackend

    assert session.application is not None
    app = session.application.app
    if isinstance(app.backend, DisabledBackend):
        return "; the application has no result backend either"
    try:
        found = app.AsyncResult(task_id)
        state, result = found.state, found.result
    except Exception as error:  # a backend may raise anything, and more than this line is not lost
        return f"; its result backend does not answer: {type(error).__name__}: {error}"
    if state == "PENDING":
        return "; its result backend knows no such task"
    detail = f" ({type(result).__name__}: {result})" if isinstance(result, BaseException) else ""
    return f"; its result backend says {state}{detail}"


def _explain_launches(session: Session, found: Sequence[PodRow], *, output: str) -> None:
    if output != "table":
        out.show_data(launches.facts(session, found), output=output)
        return
    for line in launches.lines(session, found):
        click.echo(_harmless(line))


def _print_log_of(session: Session, row: PodRow, *, follow: bool, tail: int | None) -> None:
    """The log of a launch: as it was saved, or live."""
    path = launches.saved_log(session, row)
    if path.exists():
        logview.print_file(path, tail=tail)
    elif row.phase in UNLAUNCHED_PHASES:
        raise Failure(f"it has no pod ({row.phase}: {row.reason}), so it has no log; `podyard tasks explain` says why")
    elif row.deleted_at is not None:
        raise Failure(
            f"the pod {row.name} was deleted at {out.clock(row.deleted_at)}, and its log is not at {path}: the"
            " dispatcher saves logs where log_folder (logs.folder) is set, on its own machine"
        )
    else:
        is_open = not launches.has_ended(row)
        logview.print_live(
            session.settings, namespace=row.namespace, pod=row.name, follow=follow and is_open, tail=tail
        )


def _details(session: Session, facts: rows.Explanation) -> Iterator[str]:
    """The times of each attempt, where its log is, and the end of the last error."""
    for attempt in facts.attempts:
        names = ("created_at", "sent_at", "started_at", "ended_at")
        times = {name.removesuffix("_at"): getattr(attempt, name) for name in names}
        shown = ", ".join(f"{word} {out.clock(at)}" for word, at in times.items() if at is not None)
        yield f"attempt {attempt.number}: {shown}" + (f", sent {attempt.sends} times" if attempt.sends > 1 else "")
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
