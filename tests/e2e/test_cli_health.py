"""`podyard health`: what should be there, what is not, and its exit code."""

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from routing.cli import program
from tests.terminal import Answer, inside

HERE = socket.gethostname()


def wrote(home: Path, *, pid: int | None = None, name: str = "dispatcher", kind: str = "", **facts: Any) -> None:
    """A process of this machine has written its file a moment ago."""
    now = datetime.now(UTC).isoformat()
    part = {"name": "broker", "ok": True, "since": now, "why": None}
    kind, pid = kind or name, pid or os.getpid()
    record = {"kind": kind, "name": f"{name}@{HERE}", "host": HERE, "pid": pid, "written_at": now, "turned_at": now}
    folder = home / ".podyard" / "health"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}-{HERE}-{pid}.json").write_text(json.dumps(record | {"parts": [part]} | facts))


def killed() -> int:
    """The id of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def states(answer: Answer) -> dict[tuple[str, str], str]:
    return {(one["process"].partition("@")[0], one["part"]): one["state"] for one in json.loads(answer.stdout)}


def test_no_process_at_all_is_a_failure(tmp_path: Path) -> None:
    """It says where it looked; programs get an empty list."""
    answer = inside(tmp_path, "health", "--output", "json")
    assert (answer.returncode, answer.stdout) == (1, "[]\n")
    assert f"no process has written into {tmp_path}/.podyard/health" in answer.stderr


def test_a_killed_process_is_gone_until_its_successor_is_there(tmp_path: Path) -> None:
    """Then it counts no more."""
    wrote(tmp_path, pid=killed())
    answer = inside(tmp_path, "health", "--output", "json")
    assert (answer.returncode, states(answer)) == (1, {("dispatcher", "process"): "gone"})
    assert "start again what is gone" in answer.stderr
    wrote(tmp_path)
    answer = inside(tmp_path, "health", "--output", "json")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert states(answer) == {("dispatcher", "process"): "ok", ("dispatcher", "broker"): "ok"}


def test_one_that_ended_by_itself_is_gone_with_its_reason(tmp_path: Path) -> None:
    """Such as a worker that its broker's switch-over has ended: nobody asked it to stop."""
    wrote(tmp_path, ended="ResponseError: UNBLOCKED")
    answer = inside(tmp_path, "health")
    assert answer.returncode == 1
    assert "it ended by itself: ResponseError: UNBLOCKED" in answer.stdout


def test_what_is_expected_and_not_here_is_missing(tmp_path: Path) -> None:
    """By its kind, by the name of its node, or by the whole name."""
    wrote(tmp_path, name="gpu", kind="dispatcher")
    for there in ("dispatcher", "gpu", f"gpu@{HERE}"):
        assert inside(tmp_path, "health", "--expect", there).returncode == 0
    answer = inside(tmp_path, "health", "--expect", "dispatcher, worker,cpu", "-o", "json")
    assert answer.returncode == 1
    assert {name for (name, _), state in states(answer).items() if state == "missing"} == {"worker", "cpu"}
    assert "worker: the process is missing" in answer.stderr


def test_all_parts_of_a_standalone_are_expected(tmp_path: Path) -> None:
    """It leaves its settings in the home folder for as long as it runs."""
    wrote(tmp_path)
    assert inside(tmp_path, "health").returncode == 0
    (tmp_path / ".podyard" / "embedded.toml").write_text("")
    answer = inside(tmp_path, "health", "-o", "json")
    missing = {name for (name, _), state in states(answer).items() if state == "missing"}
    assert (answer.returncode, missing) == (1, {"scheduler", "worker"})


def test_a_part_that_is_away_is_a_failure(tmp_path: Path) -> None:
    """With its reason."""
    now = datetime.now(UTC).isoformat()
    wrote(tmp_path, parts=[{"name": "broker", "ok": False, "since": now, "why": "OOM command not allowed"}])
    answer = inside(tmp_path, "health")
    assert answer.returncode == 1
    assert "OOM command not allowed" in answer.stdout
    assert "the broker is away" in answer.stderr


def test_the_help_says_what_the_codes_mean() -> None:
    """For whoever writes a check."""
    context = program.click.Context(program.podyard, info_name="podyard")
    command = program.podyard.get_command(context, "health")
    assert command is not None
    for code in ("0  at least one process is here", "1  a process is gone", "2  wrong usage"):
        assert code in (command.help or "")
