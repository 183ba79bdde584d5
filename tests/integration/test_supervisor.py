"""The supervisor on real processes: order, restart, an ordered stop, and nothing left behind however it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from routing.standalone import part, part_errors, supervisor
from tests.parts import eventually

SLEEPER = "import time, pathlib; pathlib.Path({flag!r}).touch(); time.sleep(600)"


def sleeper(folder: Path, name: str, *, after: tuple[str, ...] = (), code: str = SLEEPER, **more: float) -> part.Part:
    """A part that touches a file when it runs, and is ready once the file is there."""
    flag = folder / f"{name}.flag"
    return part.Part(
        name=name,
        command=(sys.executable, "-S", "-c", code.format(flag=str(flag))),
        log=folder / f"{name}.log",
        is_ready=flag.exists,
        after=after,
        **more,  # type: ignore[arg-type]
    )


def run_until(running: supervisor.Supervisor, condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    """Tick until the condition holds."""

    def ticked() -> object:
        running.tick()
        return condition()

    eventually(ticked, timeout_s)


def test_a_part_starts_only_when_those_before_it_are_ready(tmp_path: Path) -> None:
    """Given b after a, when the supervisor runs, then a is ready before b starts, and b stops before a."""
    said: list[str] = []
    parts = [sleeper(tmp_path, "b", after=("a",)), sleeper(tmp_path, "a")]
    with supervisor.Supervisor(parts, say=said.append) as running:
        run_until(running, lambda: running.is_ready)
        pids = dict(running.pids())
    assert [line.split(" (")[0] for line in said] == ["a is ready", "b is ready", "b stopped", "a stopped"]
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


def test_a_part_that_dies_starts_again(tmp_path: Path) -> None:
    """Given a ready part, when it is killed, then one line says how it ended, and another process takes its place."""
    said: list[str] = []
    with supervisor.Supervisor([sleeper(tmp_path, "a")], say=said.append) as running:
        run_until(running, lambda: running.is_ready)
        first = running.pids()["a"]
        os.kill(first, signal.SIGKILL)
        run_until(running, lambda: running.is_ready and running.pids().get("a") not in {None, first})
    assert said[1] == f"a ended (killed by SIGKILL); it starts again in 0.5 s; its log is {tmp_path / 'a.log'}"


def test_a_part_that_cannot_start_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    """A program that ends before it was ever ready will not get better by trying again."""
    broken = sleeper(tmp_path, "broken", code="raise SystemExit('the disk is full')")
    with (
        pytest.raises(
            part_errors.EmbeddedError, match=r"broken ended while it started \(exit code 1\): the disk is full"
        ),
        supervisor.Supervisor([broken], say=print) as running,
    ):
        run_until(running, lambda: running.is_ready)


def test_a_part_that_never_gets_ready_is_an_error(tmp_path: Path) -> None:
    """A start has a bound."""
    silent = sleeper(tmp_path, "silent", code="import time; time.sleep(600)", start_timeout_s=0.2)
    with (
        pytest.raises(part_errors.EmbeddedError, match=r"silent is not ready after 0\.2 s"),
        supervisor.Supervisor([silent], say=print) as running,
    ):
        run_until(running, lambda: running.is_ready)


STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
pathlib.Path({flag!r}).with_suffix(".child").write_text(str(child.pid))
pathlib.Path({flag!r}).touch()
time.sleep(600)
"""


def test_a_part_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    """A stop takes a known time, and ends what a part has started too."""
    said: list[str] = []
    with supervisor.Supervisor(
        [sleeper(tmp_path, "stubborn", code=STUBBORN, stop_timeout_s=0.3)], say=said.append
    ) as running:
        run_until(running, lambda: running.is_ready)
        child = int((tmp_path / "stubborn.child").read_text())
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert said[-1] == "stubborn killed after 0.3 s"
    eventually(lambda: not is_running(child))


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


SUPERVISING = """
import pathlib, sys, time
from routing.standalone import part, supervisor
from tests.integration import test_supervisor
folder = pathlib.Path(sys.argv[1])
parts = [test_supervisor.sleeper(folder, "stubborn", code=test_supervisor.STUBBORN)]
with supervisor.Supervisor(parts, say=print) as running:
    while True:
        running.tick()
        if running.is_ready:
            (folder / "pid").write_text(str(running.pids()["stubborn"]))
        time.sleep(0.05)
"""


def test_a_supervisor_killed_by_sigkill_leaves_nothing(tmp_path: Path) -> None:
    """When the supervisor gets SIGKILL, then the guard ends its parts and what they have started."""
    root = Path(__file__).parents[2]
    running = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SUPERVISING), str(tmp_path)], cwd=root)
    try:
        part_pid = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        child_pid = int((tmp_path / "stubborn.child").read_text())
    finally:
        running.kill()
        running.wait(5)
    eventually(lambda: not is_running(part_pid) and not is_running(child_pid), 10)


def test_a_guard_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """The supervisor notices the loss of its guard at the next tick."""
    with supervisor.Supervisor([sleeper(tmp_path, "a")], say=print) as running:
        run_until(running, lambda: running.is_ready)
        guard = next(child for child in psutil.Process().children() if "guard.py" in " ".join(child.cmdline()))
        guard.kill()
        run_until(running, lambda: any("guard.py" in " ".join(c.cmdline()) for c in alive_children()))


def alive_children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
