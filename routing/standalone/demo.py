"""`podyard demo`: the shipped example from nothing to its report, shown as it runs, and then everything is stopped.

On a terminal a table follows the tasks; elsewhere each change is one line. Starts the same parts as `standalone`.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from routing import commands
from routing.standalone import part_errors, standalone, supervisor
from routing.store import rows

DAG_ID = "stdlib_census"
_ROOT = Path(__file__).parents[2]
EXAMPLES = next(
    (folder for folder in (_ROOT / "docs" / "examples", _ROOT / "podyard_examples") if folder.is_dir()),
    _ROOT / "podyard_examples",
)
"""In a source checkout, or beside the packages of an installed wheel."""
REPORT_FILE = "census-report.txt"
START_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 300.0
SETTLED = frozenset({"success", "failed", "skipped", "upstream_failed", "cancelled"})
STYLES = {"success": "green", "failed": "red", "upstream_failed": "red", "running": "cyan", "up_for_retry": "yellow"}


def run(options: standalone.StandaloneOptions, *, console: Console | None = None) -> bool:
    """Start the parts, run the example, show it, stop the parts; gives whether the run succeeded.

    Raises EmbeddedError where the parts or the example cannot be started, or nothing happens for too long.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    if not (EXAMPLES / f"{DAG_ID}.py").is_file():
        raise part_errors.EmbeddedError(
            f"the example is not installed ({EXAMPLES}): install podyard again, or run the demo from a source checkout"
        )
    begun_mono_s = time.monotonic()
    # A free port: the demo must run beside whatever has 5555 already.
    options = replace(options, dags=EXAMPLES, flower_port=0 if options.flower_port is None else options.flower_port)
    console.print("starting Valkey, SQLite, a local Kubernetes API, scheduler, worker, dispatcher and Flower …")
    with standalone.Stop().listening() as stop:
        with standalone.started(options, say=_quietly(console)) as installation:
            ended = _Show(installation, stop, console, begun_mono_s).play()
            if ended is not None:
                _conclude(console, installation, ended)
        console.print("[dim]all parts are stopped[/]" if ended else "stopped before the end")
    return ended is not None and ended.state == "success"


class _Show:
    """One play of the demo; None wherever somebody asked to stop."""

    def __init__(
        self, installation: standalone.Installation, stop: standalone.Stop, console: Console, begun_mono_s: float
    ) -> None:
        self.installation = installation
        self.stop = stop
        self.console = console
        self.begun_mono_s = begun_mono_s

    def play(self) -> rows.RunRow | None:
        """Wait for the parts, trigger the example, and follow it to its end."""
        store, home = self.installation.store, self.installation.settings.home
        if not self._wait(self._is_loaded, START_TIMEOUT_S, self._why_not_started):
            return None
        self.console.print(f"all parts are ready after {time.monotonic() - self.begun_mono_s:.1f} s")
        now = datetime.now(UTC)
        conf = {"report": str(home / REPORT_FILE)}
        run = store.create_run(DAG_ID, run_id=f"demo-{now:%Y%m%d-%H%M%S}", conf=conf, at=now)
        self.console.print(f"run {escape(run.run_id)} of {DAG_ID}: a census of this Python's standard library\n")
        with self._shown() as show:

            def is_over() -> bool:
                show(store.tasks(run.run_id, dag_id=DAG_ID))
                now = store.run(run.run_id, dag_id=DAG_ID)
                return now is not None and now.ended_at is not None

            if not self._wait(is_over, RUN_TIMEOUT_S, lambda: f"the run has not ended after {RUN_TIMEOUT_S:g} s"):
                return None
        return store.run(run.run_id, dag_id=DAG_ID)

    def _wait(self, condition: Callable[[], bool], timeout_s: float, complaint: Callable[[], str]) -> bool:
        """Tick until the condition holds; False if somebody asked to stop."""
        deadline_mono_s = time.monotonic() + timeout_s
        while not self.stop.asked:
            self.installation.tick()
            if condition():
                return True
            if time.monotonic() > deadline_mono_s:
                raise part_errors.EmbeddedError(complaint())
            time.sleep(supervisor.TICK_S)
        return False

    def _is_loaded(self) -> bool:
        return self.installation.is_ready and _is_fresh(self.installation)

    def _why_not_started(self) -> str:
        wrong = [f"{error.file}: {error.message}" for error in self.installation.store.dag_errors()]
        parts = self.installation.settings.home / "parts"
        return f"not ready after {START_TIMEOUT_S:g} s: {'; '.join(wrong) or f'see the logs in {parts}'}"

    @contextmanager
    def _shown(self) -> Iterator[Callable[[Sequence[rows.TaskRow]], None]]:
        """A function that shows the tasks as they are now."""
        # A log of CI keeps every redraw of a live table.
        if not self.console.is_terminal:
            yield _Lines(self.console).show
            return
        with Live(console=self.console, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda tasks: live.update(table(tasks), refresh=True)


class _Lines:
    """Tells each task that has settled, once, as a line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: set[str] = set()

    def show(self, tasks: Sequence[rows.TaskRow]) -> None:
        for task in tasks:
            if task.state in SETTLED and task.task_id not in self._told:
                self._told.add(task.task_id)
                cells = zip(cells_of(task), (22, 10, 10, 44, 8, 6), strict=True)
                self._console.print("  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip(), markup=False)


def table(tasks: Sequence[rows.TaskRow]) -> Table:
    """The tasks as people follow them."""
    made = Table(box=None, pad_edge=False)
    for name in ("task", "queue", "side", "ran on", "state"):
        made.add_column(name, overflow="ellipsis", no_wrap=True)
    made.add_column("seconds", justify="right")
    for task in tasks:
        *cells, state, seconds = (escape(cell) for cell in cells_of(task))
        made.add_row(*cells, f"[{STYLES.get(task.state, 'dim')}]{state}[/]", seconds)
    return made


def cells_of(task: rows.TaskRow) -> tuple[str, str, str, str, str, str]:
    """Task, queue, side, where it ran, state, seconds."""
    return (
        task.task_id,
        task.queue or "default",
        task.side or "",
        task.pod or task.host or task.waiting_reason or "",
        task.state,
        "" if task.runtime_s is None else f"{task.runtime_s:.2f}",
    )


def _is_fresh(installation: standalone.Installation) -> bool:
    dag = installation.store.dag(DAG_ID)
    return dag is not None and dag.is_active


def _quietly(console: Console) -> standalone.Say:
    """What the parts say, dimmed on a terminal."""
    return lambda line: console.print(f"[dim]  {escape(line)}[/]")


def _conclude(console: Console, installation: standalone.Installation, run: rows.RunRow) -> None:
    """The report of the run, where everything is, and what to try next."""
    now, podyard = installation.settings, _spelled()
    tasks = installation.store.tasks(run.run_id, dag_id=DAG_ID)
    sides = [task.side for task in tasks if task.state == "success"]
    console.print(
        f"\nthe run ended as {run.state} after {run.runtime_s or 0:.1f} s:"
        f" {sides.count('celery')} tasks in Celery workers, {sides.count('kubernetes')} in pods\n"
    )
    report = now.home / REPORT_FILE
    if run.state == "success" and report.is_file():
        console.print(report.read_text(encoding="utf-8"), markup=False)
    for task in tasks:
        if task.state not in {"success", "skipped"}:
            console.print(
                f"{task.task_id}: {task.state}: {task.reason or task.waiting_reason or 'no reason'}", markup=False
            )
    where = Path(os.path.relpath(now.home)) if now.home.is_relative_to(Path.cwd()) else now.home
    variable = {} if now.home == Path.cwd() / ".podyard" else {"PODYARD_HOME": where}
    tries = (
        ("runs", "show", run.run_id),
        ("tasks", "list", run.run_id),
        ("tasks", "logs", run.run_id, "count_00_kubernetes"),
        ("standalone", "--dags", os.path.relpath(EXAMPLES)),
    )
    for line in (
        f"report     {where / REPORT_FILE}",
        f"database   {where / 'podyard.db'}    logs  {where / 'logs'}",
        "",
        "try next:",
        *(f"  {commands.plain(*words, environment=variable, program=podyard)}" for words in tries),
        "",
    ):
        console.print(line, markup=False)


def _spelled() -> str:
    """How this user calls podyard."""
    return "podyard" if shutil.which("podyard") else os.path.relpath(sys.argv[0])
