"""A task log: what one attempt's body prints and logs on a worker, in a file of its own.

The file is made when something is written, so that a silent task costs no file; it is capped, so that a chatty one
costs no disk; and a line is in it as soon as it is printed, so that a killed process leaves its words.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Place(Protocol):
    """Where logs go and how large each may get: `settings.logs` is one."""

    @property
    def folder(self) -> Path:
        """One file per attempt, named after its id."""

    @property
    def max_bytes(self) -> int:
        """Cap of one file."""


def path_of(place: Place, attempt_id: str) -> Path:
    """The file of an attempt. Never outside of the folder, whatever the id is."""
    return place.folder / f"{attempt_id.replace('/', '_').lstrip('.') or '_'}.log"


class CappedFile(io.RawIOBase):
    """A file that appears with its first byte, keeps its head up to a size and says how much it dropped."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__()
        self._path, self._left = path, max_bytes
        self._cap = max_bytes
        self._fd = -1
        self._dropped = 0

    def writable(self) -> bool:
        """It only takes."""
        return True

    def fileno(self) -> int:
        """The file's own number, for programs that write to it directly (beyond the cap, too)."""
        self._open()
        if self._fd < 0:
            raise OSError(f"the log {self._path} cannot be written")
        return self._fd

    def write(self, data: Any) -> int:
        """Takes everything; what does not fit is counted and dropped. Never raises: a full disk fails no task."""
        size = len(data)
        if self._dropped:
            self._dropped += size
            return size
        if self._fd == -1:
            self._open()
        kept = bytes(data[: self._left])
        self._left -= len(kept)
        self._append(kept)
        if len(kept) < size:
            self._dropped = size - len(kept)
            self._append(f"\n[podyard: this log is capped at {self._cap:,} bytes; what follows is dropped]\n".encode())
        return size

    def close(self) -> None:
        """Says how much was dropped, and closes the file if there is one."""
        if not self.closed and self._fd >= 0:
            if self._dropped:
                self._append(f"[podyard: {self._dropped:,} bytes were dropped]\n".encode())
            os.close(self._fd)
        super().close()

    def _open(self) -> None:
        if self._fd != -1:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # O_APPEND: a program that has the descriptor writes behind us and not over
            # us. O_CLOEXEC: only such as are given it.
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            self._fd = -2
            _warn(f"podyard: the task log {self._path} cannot be written: {error}")

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            return
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            os.close(self._fd)
            # Not tried again with each line: a full disk costs one warning.
            self._fd = -2
            _warn(f"podyard: the task log {self._path} cannot be written: {error}")


@contextmanager
def captured(place: Place, attempt_id: str) -> Iterator[io.TextIOBase]:
    """Inside, standard output, standard error and logging of this process go to the attempt's log."""
    raw = CappedFile(path_of(place, attempt_id), place.max_bytes)
    # By lines, so that a process that is killed has left all that it said; any
    # text, for a body must not fail by printing.
    stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[type-var]
    root = logging.getLogger()
    before = sys.stdout, sys.stderr, root.handlers
    _prepare(root)
    _handler.stream = stream
    sys.stdout = sys.stderr = stream
    # Celery's own handlers would write the body's lines into the worker's log.
    root.handlers = [_handler]
    try:
        yield stream
    finally:
        sys.stdout, sys.stderr, root.handlers = before
        _handler.stream = sys.__stderr__
        stream.close()


def plain() -> None:
    """For a pod, whose standard output is the log: lines appear at once, and logging from INFO on goes there, too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(FORMAT))
        root.addHandler(handler)
    _prepare(root)


_handler: logging.StreamHandler[Any] = logging.StreamHandler()
_handler.setFormatter(logging.Formatter(FORMAT))


def _prepare(root: logging.Logger) -> None:
    """Bodies log from INFO on. Handlers that were there before keep the level that the root had."""
    if root.level <= logging.INFO:
        return
    for handler in root.handlers:
        handler.setLevel(max(handler.level, root.level))
    root.setLevel(logging.INFO)


def _warn(text: str) -> None:
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"{text}\n")
