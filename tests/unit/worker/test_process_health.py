"""What a process says of itself, and what a health check makes of it."""

import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dispatcher.worker import process_health
from tests import parts

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def reading(
    *, away: bool = False, written_s: float = 1, turned_s: float | None = 1, since_s: float = 600
) -> process_health.Reading:
    """A process that has run for ten minutes, so many seconds after it wrote and its loop turned."""
    part = process_health.PartHealth(
        name="broker", is_ok=not away, since=NOW - timedelta(seconds=since_s), why="gone" if away else None
    )
    return process_health.Reading(
        kind="worker",
        name="worker@here",
        host=socket.gethostname(),
        pid=os.getpid(),
        written_at=NOW - timedelta(seconds=written_s),
        turned_at=None if turned_s is None else NOW - timedelta(seconds=turned_s),
        parts=(part,),
    )


@pytest.mark.parametrize(
    ("one", "trouble"),
    [
        (reading(), None),
        (reading(written_s=31), "it has reported nothing for 31 s"),
        (reading(turned_s=61), "its loop has not turned for 61 s"),
        (reading(turned_s=300, away=True), None),
        (reading(turned_s=300, since_s=30), None),
        (reading(turned_s=None), "it has not begun to work yet"),
        (reading(turned_s=None, away=True), None),
    ],
    ids=["alive", "silent", "stalled", "waits for the broker", "has just got it back", "starts", "waits at the start"],
)
def test_a_part_that_is_away_is_no_reason_to_be_restarted(one: process_health.Reading, trouble: str | None) -> None:
    """A loop that stands still is one, but not while it waits for a part, nor right after."""
    assert one.trouble(now=NOW) == trouble


def test_D17_a_loop_that_is_blocked_fails_the_health_check() -> None:
    """After a minute, where nothing that it needs is away; the threads that ask and write are not its own."""
    assert reading(turned_s=59).trouble(now=NOW) is None
    assert reading(turned_s=61).trouble(now=NOW) == "its loop has not turned for 61 s"


class Server:
    """A part that answers, refuses or hangs."""

    def __init__(self) -> None:
        self.is_away = False
        self.answers = threading.Event()
        self.answers.set()

    part = "broker"

    def run(self) -> None:
        self.answers.wait(30)
        if self.is_away:
            raise ConnectionError("refused\nand more")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def process(tmp_path: Path, server: Server) -> Iterator[process_health.HealthReporter]:
    """A process that needs one part, and looks often."""
    pace = process_health.Pace(every_s=0.02, hangs_s=0.1, write_s=0.02)
    one = process_health.HealthReporter(kind="worker", name="worker@here", folder=tmp_path, checks=[server], pace=pace)
    one.start()
    one.turned()
    yield one
    server.answers.set()
    one.stop()


def told(folder: Path) -> process_health.Reading:
    return next(iter(process_health.read(folder)))


def test_what_refuses_and_what_hangs_is_named_and_is_back(
    tmp_path: Path, server: Server, process: process_health.HealthReporter
) -> None:
    """In the file, with the first line of the reason; and once each in the log."""
    parts.eventually(
        lambda: list(process_health.read(tmp_path)) and told(tmp_path).turned_at and not told(tmp_path).away
    )
    server.is_away = True
    parts.eventually(lambda: [part.why for part in told(tmp_path).away] == ["refused"])
    assert process.away()["broker"].endswith("refused")
    server.is_away = False
    parts.eventually(lambda: not told(tmp_path).away)
    server.answers.clear()
    parts.eventually(lambda: [part.why for part in told(tmp_path).away] == ["it does not answer"])
    server.answers.set()
    parts.eventually(lambda: not told(tmp_path).away)


def test_a_process_that_ends_takes_its_file_away(tmp_path: Path, process: process_health.HealthReporter) -> None:
    """One that is killed cannot: its file says a process that is gone."""
    parts.eventually(lambda: list(process_health.read(tmp_path)))
    process.stop()
    parts.eventually(lambda: not list(process_health.read(tmp_path)))


def test_a_folder_that_cannot_be_written_is_told_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "health").write_text("")
    one = process_health.HealthReporter(kind="worker", name="w", folder=tmp_path / "health", checks=[])
    one.start()
    parts.eventually(lambda: "set health.folder" in caplog.text)
    one.stop()
