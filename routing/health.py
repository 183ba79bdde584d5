"""Whether a part of this host is alive, asked of the part itself and not of the process table.

`python -m routing.health scheduler|worker|dispatcher` is the health check of a container; `standalone` asks the same.
Ends with 0 for alive; else with 1 and one line on stderr.
"""

import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import kombu.exceptions

from routing import celery_app, settings
from routing.store import Store

PING_TIMEOUT_S = 3.0
SCHEDULER_SILENCE_S = 30.0
"""A scheduler that reported no sign of life for so long hangs, or is gone."""
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
                limit=1,
                timeout=timeout_s,
            )
    except unreachable:
        return None
    return next((answer[node] for answer in answers or () if node in answer), None)


def is_scheduling(store: Store, *, since: datetime) -> bool:
    """Whether a scheduler of this host has reported after `since`."""
    host = socket.gethostname()
    return any(row.kind == "scheduler" and row.host == host and row.seen_at >= since for row in store.processes())


def check(name: str) -> bool:
    """Whether the part `name` of this host is alive, by the settings of this environment."""
    known = settings.load()
    if name == "scheduler":
        store = Store.open(known.database.url)
        return is_scheduling(store, since=datetime.now(UTC) - timedelta(seconds=SCHEDULER_SILENCE_S))
    return is_answering(celery_app.build(known, role="scheduler"), name, timeout_s=PING_TIMEOUT_S)


def main(arguments: Sequence[str]) -> int:
    """The exit code of the health check."""
    if len(arguments) != 1 or arguments[0] not in PARTS:
        sys.stderr.write(f"usage: python -m routing.health {'|'.join(PARTS)}\n")
        return 2
    try:
        is_alive = check(arguments[0])
    except Exception as error:  # noqa: BLE001 - a health check has one way to say no
        sys.stderr.write(f"{arguments[0]}: {type(error).__name__}: {error}\n")
        return 1
    if not is_alive:
        sys.stderr.write(f"{arguments[0]} of {socket.gethostname()} does not answer\n")
    return 0 if is_alive else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
