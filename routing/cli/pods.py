"""`podyard pods`: the pods of a deployment, as its dispatcher records them."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.live import Live
from rich.text import Text

from dispatcher.attempts.status_store import PodRow
from routing.cli import cleanup, logview, plaintext
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, app_option, common_options, pass_session
from routing.worker import task_log

_SEARCHED = 10_000


def _reason(pod: PodRow) -> str:
    code = "" if pod.exit_code in (None, 0) else f"exit code {pod.exit_code}"
    return ", ".join(word for word in (pod.reason, code) if word) or "-"


def _until(pod: PodRow) -> str | None:
    """When its wait is over, and what happens then."""
    if pod.deadline_at is None or pod.ended_at is not None:
        return None
    return f"{pod.deadline_at.astimezone():%H:%M:%S}, then {pod.at_deadline}"


def _seconds(pod: PodRow) -> float | None:
    if pod.started_at is None:
        return None
    return max(0.0, ((pod.ended_at or pod.deleted_at or datetime.now(UTC)) - pod.started_at).total_seconds())


_COLUMNS: out.Columns[PodRow] = {
    "POD": lambda pod: Text(plaintext.line(pod.name)),
    "QUEUE": lambda pod: Text(plaintext.line(pod.queue)),
    "TASK": lambda pod: Text(plaintext.line(pod.task)),
    "PHASE": lambda pod: pod.phase,
    "REASON": lambda pod: Text(plaintext.line(_reason(pod))),
    "UNTIL": _until,
    "NODE": lambda pod: pod.node,
    "STARTED": lambda pod: pod.started_at,
    "SECONDS": _seconds,
    "DELETED": lambda pod: pod.deleted_at,
}

queue_option = click.option("--queue", help="Only pods of this queue.")
live_option = click.option("--live", is_flag=True, help="Only pods that are not deleted.")


@click.group()
def pods() -> None:
    """Pods of this deployment, also those that are deleted. (`kubectl` shows those that exist.)

    The deployment is that of the settings (PODYARD_DEPLOYMENT), with --app that of a Celery application.
    """


pods.add_command(cleanup.cleanup)


@pods.command("list")
@queue_option
@live_option
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@app_option
@common_options
@out.output_option
@pass_session
def list_pods(session: Session, *, queue: str | None, live: bool, limit: int, output: str) -> None:
    """List pods, the latest change first.

    \b
    Example:  podyard pods list --live
              podyard pods list --app shop:app
    """
    found = _find(session, queue=queue, live=live)[:limit]
    out.show_list(found, _COLUMNS, output=output, empty=_empty(session) if not found else "")


@pods.command()
@queue_option
@live_option
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between looks."
)
@app_option
@common_options
@pass_session
def watch(session: Session, *, queue: str | None, live: bool, interval: float) -> None:
    """Follow pods until Ctrl-C: a live table on a terminal, else a line for each change.

    \b
    Example:  podyard pods watch --live
    """

    def look() -> list[PodRow]:
        return _find(session, queue=queue, live=live)

    if out.console().is_terminal:
        _watch_table(look, interval)
    else:
        _watch_lines(look, interval)


@pods.command()
@click.argument("pod")
@click.option("--follow", "-f", is_flag=True, help="Go on until the container ends.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many last lines.")
@click.option("--container", "-c", default="base", show_default=True, help="The container, while the pod exists.")
@app_option
@common_options
@pass_session
def logs(session: Session, *, pod: str, follow: bool, tail: int | None, container: str) -> None:
    """Print the log of POD (a name, the start of one, or an attempt's id): live, or as it was saved.

    \b
    Example:  podyard pods logs --follow stdlib-census-count-json-x7k2
    """
    row = _find_one(session, pod)
    saved = Path(row.log) if row.log else task_log.path_of(session.settings.logs, row.attempt_id)
    if saved.exists() and container == "base":
        logview.print_file(saved, tail=tail)
        return
    if row.deleted_at is not None:
        raise Failure(f"the pod {row.name} was deleted at {out.clock(row.deleted_at)}, and its log is not at {saved}")
    namespace = row.namespace
    logview.print_live(
        session.settings, namespace=namespace, pod=row.name, container=container, follow=follow, tail=tail
    )


def _empty(session: Session) -> str:
    """Why the list is empty, and where else there are pods."""
    meant = session.settings.deployment
    others = sorted({pod.deployment for pod in session.pod_store.pods(limit=_SEARCHED)} - {meant})
    if not others:
        return "no pods; tasks of Kubernetes-side queues make some"
    return (
        f"no such pods of the deployment {meant!r}; this record has pods of {', '.join(map(repr, others))}:"
        " name a Celery application by --app, or the deployment by PODYARD_DEPLOYMENT"
    )


def _find(session: Session, *, queue: str | None, live: bool) -> list[PodRow]:
    return [
        pod
        for pod in session.pod_store.pods(limit=_SEARCHED)
        if pod.deployment == session.settings.deployment
        and (queue is None or pod.queue == queue)
        and not (live and pod.deleted_at is not None)
    ]


def _find_one(session: Session, text: str) -> PodRow:
    every = _find(session, queue=None, live=False)
    found = [pod for pod in every if text in (pod.name, pod.attempt_id)] or [
        pod for pod in every if pod.name.startswith(text) or pod.attempt_id.startswith(text)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Failure(f"there is no pod {text!r}; `podyard pods list` lists them")
    names = ", ".join(pod.name for pod in found[:5])
    raise Failure(f"{len(found)} pods fit {text!r}: {names}{', …' if len(found) > 5 else ''}; give more of the name")


def _watch_table(look: Callable[[], list[PodRow]], interval_s: float) -> None:
    with Live(console=out.console(), auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(out.table(look(), _COLUMNS), refresh=True)
            time.sleep(interval_s)


def _watch_lines(look: Callable[[], list[PodRow]], interval_s: float) -> None:
    said: dict[tuple[str, int], str] = {}
    latest = datetime.min.replace(tzinfo=UTC)
    while True:
        # A list has the latest change first, lines of a terminal have it last.
        for pod in reversed(look()):
            words = f"{pod.name} {'Deleted' if pod.deleted_at else pod.phase} {_reason(pod)}".strip()
            if said.get((pod.attempt_id, pod.retries)) != words:
                said[pod.attempt_id, pod.retries] = words
                latest = max(latest, pod.updated_at)  # what was written late is not shown as earlier
                click.echo(f"{out.clock(latest)} {plaintext.line(words)}")
        time.sleep(interval_s)
