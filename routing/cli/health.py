"""`podyard health`: what the processes of this machine say of themselves, read from their files alone."""

from dataclasses import dataclass
from datetime import UTC, datetime

import click

from dispatcher.worker import process_health
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, common_options, pass_session


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One part of one process; `part` is `process` for the process itself."""

    process: str
    pid: int
    part: str
    state: str
    """ok, away or gone."""
    since: datetime
    why: str | None


@click.command()
@common_options
@out.output_option
@pass_session
def health(session: Session, output: str) -> None:
    """Show for each process of this machine whether it is alive, and which parts that it needs are away since when.

    Asks neither broker nor database, so it works while they are away. Ends with 1 where something is wrong.

    \b
    Example:  podyard health --output json
    """
    folder = session.settings.health.folder
    now = datetime.now(UTC)
    found = [finding for reading in process_health.read(folder) for finding in _findings(reading, now)]
    columns: out.Columns[Finding] = {
        "PROCESS": lambda one: one.process,
        "PID": lambda one: one.pid,
        "PART": lambda one: one.part,
        "STATE": lambda one: one.state,
        "SINCE": lambda one: one.since,
        "WHY": lambda one: one.why or "-",
    }
    empty = f"no process has written into {folder}: none runs on this machine, or it has another health.folder"
    out.show_list(found, columns, output=output, empty=empty)
    wrong = [f"{one.process}: the {one.part} is {one.state}" for one in found if one.state != "ok"]
    if wrong:
        raise Failure(
            f"{'; '.join(wrong)}; bring back what is away, `podyard config check` says what cannot be reached"
        )


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
