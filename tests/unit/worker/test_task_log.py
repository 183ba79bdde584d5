"""Task logs: one file per attempt, only if there is something to say, never larger than agreed."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from routing.worker import task_log


@dataclass(frozen=True)
class Place:
    """A place for logs, as the settings have one."""

    folder: Path
    max_bytes: int


def test_fifty_megabytes_cost_the_cap(tmp_path: Path) -> None:
    """The head is kept, a line says where it ends, and the last line how much was dropped."""
    place = Place(tmp_path, 1_000)
    with task_log.captured(place, "a"):
        for _ in range(500):
            sys.stdout.write("x" * 99_999 + "\n")
    text = (tmp_path / "a.log").read_text()
    head, capped, dropped = text.splitlines()
    assert head == "x" * 1_000
    assert capped == "[podyard: this log is capped at 1,000 bytes; what follows is dropped]"
    assert dropped == "[podyard: 49,999,000 bytes were dropped]"


def test_a_line_is_in_the_file_as_soon_as_it_is_printed(tmp_path: Path) -> None:
    """A process that is killed a moment later leaves its words."""
    with task_log.captured(Place(tmp_path, 1_000), "a"):
        sys.stdout.write("said" + "\n")
        assert (tmp_path / "a.log").read_text() == "said\n"


def test_programs_may_write_to_the_log_directly(tmp_path: Path) -> None:
    """`subprocess.run(…, stdout=sys.stdout)` in a body works."""
    with task_log.captured(Place(tmp_path, 1_000), "a"):
        subprocess.run(["echo", "from a program"], stdout=sys.stdout, check=True)
    assert (tmp_path / "a.log").read_text() == "from a program\n"


def test_a_folder_that_cannot_be_written_fails_no_task(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The worker's own output says it, once per attempt."""
    (tmp_path / "file").touch()
    with task_log.captured(Place(tmp_path / "file", 1_000), "a"):
        sys.stdout.write("lost" + "\n")
        sys.stdout.write("lost, too" + "\n")
    assert capfd.readouterr().err.count("a.log cannot be written") == 1


@pytest.mark.parametrize("attempt_id", ["../../etc/passwd", "/etc/passwd", "..", "", "."])
def test_no_id_leads_out_of_the_folder(tmp_path: Path, attempt_id: str) -> None:
    """Whoever may send messages names attempts."""
    assert task_log.path_of(Place(tmp_path, 1), attempt_id).parent == tmp_path
