"""`podyard demo` as a newcomer runs it: from an empty folder to a report, and nothing left running."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import parts
from tests.parts import eventually

PODYARD = str(Path(sys.executable).with_name("podyard"))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo was run to its end, and what it printed there."""
    folder = tmp_path_factory.mktemp("demo")
    log = folder / "terminal.log"
    demo = parts.start([PODYARD, "demo"], log=log, cwd=folder)
    try:
        eventually(lambda: demo.poll() is not None, 90, what="the demo ends")
    finally:
        parts.stop(demo, timeout_s=20)
    assert demo.returncode == 0, log.read_text()
    return folder, log.read_text()


def test_the_demo_runs_on_both_sides_and_ends_with_a_report(played: tuple[Path, str]) -> None:
    """Each of the sixteen tasks is told once, both sides took part, and the report is what stands in the file."""
    folder, said = played
    told = re.findall(r"^(\w+) +(?:default|kubernetes) +(celery|kubernetes) +\S+ +success +[\d.]+$", said, re.MULTILINE)
    sides = [side for _, side in told]
    assert (len(dict(told)), sides.count("celery"), sides.count("kubernetes")) == (16, 9, 7)
    assert (folder / ".podyard" / "census-report.txt").read_text() in said


def test_what_the_demo_proposes_next_works(played: tuple[Path, str]) -> None:
    """The parts are stopped, the record stays: the commands that it names answer."""
    folder, said = played
    commands = re.findall(r"^  \S*podyard ((?:runs|tasks) .+)$", said, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        answer = subprocess.run(
            [PODYARD, *command.split()], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert (answer.returncode, bool(answer.stdout)) == (0, True), answer.stderr


def test_every_task_of_the_demo_has_its_place_in_the_record(played: tuple[Path, str]) -> None:
    """Side, host or pod, state and result of each task, as programs read them."""
    folder, said = played
    run_id = re.findall(r"^run (\S+) of stdlib_census", said, re.MULTILINE)[0]
    answer = subprocess.run(
        [PODYARD, "tasks", "list", run_id, "--output", "json"], cwd=folder, capture_output=True, check=True, timeout=60
    )
    tasks = json.loads(answer.stdout)
    assert {task["state"] for task in tasks} == {"success"}
    assert all(task["pod"] if task["side"] == "kubernetes" else task["host"] for task in tasks)
    assert all(task["result"]["modules"] > 10 for task in tasks if task["task_id"].startswith("count_"))


def test_the_demo_leaves_nothing_running(played: tuple[Path, str]) -> None:
    """No process works in its folder, and no address of a stopped part stays behind."""
    folder, _ = played
    assert parts.working_in(folder) == []
    assert not (folder / ".podyard" / "embedded.toml").exists()


def test_a_demo_that_is_interrupted_stops_its_parts(tmp_path: Path) -> None:
    """Ctrl-C while the parts start: exit code not 0, one line, nothing left."""
    log = tmp_path / "terminal.log"
    demo = parts.start([PODYARD, "demo"], log=log, cwd=tmp_path)
    eventually(lambda: "valkey is ready" in log.read_text(), 30)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(20) != 0
    eventually(lambda: not parts.working_in(tmp_path), 5)
    assert "stopped before the end" in log.read_text()
