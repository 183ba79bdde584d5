"""`podyard health`: what the processes of this machine say of themselves, read from their files alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from dispatcher.worker import process_health
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, app_option, common_options, pass_session
from routing.config import settings as settings_module

KINDS = ("scheduler", "worker", "dispatcher")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One part of one process; `part` is `process` for the process itself."""

    process: str
    pid: int | None
    """None for a process that is missing."""
    part: str
    state: str
    """ok, away, gone or missing."""
    since: datetime | None
    why: str | None


@click.command()
@click.option(
    "--expect",
    "expected",
    metavar="PROCESSES",
    help="What has to be here, separated by commas: scheduler, worker, dispatcher, or a node's name.",
)
@app_option
@common_options
@out.output_option
@pass_session
def health(session: Session, expected: str | None, output: str) -> None:
    """Show for each process of this machine whether it is alive, and which parts that it needs are away since when.

    Asks neither broker nor database, so it works while they are away. A process is expected that was started here and
    was not asked to stop: one that was killed, or ended by itself, is `gone` until another of its name runs. All parts
    of `podyard standalone` are expected while it runs, and what --expect names: what of that is not here is `missing`.

    \b
    Exit codes:
      0  at least one process is here, none is gone or missing, and each has all that it needs
      1  a process is gone or missing, or none is here at all, or a part is away; the last line says which
      2  wrong usage

    \b
    Example:  podyard health --output json
              podyard health --expect scheduler,worker,dispatcher
              podyard health --app shop:app --expect dispatcher
    """
    folder = session.health_folder
    now = datetime.now(UTC)
    readings = process_health.current(process_health.read(folder), now=now)
    wanted = _names(expected) or _of_standalone(session)
    found = [
        *(finding for reading in readings for finding in _findings(reading, now)),
        *_missing(wanted, readings),
    ]
    columns: out.Columns[Finding] = {
        "PROCESS": lambda one: one.process,
        "PID": lambda one: one.pid,
        "PART": lambda one: one.part,
        "STATE": lambda one: one.state,
        "SINCE": lambda one: one.since,
        "WHY": lambda one: one.why or "-",
    }
    if found or output != "table":
        out.show_list(found, columns, output=output, empty="")
    if not found:
        raise Failure(
            f"no process has written into {folder}: none runs on this machine, or it has another health.folder;"
            " start one, or name the folder in PODYARD_HEALTH__FOLDER"
        )
    wrong = [one for one in found if one.state != "ok"]
    if wrong:
        listed = "; ".join(f"{one.process}: the {one.part} is {one.state}" for one in wrong)
        raise Failure(f"{listed}; {'; '.join(_remedies({one.state for one in wrong}, folder))}")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in (text or "").split(",")) if name)


def _of_standalone(session: Session) -> tuple[str, ...]:
    """A standalone keeps all kinds running, and leaves its settings in the home folder for as long as it runs."""
    return KINDS if session.settings.home / settings_module.EMBEDDED_NAME in session.settings.files else ()


def _missing(wanted: Iterable[str], readings: Iterable[process_health.Reading]) -> Iterator[Finding]:
    there = {name for one in readings for name in (one.kind, one.name, one.name.partition("@")[0])}
    for name in dict.fromkeys(wanted):
        if name not in there:
            why = "none was started here, or it was stopped in order"
            yield Finding(process=name, pid=None, part="process", state="missing", since=None, why=why)


def _remedies(states: Iterable[str], folder: object) -> Iterator[str]:
    if "missing" in states:
        yield "start what is missing"
    if "gone" in states:
        yield f"start again what is gone (its log says why it ended), or delete its file in {folder} if it is not to"
    if "away" in states:
        yield "bring back what is away, `podyard config check` says what cannot be reached"


def _findings(reading: process_health.Reading, now: datetime) -> list[Finding]:
    trouble = reading.trouble(now=now)
    alive = Finding(
        process=reading.name,
        pid=reading.pid,
        part="process",
        state="gone" if trouble else "ok",
        since=reading.turned_at or reading.written_at,
        why=trouble,
    )
    if trouble:
        return [alive]
    return [
        alive,
        *(
            Finding(
                process=reading.name,
                pid=reading.pid,
                part=part.name,
                state="ok" if part.is_ok else "away",
                since=part.since,
                why=part.why,
            )
            for part in reading.parts
        ),
    ]
