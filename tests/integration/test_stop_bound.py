"""A process that hangs at its end says in what, and ends; one that does not is left alone."""

import subprocess
import sys
import time

import pytest

HANGS = """
import logging, sys, threading, time
from routing.cli import stop_bound
logging.basicConfig(level=logging.INFO)

def asks_a_server_that_is_frozen():
    time.sleep(600)

busy = time.monotonic() + float(sys.argv[2])
if sys.argv[1] == "main":
    stop_bound.begin("scheduler", bound_s=0.5, is_busy=lambda: time.monotonic() < busy)
    asks_a_server_that_is_frozen()
elif sys.argv[1] == "thread":
    threading.Thread(target=asks_a_server_that_is_frozen, name="pool-1").start()
    stop_bound.begin("Flower", bound_s=0.5)
else:
    stop_bound.begin("worker", bound_s=20)
    sys.exit(3)
"""


def ended(where: str, *, busy_s: float = 0.0) -> tuple[int, str, float]:
    """(exit code, what it said, seconds)."""
    began = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", HANGS, where, str(busy_s)], capture_output=True, text=True, timeout=60, check=False
    )
    return process.returncode, process.stderr, time.monotonic() - began


@pytest.mark.parametrize(("where", "thread"), [("main", "MainThread"), ("thread", "pool-1")])
def test_who_hangs_at_its_end_says_in_what_and_ends(where: str, thread: str) -> None:
    """Its own main thread, or one that Python waits for; an orderly end all the same."""
    code, said, _ = ended(where)
    assert code == 0
    assert "has not ended 0.5 s after it was asked to" in said
    assert f"{thread}: " in said
    assert "asks_a_server_that_is_frozen" in said


def test_what_it_does_for_good_reason_is_not_counted() -> None:
    """Bodies that run on a worker."""
    _, _, seconds = ended("main", busy_s=3.0)
    assert seconds > 3.0


def test_who_ends_in_time_ends_as_ever() -> None:
    code, said, seconds = ended("nowhere")
    assert (code, said) == (3, "")
    assert seconds < 20
