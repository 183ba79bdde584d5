"""A log keeps its newest part, whatever is printed, and finds lines in it."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.localcluster.objects import container_log


def _read(log: container_log.ContainerLog, query: container_log.Query | None = None) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in log.stream(query or container_log.Query())])

    return asyncio.run(collect())


def _log(folder: Path, *pieces: bytes, kept: int = container_log.KEPT_BYTES) -> container_log.ContainerLog:
    log = container_log.ContainerLog(folder, kept_bytes=kept)
    for second, piece in enumerate(pieces):
        log.write(piece, float(second))
    log.close()
    return log


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(0, 12))
def test_the_last_lines_are_those_of_the_text(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], lines: int
) -> None:
    """`tailLines` counts as `splitlines` does, wherever the pieces were cut."""
    log = _log(tmp_path_factory.mktemp("log"), *pieces)
    text = b"".join(pieces)
    whole = text.split(b"\n")
    kept = [line + b"\n" for line in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
    assert _read(log) == text
    assert _read(log, container_log.Query(tail_lines=lines)) == b"".join(kept[len(kept) - min(lines, len(kept)) :])


def test_old_output_is_dropped_at_a_line_s_end(tmp_path: Path) -> None:
    """At most the kept bytes are read; the folder holds little more."""
    log = _log(tmp_path, *[b"%06d\n" % number for number in range(10_000)], kept=7_000)
    text = _read(log)
    assert text == b"".join(b"%06d\n" % number for number in range(9_001, 10_000))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 12_000


def test_times_stand_before_whole_lines(tmp_path: Path) -> None:
    """A line that came in two pieces has one time, its first."""
    log = _log(tmp_path, b"one\ntw", b"o\nthree")
    assert _read(log, container_log.Query(timestamps=True)) == (
        b"1970-01-01T00:00:00.000000Z one\n1970-01-01T00:00:00.000000Z two\n1970-01-01T00:00:01.000000Z three"
    )


def test_memory_for_times_is_bounded(tmp_path: Path) -> None:
    """A container that prints for ever does not fill the memory with marks."""
    log = container_log.ContainerLog(tmp_path, kept_bytes=1000)
    for number in range(30_000):
        log.write(b"x\n", float(number))
    assert len(log._mark_times) <= 10_000
    log.close()
