"""Printing logs: a saved file, a file that still grows, or the live log of a container, all made harmless."""

import asyncio
import codecs
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from dispatcher import errors
from routing.cli import plaintext
from routing.cli.failure import Failure
from routing.config.settings import Settings

_PIECE_BYTES = 65_536
# A line without an end, such as a progress bar, is printed before it has one.
_LONGEST_LINE = 65_536
_LOOK_S = 0.3


class Printer:
    """Prints bytes as they come, whole lines at a time: an escape sequence may be cut between two pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, piece: bytes) -> None:
        """Prints the lines that are complete now."""
        text = self._rest + self._decoder.decode(piece)
        whole, newline, self._rest = text.rpartition("\n")
        if not newline and len(self._rest) > _LONGEST_LINE:
            whole, self._rest = self._rest, ""
        if whole or newline:
            click.echo(plaintext.lines(whole) + newline, nl=False)

    def close(self) -> None:
        """Prints what came without a line end."""
        if self._rest:
            click.echo(plaintext.lines(self._rest + self._decoder.decode(b"", final=True)))
        self._rest = ""


def print_file(path: Path, *, tail: int | None = None) -> None:
    """Prints a saved log, or its last lines."""
    printer = Printer()
    with path.open("rb") as file:
        if tail is not None:
            file.seek(_start_of_tail(path, tail))
        while piece := file.read(_PIECE_BYTES):
            printer.feed(piece)
    printer.close()


def follow_file(path: Path, *, has_ended: Callable[[], bool]) -> None:
    """Prints a log as it grows, until its attempt has ended; the file may not exist yet."""
    printer, at = Printer(), 0
    while True:
        ended = has_ended()  # asked before reading, so that the last words are not missed
        for piece in _read_from(path, at):
            at += len(piece)
            printer.feed(piece)
        if ended:
            printer.close()
            return
        time.sleep(_LOOK_S)


def print_live(
    settings: Settings,
    *,
    namespace: str,
    pod: str,
    container: str = "base",
    follow: bool = False,
    tail: int | None = None,
) -> None:
    """Prints the log of a container as the API server gives it. Raises Failure where there is no pod or no log yet."""
    from dispatcher.kubeapi import client, server_access

    access = server_access.connect_as(settings.kubernetes)
    printer = Printer()

    async def read() -> None:
        async with client.KubeClient(access) as api:
            if not follow:
                printer.feed(await api.read_log(namespace, pod, container=container, tail_lines=tail))
                return
            async for piece in api.follow_log(namespace, pod, container=container):
                printer.feed(piece)

    try:
        asyncio.run(read())
    except errors.ApiError as error:
        raise Failure(_refusal(error, namespace, pod)) from error
    finally:
        printer.close()


def _refusal(error: errors.ApiError, namespace: str, pod: str) -> str:
    if error.status == 404:
        return f"there is no pod {pod} in namespace {namespace} any more, and its log was not saved"
    if error.status == 400:
        return f"the pod {pod} has no log yet: {error.message}"
    return f"the log of pod {pod} cannot be read: {error}"


def _read_from(path: Path, at: int) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(at)
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _start_of_tail(path: Path, count: int) -> int:
    """Where the last `count` lines begin; read backwards, for a log may be large."""
    at = size = path.stat().st_size
    found = b""
    with path.open("rb") as file:
        while at > 0 and found.rstrip(b"\n").count(b"\n") < count:
            at = max(0, at - _PIECE_BYTES)
            file.seek(at)
            found = file.read(size - at)
    lines = found.splitlines(keepends=True)
    return size - sum(map(len, lines[-count:])) if count else size
