"""A pod's first process: the body in a second one, signals, limits, exit codes. Real processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration import pod_launch as launch


def test_a_success_leaves_its_outcome_and_exit_code_0(tmp_path: Path) -> None:
    """The second process writes it, the first one ends with its exit code."""
    done = launch.ran(tmp_path, "sleeps", 0)
    assert (done.exit_code, done.outcome.state, done.outcome.value, done.err) == (0, "SUCCESS", "slept", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_body_that_kills_its_process_is_dead(tmp_path: Path, number: signal.Signals) -> None:
    """As in a Celery worker; the first process of a container would survive it."""
    done = launch.ran(tmp_path, "kills_itself", int(number))
    assert (done.exit_code, done.out, done.message) == (128 + number, "before\n", "")


def test_sigterm_reaches_the_body_and_leaves_no_outcome(tmp_path: Path) -> None:
    """So that the deletion of its pod counts."""
    process = launch.started(tmp_path, "waits_for_sigterm")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    done = launch.ended(process, tmp_path)
    assert (done.exit_code, done.message) == (143, "")


def test_sigterm_before_the_application_is_imported_ends_the_pod(tmp_path: Path) -> None:
    """While Celery is imported there is no handler yet: the second process dies of it, and the first says so."""
    (tmp_path / "slow_app.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(30)\n")
    process = launch.started(tmp_path, "sleeps", 0, PODYARD_APP="slow_app:app")
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = launch.ended(process, tmp_path)
    assert (done.exit_code, done.message) == (143, "")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("task", "args", "headers", "env"),
    [
        ("sleeps", [30], {"timelimit": [0.5, None]}, {}),
        ("sleeps", [30], {}, {"PODYARD_TIME_LIMIT_S": "0.5"}),
        ("swallows", [30], {"timelimit": [0.5, 0.2]}, {}),
        ("holds_the_interpreter", [30], {"timelimit": [0.5, None]}, {}),
    ],
)
def test_the_hard_limit_ends_any_body(
    tmp_path: Path, task: str, args: list[Any], headers: Any, env: dict[str, str]
) -> None:
    """One that sleeps, swallows the soft limit, or never comes back to Python: Celery's own exception is left."""
    done = launch.ran(tmp_path, task, *args, headers=headers, **env)
    failure = done.outcome.failure
    assert failure is not None
    assert (done.exit_code, done.outcome.state) == (1, "FAILURE")
    assert (failure.module, failure.type, list(failure.args)) == ("billiard.exceptions", "TimeLimitExceeded", [0.5])
    assert done.err.endswith("podyard: hard time limit (0.5s) exceeded\n")


@pytest.mark.parametrize("endless", [float("inf"), sys.maxsize])
def test_a_limit_that_is_never_reached_harms_nothing(tmp_path: Path, endless: float) -> None:
    """No clock waits for so long at once."""
    done = launch.ran(tmp_path, "sleeps", 0, headers={"timelimit": [endless, endless]})
    assert (done.exit_code, done.outcome.value, done.err) == (0, "slept", "")


def test_limits_count_from_the_begin_of_the_body(tmp_path: Path) -> None:
    """An import that takes longer than both limits takes nothing from the body, and the soft limit still comes."""
    (tmp_path / "slow_app.py").write_text("import time\ntime.sleep(2)\nfrom tests.apps.pod_app import app\n")
    limits = {"timelimit": [1.8, 0.5]}
    done = launch.ran(tmp_path, "swallows", 1.0, headers=limits, PODYARD_APP="slow_app:app")
    assert (done.outcome.state, done.outcome.value) == ("SUCCESS", "swallowed")
    assert 0.9 < done.outcome.runtime_s < 1.8


def test_a_body_that_ends_in_time_is_not_ended_afterwards(tmp_path: Path) -> None:
    """Whatever its process does after the body, such as waiting for a thread of the author's."""
    limits = {"timelimit": [1.0, 0.9]}
    done = launch.ran(tmp_path, "goes_on_in_a_thread", 1.5, headers=limits)
    assert (done.exit_code, done.outcome.value) == (0, "returned")
    assert done.out == "the thread has ended\n"


def test_the_first_process_imports_nothing_that_costs() -> None:
    """It stays in memory as long as the pod."""
    program = "import sys; from dispatcher.pod import init; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=launch.ROOT, capture_output=True, text=True, check=True)
    assert {"dispatcher.pod.init"} <= set(done.stdout.split())
    assert not {"celery", "kombu", "json", "logging", "threading", "dataclasses"} & set(done.stdout.split())
