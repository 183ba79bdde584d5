"""The Celery half on real parts, for tests of the record: settings, a DAG folder, a prefork worker, the scheduler."""

import contextlib
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from celery import Celery

from routing.config import settings
from routing.results import backend
from routing.scheduling import service
from routing.store import rows
from routing.store.store import Store
from routing.worker import celery_app
from tests import parts

WORKER = """
import sys
from pathlib import Path
from routing.config import settings
from routing.worker import celery_app
app = celery_app.build(settings.load(Path(sys.argv[1])), "worker")
app.worker_main(["worker", "-c", sys.argv[2], "-n", sys.argv[3], "-Q", sys.argv[4], "--loglevel", "WARNING"])
"""


@dataclass(kw_only=True)
class Half:
    """One installation without Kubernetes."""

    folder: Path
    config: Path
    settings: settings.Settings
    store: Store
    app: Celery

    @classmethod
    def make(cls, folder: Path, *, broker: str, database: str | None = None, dag: str = "", more: str = "") -> "Half":
        """Write settings and migrate the database; `dag` names a file of `dagfiles/` to begin with."""
        (folder / "dags").mkdir(parents=True)
        config = folder / "podyard.toml"
        database = database or f"sqlite:///{folder / 'podyard.db'}"
        config.write_text(
            f'home = "{folder / "home"}"\n'
            f'[broker]\nurl = "{broker}"\n[results]\nurl = "{broker}"\n'
            f'[database]\nurl = "{database}"\n'
            f'[dags]\nfolder = "{folder / "dags"}"\nrefresh_s = 0.5\n{more}\n'
        )
        loaded = settings.load(config, environ={})
        store = Store.open(loaded.database.url)
        store.upgrade()
        half = cls(
            folder=folder,
            config=config,
            settings=loaded,
            store=store,
            app=celery_app.build(loaded, "scheduler"),
        )
        if dag:
            half.copy_dag(dag)
        return half

    def copy_dag(self, name: str) -> None:
        """Put a file of `dagfiles/` into the folder."""
        shutil.copy(Path(__file__).parent / "dagfiles" / f"{name}.py", self.folder / "dags")

    def notes(self) -> list[str]:
        """What the bodies of `dagfiles/` noted."""
        notes = self.folder / "notes"
        return notes.read_text().split() if notes.exists() else []

    def write_dag(self, text: str, name: str = "dag.py") -> None:
        """Put a DAG file into the folder."""
        (self.folder / "dags" / name).write_text("from routing import *\n" + textwrap.dedent(text))

    @contextlib.contextmanager
    def worker(
        self, *, concurrency: int = 2, name: str = "worker@test", queues: str = "default"
    ) -> Iterator[parts.subprocess.Popen[bytes]]:
        """A prefork worker as a process."""
        process = parts.start(
            [sys.executable, "-c", WORKER, self.config, str(concurrency), name, queues], log=self.folder / "worker.log"
        )
        try:
            yield process
        finally:
            parts.stop(process, how=signal.SIGKILL)  # its children die with it; a warm shutdown takes seconds

    @contextlib.contextmanager
    def scheduler(self) -> Iterator[threading.Event]:
        """The scheduler in a thread of this process."""
        stop = threading.Event()
        thread = threading.Thread(target=service.run, args=(self.settings,), kwargs={"stop": stop})
        thread.start()
        try:
            yield stop
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive(), "the scheduler does not stop"

    def trigger(self, dag_id: str) -> rows.RunRow:
        """Start a run as soon as the DAG is known."""
        parts.eventually(lambda: self.store.dag(dag_id), 20, what=f"DAG {dag_id} is loaded")
        run = self.store.create_run(dag_id, at=datetime.now(UTC))
        backend.wake(self.app)
        return run

    def wait(self, run: rows.RunRow, *, timeout_s: float = 30) -> rows.RunRow:
        """The run once it has ended."""
        return parts.eventually(lambda: self._ended(run), timeout_s, what=f"run {run.run_id} ended")

    def _ended(self, run: rows.RunRow) -> rows.RunRow | None:
        row = self.store.run(run.run_id, dag_id=run.dag_id)
        return row if row and row.state in ("success", "failed", "cancelled") else None

    def task(self, run: rows.RunRow, task_id: str) -> rows.TaskRow:
        """One task of a run."""
        return next(task for task in self.store.tasks(run.run_id, dag_id=run.dag_id) if task.task_id == task_id)

    def wait_task(
        self, run: rows.RunRow, task_id: str, is_so: Callable[[rows.TaskRow], object], *, timeout_s: float = 30
    ) -> rows.TaskRow:
        """A task once `is_so` holds."""

        def look() -> rows.TaskRow | None:
            task = self.task(run, task_id)
            assert is_so(task), task
            return task

        return parts.eventually(look, timeout_s)

    def close(self) -> None:
        """Close connections."""
        self.store.close()
        self.app.close()
