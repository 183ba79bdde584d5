"""Calling `podyard` in tests: the installed program, or the same code in this process, which costs no imports."""

import contextlib
import io
import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from routing.cli import program

PODYARD = str(Path(sys.executable).with_name("podyard"))

Answer = subprocess.CompletedProcess[str]


def installed(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> Answer:
    """One call of the installed command, as a user in `folder` makes it."""
    return subprocess.run(
        [PODYARD, *words],
        cwd=folder,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def inside(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> Answer:
    """The same in this process, from the arguments to the exit code. Not for commands that run until stopped."""
    stdout, stderr, before = io.StringIO(), io.StringIO(), dict(os.environ)
    wanted = environment(env)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            program.run(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())
    finally:
        os.environ.clear()
        os.environ.update(before)


def on_a_terminal(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    """What a call writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PODYARD, *words],
        cwd=folder,
        env=environment({"TERM": "xterm", **(env or {})}),
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the other end is closed: the program has ended
            break
        seen += piece
    process.wait(10)
    os.close(ours)
    return seen.decode()


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of ours, on a terminal of 80 columns."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PODYARD_")}
    return {**own, "COLUMNS": "80", **(more or {})}
