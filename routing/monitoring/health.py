"""Whether a process of this host is alive, and which of the parts that it needs are away.

`python -m routing.monitoring.health scheduler|worker|dispatcher` is the health check of a container: it reads what the
process wrote of itself (`dispatcher.worker.process_health`). Ends with 0 for alive, and says which parts are away; that
is no reason to restart a process which waits for them. Else it ends with 1 and one line on stderr. It asks nothing of
broker or database, so it works while they are away.
"""

import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import kombu.exceptions

from dispatcher.worker import process_health
from routing.config import settings
from routing.store import Store

PARTS = ("scheduler", "worker", "dispatcher")


def is_answering(app: Any, name: str, *, timeout_s: float) -> bool:
    """Whether the Celery worker `name@<this host>` answers a ping; False where the broker cannot be reached."""
    return ask(app, "ping", name, timeout_s=timeout_s) is not None


def ask(
    app: Any, command: str, name: str, *, timeout_s: float, arguments: Mapping[str, Any] | None = None
) -> Mapping[str, Any] | None:
    """What the Celery worker `name@<this host>` answers to a remote command; None where nothing came in time.

    A connection of its own for each question: one from Celery's pool may be of a broker that was restarted since.
    """
    connection = app.connection_for_write()
    # Each transport has errors of its own beside kombu's.
    unreachable = (kombu.exceptions.OperationalError, *connection.connection_errors, *connection.channel_errors)
    node = f"{name}@{socket.gethostname()}"
    try:
        with connection:
            answers = app.control.broadcast(
                command,
                arguments=dict(arguments or {}),
                destination=[node],
                connection=connection,
                reply=True,
                # Else a broadcast waits out its time for further answers, though one node is asked.
                limit=1,
                timeout=timeout_s,
            )
    except unreachable:
        return None
    return next((answer[node] for answer in answers or () if node in answer), None)


def is_scheduling(store: Store, *, since: datetime) -> bool:
    """Whether a scheduler of this host that still runs has reported after `since`.

    What one said that was killed meanwhile is in the record until its successor speaks.
    """
    return any(
        row.kind == "scheduler"
        and row.host == socket.gethostname()
        and row.seen_at >= since
        and process_health.is_running(row.pid)
        for row in store.processes()
    )


def readings(known: settings.Settings) -> list[process_health.Reading]:
    """What the processes of this installation said of themselves on this host, the newest first."""
    here = [one for one in process_health.read(known.health.folder) if one.host == socket.gethostname()]
    found = process_health.current(here, now=datetime.now(UTC))
    return sorted(found, key=lambda one: one.written_at, reverse=True)


def check(kind: str) -> tuple[str | None, tuple[process_health.PartHealth, ...]]:
    """Why no process of this kind is alive here (None: one is), and the parts that it lacks."""
    known = settings.load()
    trouble = f"no {kind} of {socket.gethostname()} has written into {known.health.folder}"
    for reading in readings(known):
        if reading.kind != kind:
            continue
        trouble_of_it = reading.trouble(now=datetime.now(UTC))
        if trouble_of_it is None:
            return None, reading.away
        trouble = f"{kind} of {reading.host}: {trouble_of_it}"
    return trouble, ()


def main(arguments: Sequence[str]) -> int:
    """The exit code of the health check."""
    if len(arguments) != 1 or arguments[0] not in PARTS:
        sys.stderr.write(f"usage: python -m routing.monitoring.health {'|'.join(PARTS)}\n")
        return 2
    kind = arguments[0]
    try:
        trouble, away = check(kind)
    except Exception as error:  # a health check has one way to say no
        sys.stderr.write(f"{kind}: {type(error).__name__}: {error}\n")
        return 1
    if trouble is not None:
        sys.stderr.write(f"{trouble}\n")
        return 1
    for part in away:
        sys.stdout.write(f"{kind}: alive; the {part.name} is away since {part.since:%H:%M:%S}Z: {part.why}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
