"""Log pages: the log of one attempt in pieces that fit into a message, for people who have no rights on the cluster.

Of a pod that is there its newest lines, of one that waits what it waits for, of one that is gone the log as saved.
`dispatcher.worker.log_command` answers with them. Bounded, whatever the size of the log.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from dispatcher import errors
from dispatcher.attempts.attempt import Attempt
from dispatcher.finishing import cleanup
from dispatcher.kubeapi import client
from dispatcher.protocol import outcome

PAGE_BYTES = 262_144
"""Of a saved log in one message."""
LIVE_LINES = (5_000, 500, 50)
"""So many of the newest lines of a log that still grows; fewer where they do not fit into LIVE_BYTES."""
LIVE_BYTES = 524_288


@dataclass(frozen=True, kw_only=True)
class Page:
    """A piece of a log."""

    source: str
    """Where it comes from, for people."""
    text: str
    next_offset: int | None = None
    """Where the next piece begins, in bytes; None behind the last."""


async def of_attempt(kube: client.KubeClient, attempt: Attempt) -> Page:
    """The newest lines of a pod's log, or why there is none yet. Raises ApiError and ApiUnavailable."""
    if attempt.pod.uid is None:
        return Page(source="dispatcher", text=_waits(attempt))
    source = f"pod {attempt.namespace}/{attempt.pod.name}"
    try:
        log = await _newest(kube, attempt)
    except errors.ApiError as error:
        # 400: its container has not started. 404: its pod is gone, and its end is about to be noticed.
        if error.status not in (400, 404):
            raise
        return Page(source=source, text=_waits(attempt))
    # A large outcome travels as a frame within the log: nothing for people, and it may hold a result.
    return Page(source=source, text=outcome.strip_frames(log).decode(errors="replace"))


async def of_file(folder: Path | None, attempt_id: str, *, offset: int) -> Page | None:
    """A piece of a log that was saved; None where none was."""
    if folder is None:
        return None
    path = cleanup.log_path(folder, attempt_id)
    return await asyncio.to_thread(_read, path, max(0, offset))


async def _newest(kube: client.KubeClient, attempt: Attempt) -> bytes:
    log = b""
    for lines in LIVE_LINES:
        log = await kube.read_log(
            attempt.namespace,
            attempt.pod.name,
            container=attempt.options.base,
            tail_lines=lines,
            limit_bytes=LIVE_BYTES,
        )
        if len(log) < LIVE_BYTES:
            break  # the API server cuts the end: then fewer lines are wanted
    return log


def _waits(attempt: Attempt) -> str:
    """In one line what an attempt waits for."""
    wait, blocked = attempt.wait, attempt.blocked
    reason, detail = (blocked.reason, blocked.text) if blocked is not None else (None, None)
    if wait is not None:
        reason, detail = wait.reason, wait.detail
    why = ": ".join(word for word in (reason, detail) if word)
    return f"waits{': ' if why else ' to be launched'}{' '.join(why.split())}\n"


def _read(path: Path, offset: int) -> Page | None:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            piece = file.read(PAGE_BYTES)
    except FileNotFoundError:
        return None
    end = offset + len(piece)
    if end < size:  # whole lines, so that no character is cut in two
        whole = piece.rfind(b"\n") + 1
        piece, end = (piece[:whole], offset + whole) if whole else (piece, end)
    return Page(
        source=f"log saved by the dispatcher, {path.name}",
        text=piece.decode(errors="replace"),
        next_offset=end if end < size else None,
    )
