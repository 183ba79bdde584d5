"""`podyard standalone` as a user runs it: one terminal, real parts, and nothing left behind."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import parts
from tests.parts import eventually

PODYARD = str(Path(sys.executable).with_name("podyard"))

SLEEPY = """
import os, pathlib, time
from routing import DAG, task

@task(queue="kubernetes")
def in_pod(number, folder):
    marker = pathlib.Path(folder, f"pod-{number}-{os.getpid()}")
    marker.touch()
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.05)
    return number

@task(queue="reports")
def total(numbers):
    return sum(numbers)

with DAG("sleepy"):
    total([in_pod.override(task_id=f"in_pod_{number}")(number, {folder!r}) for number in range(3)])
"""


class Standalone:
    """One `podyard standalone` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "terminal.log"
        (folder / "dags").mkdir(parents=True)
        (folder / "dags" / "sleepy.py").write_text(SLEEPY.replace("{folder!r}", repr(str(folder))))
        self.process = self.start()

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        return parts.start([PODYARD, "standalone", "--flower-port", "0", *words], log=self.log, cwd=self.folder)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command of the user's other terminal."""
        return subprocess.run(
            [PODYARD, *words], cwd=self.folder, capture_output=True, text=True, timeout=90, check=False
        )

    def json(self, *words: str) -> Any:
        answer = self.run(*words, "--output", "json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    @property
    def terminal(self) -> str:
        return self.log.read_text()

    def is_ready(self, *, times: int = 1) -> bool:
        """Whether the terminal has said so for the start of that number; RuntimeError where it ended instead."""
        return parts.is_alive(self.process, self.log) and self.terminal.count("all parts are ready") == times

    def pid_of(self, part: str) -> int:
        """The pid of the latest start of a part, as the terminal tells it."""
        return int(re.findall(rf"{part} is ready \(pid (\d+),", self.terminal)[-1])

    def flower(self, path: str) -> Any:
        return json.loads(self.flower_page(path))

    def flower_page(self, path: str) -> str:
        url, user, password = re.findall(r"(http://\S+)  \(user (\S+), password (\S+)\)", self.terminal)[-1]
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request = urllib.request.Request(f"{url}{path}", headers={"Authorization": f"Basic {token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """One standalone for the flow of this module; its last test stops it."""
    running = Standalone(tmp_path_factory.mktemp("standalone"))
    eventually(running.is_ready, 60)
    yield running
    parts.stop(running.process, how=signal.SIGINT, timeout_s=30)


def test_a_second_start_in_the_same_folder_is_refused(standalone: Standalone) -> None:
    """It says that the first one runs, and with which pid."""
    second = standalone.run("standalone")
    assert second.returncode == 1
    assert f"(pid {standalone.process.pid})" in second.stderr
    assert "--home" in second.stderr


@pytest.mark.parametrize("part", ["dispatcher", "valkey", "worker", "scheduler"])
def test_a_part_killed_in_the_middle_of_a_run_costs_nothing(standalone: Standalone, part: str) -> None:
    """Given three pods that run, when a part gets SIGKILL, then the run is finished with these pods."""
    for leftover in [*standalone.folder.glob("pod-*"), *standalone.folder.glob("go")]:
        leftover.unlink()
    words = ["dags", "trigger", "sleepy", "--run-id", part, "--wait"]
    with subprocess.Popen([PODYARD, *words], cwd=standalone.folder, stdout=subprocess.PIPE) as trigger:
        eventually(lambda: len(list(standalone.folder.glob("pod-*"))) == 3, 30)
        first = standalone.pid_of(part)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: standalone.pid_of(part) != first, 30)
        (standalone.folder / "go").touch()
        assert trigger.wait(60) == 0
    assert len(list(standalone.folder.glob("pod-*"))) == 3  # each body ran in one process
    tasks = {task["task_id"]: task for task in standalone.json("tasks", "list", part)}
    assert {name: (task["side"], task["state"], task["try_number"]) for name, task in tasks.items()} == {
        "in_pod_0": ("kubernetes", "success", 1),
        "in_pod_1": ("kubernetes", "success", 1),
        "in_pod_2": ("kubernetes", "success", 1),
        "total": ("celery", "success", 1),
    }
    assert tasks["total"]["result"] == 3


def test_a_queue_that_only_a_dag_names_is_consumed(standalone: Standalone) -> None:
    """No rule and no option names `reports`; the worker was told of it while it ran."""
    eventually(lambda: "worker consumes the queue 'reports'" in standalone.terminal)


def test_flower_shows_the_dispatcher_as_a_worker_with_its_pods(standalone: Standalone) -> None:
    """Real Flower, real API, with the password that the terminal told."""
    names = {name.partition("@")[0] for name in eventually(lambda: standalone.flower("/api/workers?refresh=1"))}
    assert {"worker", "dispatcher"} <= names

    def pod_tasks() -> Any:
        return [
            task
            for task in standalone.flower("/api/tasks").values()
            if (task["worker"] or "").startswith("dispatcher@") and task["state"] == "SUCCESS"
        ]

    assert {task["name"] for task in eventually(pod_tasks)} == {f"sleepy.in_pod_{number}" for number in range(3)}


def test_flower_has_a_page_with_the_pods_of_the_record(standalone: Standalone) -> None:
    """The tab is on Flower's own pages; page and API tell the same pods; without the password there is neither."""
    pods = eventually(lambda: standalone.flower("/api/pods")["pods"])
    page = standalone.flower_page("/pods")

    assert {pod["phase"] for pod in pods} <= {"Succeeded", "Failed", "Running", "Pending", "Waiting"}
    assert all(pod["name"] in page for pod in pods)
    assert 'href="/pods">Pods</a>' in standalone.flower_page("/workers").replace("\n ", "")
    url = re.findall(r"(http://\S+)  \(user", standalone.terminal)[-1]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/pods", timeout=10)


def test_ctrl_c_stops_everything_and_leaves_nothing(standalone: Standalone) -> None:
    """Within seconds, with exit code 0, no process and no stale settings."""
    standalone.process.send_signal(signal.SIGINT)
    assert standalone.process.wait(25) == 0
    eventually(lambda: not parts.working_in(standalone.folder), 5, what="nothing left running")
    assert standalone.terminal.splitlines()[-1].endswith("stopped; nothing is left running")
    assert not (standalone.folder / ".podyard" / "embedded.toml").exists()
    assert standalone.run("tasks", "list", "worker").returncode == 0  # the record stays


def test_a_standalone_killed_by_sigkill_leaves_nothing_and_starts_again(standalone: Standalone) -> None:
    """The guard ends the parts; the next start finds the record and the broker's files as they were."""
    standalone.process = standalone.start("--no-flower")
    eventually(lambda: standalone.is_ready(times=2), 60)
    standalone.process.kill()
    standalone.process.wait(5)
    eventually(lambda: not parts.working_in(standalone.folder), 15, what="nothing left running")
    standalone.process = standalone.start("--no-flower")
    eventually(lambda: standalone.is_ready(times=3), 60)
    assert {run["state"] for run in standalone.json("runs", "list")} == {"success"}


def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path, standalone: Standalone) -> None:
    """Before anything is started."""
    with parts.listening() as port:
        answer = subprocess.run(
            [PODYARD, "standalone", "--flower-port", str(port)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert answer.returncode == 1
    assert re.search(rf"cannot listen on 127\.0\.0\.1:{port} .*--flower-port", answer.stderr)
