"""routing.run in a real prefork worker: bodies that end in bad ways, and what is left of them."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TimeLimitExceeded, WorkerLostError

from tests import parts

DAG_FILE = """
    import os, sys, time
    from routing import DAG, BashOperator, task

    @task
    def prints_much():
        for _ in range(50):
            print("x" * 999_999)
        return "printed"

    @task
    def leaves():
        print("last words")
        os._exit(1)

    @task
    def exits():
        sys.exit(3)

    @task
    def raises():
        raise ValueError("the reason", {1, 2})

    with DAG("d"):
        prints_much(); leaves(); exits(); raises()
        BashOperator(task_id="sleeps", bash_command="echo $$ > $PIDS/$PODYARD_CTX_RUN_ID; sleep 60")
"""
APP = """
    import os
    from pathlib import Path
    from types import SimpleNamespace
    from celery import Celery
    from routing.worker import run

    here = Path(os.environ["PODYARD_TEST_HERE"])
    app = Celery("w", broker=os.environ["PODYARD_TEST_URL"], backend=os.environ["PODYARD_TEST_URL"])
    run.register(app, folder=here / "dags", logs=SimpleNamespace(folder=here / "logs", max_bytes=100_000))
"""


class Worker:
    """A worker of two processes, and how to send it tasks of the DAG file."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.app = Celery(broker=url, backend=url, set_as_current=False)
        self.app.conf.update(broker_transport_options={"visibility_timeout": 30})

    def send(self, task_id: str, **options: Any) -> Any:
        """The result to come."""
        message = {"dag_file": "f.py", "dag_id": "d", "task_id": task_id, "run_id": task_id}
        return self.app.send_task("routing.run", kwargs=message, **options)

    def log(self, result: Any) -> bytes:
        """What the attempt left in its log."""
        return (self.folder / "logs" / f"{result.id}.log").read_bytes()

    def bash_pid(self, run_id: str) -> int:
        """The process of the command, once it runs."""
        path = self.folder / run_id
        return int(parts.eventually(lambda: path.exists() and path.read_text().strip(), what="the command runs"))


@pytest.fixture
def worker(tmp_path: Path, valkey: parts.ValkeyDatabase) -> Iterator[Worker]:
    """A real prefork worker on a real broker."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "f.py").write_text(textwrap.dedent(DAG_FILE))
    (tmp_path / "worker_app.py").write_text(textwrap.dedent(APP))
    environment = {
        "PODYARD_TEST_HERE": str(tmp_path),
        "PODYARD_TEST_URL": valkey.url,
        "PIDS": str(tmp_path),
        "PYTHONPATH": str(tmp_path),
    }
    command = [sys.executable, "-m", "celery", "-A", "worker_app", "worker", "-c", "2", "--without-gossip"]
    process = parts.start([*command, "--without-mingle"], log=tmp_path / "worker.log", env=environment, cwd=tmp_path)
    yield Worker(tmp_path, valkey.url)
    parts.stop(process)


def test_bodies_that_end_badly_are_told_apart(worker: Worker) -> None:
    """Each outcome names its cause, each log keeps the last words, and the worker goes on."""
    sent = {name: worker.send(name) for name in ("prints_much", "leaves", "exits", "raises")}

    assert sent["prints_much"].get(timeout=30) == "printed"
    log = worker.log(sent["prints_much"])
    assert 100_000 < len(log) < 100_300
    assert log.endswith(b"[podyard: 49,900,000 bytes were dropped]\n")

    with pytest.raises(WorkerLostError):
        sent["leaves"].get(timeout=30)
    assert worker.log(sent["leaves"]) == b"last words\n"

    stored = {name: (sent[name].get(propagate=False, timeout=30), sent[name].traceback) for name in ("exits", "raises")}
    failed, _ = stored["exits"]
    details = {"reason": "Error", "exit_code": 3, "cause": "application"}
    assert (type(failed).__name__, failed.args) == ("TaskFailed", ("the body called sys.exit, exit code 3", details))
    error, trace = stored["raises"]
    assert (type(error), error.args[0]) == (ValueError, "the reason")
    assert 'f.py", line 22, in raises' in trace
    assert "python_operator.py" not in trace


def test_a_revoked_task_and_one_over_time_leave_no_command_behind(worker: Worker) -> None:
    """SIGTERM by revoke reaches the command, and so does the limit that Celery sets."""
    revoked = worker.send("sleeps")
    pid = worker.bash_pid("sleeps")
    revoked.revoke(terminate=True)
    parts.eventually(lambda: _is_gone(pid), what="the command of the revoked task is gone")
    (worker.folder / "sleeps").unlink()

    late = worker.send("sleeps", time_limit=1)
    pid = worker.bash_pid("sleeps")
    with pytest.raises(TimeLimitExceeded):
        late.get(timeout=30)
    parts.eventually(lambda: _is_gone(pid), what="the command of the late task is gone")


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True
