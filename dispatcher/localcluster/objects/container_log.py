"""What a container printed: files on disk, the newest 10 MiB of it, with the time at which it came.

As the kubelet's rotation does, old output is dropped for new; memory holds only marks of time. Written by the
runtime, read by `api` for `kubectl logs`.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dispatcher.localcluster.objects import notifier, times

KEPT_BYTES = 10 * 1024 * 1024
_SEGMENTS = 2
_BLOCK = 64 * 1024
_MARKS = 10_000
_MARK_EVERY_S = 0.001


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a reader asks for."""

    follow: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: datetime | None = None
    timestamps: bool = False


class ContainerLog:
    """One container's output. Positions count all bytes ever printed, also those that are dropped by now."""

    def __init__(self, folder: Path, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._folder = folder
        self._kept = kept_bytes
        self._starts: list[int] = []
        self._file = -1
        self._mark_positions: list[int] = []
        self._mark_times: list[float] = []
        self.end = 0
        self.closed = False
        self._changed = notifier.Notifier()

    def write(self, data: bytes, at: float) -> None:
        """Appends output that came at `at` (seconds since the epoch)."""
        if self.closed or not data:
            return
        if not self._starts or self.end - self._starts[-1] >= self._kept // _SEGMENTS:
            self._open_segment()
        self._mark(at)
        view = memoryview(data)
        while view:
            # A write may be partial where the disk is nearly full.
            written = os.write(self._file, view)
            view = view[written:]
            self.end += written
        self._changed.notify()

    def close(self) -> None:
        """No more output will come."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.closed = True
        self._changed.notify()

    def remove(self) -> None:
        """Takes its files away."""
        self.close()
        for start in self._starts:
            self._path(start).unlink(missing_ok=True)

    def _open_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._starts.append(self.end)
        self._file = os.open(self._path(self.end), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        # Only when the segments after it hold all that must be kept.
        while len(self._starts) > 1 and self.end - self._starts[1] >= self._kept:
            self._path(self._starts.pop(0)).unlink(missing_ok=True)

    def _path(self, start: int) -> Path:
        return self._folder / f"log.{start}"

    def _mark(self, at: float) -> None:
        if self._mark_times and at - self._mark_times[-1] < _MARK_EVERY_S:
            return
        if len(self._mark_times) >= _MARKS:  # coarser marks for the past, so that memory stays small
            del self._mark_positions[::2], self._mark_times[::2]
        self._mark_positions.append(self.end)
        self._mark_times.append(at)

    def read(self, position: int, size: int = _BLOCK) -> bytes:
        """Up to `size` bytes at `position`; empty at the end."""
        index = bisect_right(self._starts, position) - 1
        if index < 0 or position >= self.end:
            return b""
        stop = self._starts[index + 1] if index + 1 < len(self._starts) else self.end
        try:
            with self._path(self._starts[index]).open("rb") as file:
                return os.pread(file.fileno(), min(size, stop - position), position - self._starts[index])
        except FileNotFoundError:  # the pod is deleted, or the segment was dropped just now
            return b""

    def tail(self, *, lines: int, max_bytes: int) -> bytes:
        """The last lines, at most so many bytes of them."""
        start = max(self._line_start(lines), self.end - max_bytes)
        return self._read_all(start)

    async def stream(self, query: Query) -> AsyncGenerator[bytes, None]:
        """Yields the output in pieces, and with `follow` goes on until the container has ended."""
        left = query.limit_bytes
        async for piece in self._pieces(self._first(query), query):
            if left is not None:
                piece, left = piece[:left], left - len(piece)  # noqa: PLW2901 - cut to what is left
            if piece:
                yield piece
            if left is not None and left <= 0:
                return

    async def _pieces(self, position: int, query: Query) -> AsyncGenerator[bytes, None]:
        stop = self.end
        rest = b""
        while True:
            position = max(position, self._starts[0] if self._starts else 0)
            size = _BLOCK if query.follow else min(_BLOCK, stop - position)
            data = self.read(position, size) if size > 0 else b""
            if data:
                if query.timestamps:
                    stamped, rest = self._stamp(rest + data, position - len(rest))
                    yield stamped
                else:
                    yield data
                position += len(data)
            elif query.follow and not self.closed:
                await self._changed.wait()
            else:
                break
        if rest:
            yield self._stamp_line(position - len(rest)) + rest

    def _stamp(self, data: bytes, position: int) -> tuple[bytes, bytes]:
        """Whole lines with their times, and the beginning of a line that is not whole yet."""
        *whole, rest = data.split(b"\n")
        out = bytearray()
        for line in whole:
            out += self._stamp_line(position) + line + b"\n"
            position += len(line) + 1
        return bytes(out), rest

    def _stamp_line(self, position: int) -> bytes:
        index = max(0, bisect_right(self._mark_positions, position) - 1)
        moment = datetime.fromtimestamp(self._mark_times[index] if self._mark_times else 0, UTC)
        return times.write_micro(moment).encode() + b" "

    def _first(self, query: Query) -> int:
        """Where to begin."""
        first = self._starts[0] if self._starts else 0
        kept = self.end - self._kept
        if kept > first:
            first = self._next_line(kept)
        if query.since is not None:
            index = bisect_left(self._mark_times, query.since.timestamp())
            first = max(first, self._mark_positions[index] if index < len(self._mark_positions) else self.end)
        if query.tail_lines is not None:
            first = max(first, self._line_start(query.tail_lines))
        return first

    def _next_line(self, position: int) -> int:
        while data := self.read(position):
            found = data.find(b"\n")
            if found >= 0:
                return position + found + 1
            position += len(data)
        return position

    def _line_start(self, lines: int) -> int:
        """Where the last `lines` lines begin."""
        if lines <= 0 or not self._starts:
            return self.end
        # A line feed at the very end ends the last line and begins no other.
        position, missing = self.end, lines + (self.read(self.end - 1, 1) == b"\n")
        while position > self._starts[0]:
            start = max(self._starts[0], position - _BLOCK)
            data = self._read_all(start, position)
            found = len(data)
            while found > 0:
                found = data.rfind(b"\n", 0, found)
                if found < 0:
                    break
                missing -= 1
                if missing == 0:
                    return start + found + 1
            position = start
        return self._starts[0]

    def _read_all(self, start: int, stop: int | None = None) -> bytes:
        stop = self.end if stop is None else stop
        parts = []
        while start < stop and (data := self.read(start, stop - start)):
            parts.append(data)
            start += len(data)
        return b"".join(parts)
