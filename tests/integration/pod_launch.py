"""Pods without a cluster: the entry point as a process, and what it leaves."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher.protocol import outcome
from dispatcher.protocol.message import Message

ROOT = Path(__file__).parents[2]
APP = "tests.apps.pod_app"


@dataclass(frozen=True)
class Ended:
    """A pod that has ended."""

    exit_code: int
    out: str
    err: str
    message: str

    @property
    def outcome(self) -> outcome.Outcome:
        told = outcome.decode(self.message, task_id="id", retries=0)
        return told if isinstance(told, outcome.Outcome) else outcome.read_frame(self.out.encode(), told)


def started(folder: Path, task: str, *args: Any, headers: Any = None, **env: str) -> "subprocess.Popen[str]":
    """The process of a pod; `task` without a module is one of the test application's."""
    name = task if "." in task else f"{APP}.{task}"
    said = {"id": "id", "task": name, **(headers or {})}
    sent = Message(name=name, id="id", args=args, headers=said, delivery_info={"routing_key": "q"})
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PODYARD_APP": f"{APP}:app",
        "PODYARD_MESSAGE": sent.encode(),
        "PODYARD_TERMINATION_PATH": str(folder / "termination"),
        "HOSTNAME": "the-pod",
        **env,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "dispatcher.pod"],
        env=given,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: "subprocess.Popen[str]", folder: Path) -> Ended:
    """What it left."""
    out, err = process.communicate(timeout=60)
    file = folder / "termination"
    return Ended(process.returncode, out, err, file.read_text() if file.exists() else "")


def ran(folder: Path, task: str, *args: Any, headers: Any = None, **env: str) -> Ended:
    """Runs a pod to its end."""
    return ended(started(folder, task, *args, headers=headers, **env), folder)
