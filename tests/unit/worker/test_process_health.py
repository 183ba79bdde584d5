"""What a process says of itself, and what a health check makes of it."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
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


def left_behind(folder: Path, **facts: object) -> Path:
    """What a process wrote that is not there any more."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    record = {
        "kind": "worker",
        "name": "worker@here",
        "host": socket.gethostname(),
        "pid": ended.pid,
        "written_at": datetime.now(UTC).isoformat(),
        "turned_at": datetime.now(UTC).isoformat(),
        "parts": [],
    } | facts
    file = folder / f"{record['kind']}-{record['host']}-{record['pid']}.json"
    file.write_text(json.dumps(record))
    return file


def test_a_process_takes_the_place_of_the_one_that_was_killed(tmp_path: Path) -> None:
    """Of two of a name the one that runs counts, and what is left of the other goes."""
    killed = left_behind(tmp_path)
    now = datetime.now(UTC)
    (gone,) = process_health.current(process_health.read(tmp_path), now=now)
    assert gone.trouble(now=now) == f"the process {gone.pid} is gone"
    stranger = left_behind(tmp_path, name="other@here")
    pace = process_health.Pace(every_s=0.02, hangs_s=0.1, write_s=0.02)
    successor = process_health.HealthReporter(kind="worker", name="worker@here", folder=tmp_path, checks=[], pace=pace)
    successor.start()
    parts.eventually((tmp_path / f"worker-{socket.gethostname()}-{os.getpid()}.json").exists)
    assert (killed.exists(), stranger.exists()) == (False, True)
    left_behind(tmp_path)  # such as one that wrote once more before it was killed
    found = process_health.current(process_health.read(tmp_path), now=datetime.now(UTC))
    assert {one.name: one.pid for one in found} == {
        "worker@here": os.getpid(),
        "other@here": json.loads(stranger.read_text())["pid"],
    }
    successor.stop()


def test_a_process_of_the_same_id_is_not_the_one_that_wrote(
    tmp_path: Path, process: process_health.HealthReporter
) -> None:
    """A container that is started again gives its processes the same ids, and the folder may outlive it."""
    parts.eventually(lambda: list(process_health.read(tmp_path)))
    assert told(tmp_path).gone(now=datetime.now(UTC)) is None
    before = dataclasses.replace(told(tmp_path), began="1")
    if told(tmp_path).began is not None:  # where the system says when a process began
        assert before.trouble(now=datetime.now(UTC)) == f"the process {os.getpid()} is gone"
        assert process_health.is_running(os.getpid())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells the state of a process by a file")
def test_a_killed_process_that_nobody_has_asked_about_is_gone() -> None:
    """A container whose first process collects no children keeps it as a zombie."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert process_health.is_running(child.pid)
    child.kill()
    parts.eventually(lambda: not process_health.is_running(child.pid))
    child.wait()


def test_a_process_that_ends_by_itself_stays_expected(tmp_path: Path, process: process_health.HealthReporter) -> None:
    """Its file says why; one that was asked to stop has none."""
    parts.eventually(lambda: list(process_health.read(tmp_path)))
    process.stop(why=process_health.failure(ValueError("UNBLOCKED\nand more")))
    process.stop()  # Celery stops a pool twice
    assert told(tmp_path).trouble(now=datetime.now(UTC)) == "it ended by itself: ValueError: UNBLOCKED"
    assert [process_health.failure(error) for error in (None, SystemExit(1), KeyboardInterrupt())] == [None] * 3


def test_what_another_host_left_long_ago_is_not_expected_back(tmp_path: Path) -> None:
    """Containers that share a folder have another name at each start; one of this host stays expected."""
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    left_behind(tmp_path, host="container-1", written_at=long_ago)
    left_behind(tmp_path, written_at=long_ago)
    assert [one.host for one in process_health.read(tmp_path)] == [socket.gethostname()]
