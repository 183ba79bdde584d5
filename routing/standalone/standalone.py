"""Everything on this machine under one terminal: `podyard standalone`.

Each part is a process of its own, started by the same commands that an operator would use, and reads the same settings
through `<home>/embedded.toml`. `layout` decides what is brought along, `supervisor` keeps it running.
"""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from dispatcher.manifests import redaction
from routing import commands
from routing.config import settings
from routing.monitoring import health, queue_consumers
from routing.standalone import home, layout, part, part_errors, supervisor
from routing.store import Store
from routing.worker import celery_app

Say = Callable[[str], None]
# A part's `is_ready` must answer within half a second: the supervisor has one thread for all of them.
PING_TIMEOUT_S = 0.4


@dataclass(frozen=True, kw_only=True)
class StandaloneOptions:
    """What the command line asks for; None means what the settings say."""

    config: Path | None = None
    home: Path | None = None
    dags: Path | None = None
    flower: bool = True
    flower_port: int | None = None

    def environment(self) -> dict[str, str]:
        """The same as variables: so every part reads the same settings."""
        values = {
            settings.CONFIG_VARIABLE: self.config and self.config.absolute(),
            "PODYARD_HOME": self.home and self.home.absolute(),
            layout.DAGS_VARIABLE: self.dags and self.dags.absolute(),
            "PODYARD_FLOWER__PORT": self.flower_port,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def load(self) -> settings.Settings:
        """The settings as every part will read them."""
        return settings.load(self.config, environ={**os.environ, **self.environment()})


class Stop:
    """Whether SIGINT, SIGTERM or SIGHUP came; a second one no longer waits for an orderly stop."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Answer the signals until the end of the block."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._ask) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # The first one only notes it: a part that hangs would otherwise keep the terminal for as long as its bound.
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@dataclass(kw_only=True)
class Installation:
    """The parts of one machine while they run."""

    settings: settings.Settings
    layout: layout.Layout
    store: Store
    supervisor: supervisor.Supervisor
    consumers: queue_consumers.Consumers
    say: Say
    last_line: str = ""
    """The last one about queues: the same problem is reported once."""

    @property
    def is_ready(self) -> bool:
        """Whether every part is ready now."""
        return self.supervisor.is_ready

    def tick(self) -> None:
        """Keep the parts running, and let them consume the queues that DAGs use; call it a few times per second."""
        self.supervisor.tick()
        if self.is_ready and self.consumers.is_due():
            self._look_at_queues()

    def _look_at_queues(self) -> None:
        try:
            lines = self.consumers.look(self.store.dags(), self.supervisor.pids())
        except Exception as error:  # the database may be away for a while: the parts are kept running
            lines = [f"the queues of DAGs are not known now: {_first_line(error)}"]
        for line in lines:
            if line != self.last_line:
                self.say(line)
            self.last_line = line


def run(options: StandaloneOptions, *, say: Say) -> None:
    """Start everything, say where to look, and keep it running until SIGINT, SIGTERM or SIGHUP.

    Raises EmbeddedError, SettingsError or RecordError for what cannot be started.
    """
    begun_mono_s = time.monotonic()
    say = _stamped(say)
    with Stop().listening() as stop:
        with started(options, say=say) as installation:
            said = False
            while not stop.asked:
                installation.tick()
                if installation.is_ready and not said:
                    said = True
                    say(f"all parts are ready after {time.monotonic() - begun_mono_s:.1f} s; Ctrl-C stops them")
                    for line in _where_to_look(installation):
                        say(line)
                time.sleep(supervisor.TICK_S)
            say("stopping")
        say("stopped; nothing is left running")


@contextlib.contextmanager
def started(options: StandaloneOptions, *, say: Say) -> Iterator[Installation]:
    """The parts of one machine, being started; the caller ticks. The end of the block stops them all."""
    folder = options.load().home
    with home.locked(folder) as lock, contextlib.ExitStack() as undo:
        leftover = folder / home.SETTINGS_FILE
        leftover.unlink(missing_ok=True)  # of a standalone that was killed
        # Before the settings are read, since every part has to read the same port.
        options = _with_free_port(options)
        known = options.load()
        if options.flower:
            part.require_free_port(known.flower.address, known.flower.port, setting="--flower-port or flower.port")
        _make_dags_folder(known.dags.folder, say)
        plan = layout.Layout.of(known, environment=options.environment(), with_flower=options.flower)
        home.write_settings(folder, plan.sections())
        undo.callback(leftover.unlink, missing_ok=True)  # the addresses in it answer no more then
        now = options.load()
        store = undo.enter_context(contextlib.closing(Store.open(now.database.url)))
        # Before the parts start: a scheduler refuses a database of another revision (D10).
        store.upgrade()
        # That role's app only sends and asks, and does not become the current app of this process.
        app = celery_app.build(now, role="scheduler")
        undo.callback(app.close)
        parts = plan.parts(_checks(app, store))
        # Entered last, so it is left first: the parts stop while their settings and the database are still there.
        running = undo.enter_context(supervisor.Supervisor(parts, say=say, guarded_files=[lock]))
        yield Installation(
            settings=now,
            layout=plan,
            store=store,
            supervisor=running,
            consumers=queue_consumers.Consumers(app, now.router),
            say=say,
        )


def _stamped(say: Say) -> Say:
    return lambda line: say(f"{datetime.now().astimezone():%H:%M:%S} {line}")


def _with_free_port(options: StandaloneOptions) -> StandaloneOptions:
    """Port 0 means any free one: it is chosen here, so that it can be printed."""
    if options.flower and options.load().flower.port == 0:
        return dataclasses.replace(options, flower_port=layout.free_port())
    return options


def _make_dags_folder(folder: Path, say: Say) -> None:
    if not folder.exists():
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise part_errors.EmbeddedError(
                f"there is no folder {folder} and it cannot be made ({error.strerror}): choose one with --dags"
            ) from error
        say(f"made the folder {folder}: put DAG files there")
    elif not folder.is_dir():
        raise part_errors.EmbeddedError(f"{folder} is not a folder: choose the folder of DAG files with --dags")


def _checks(app: Any, store: Store) -> layout.Checks:
    since = datetime.now(UTC)

    def is_scheduling() -> bool:
        try:
            return health.is_scheduling(store, since=since)
        except Exception:  # a database that is away for a moment is no reason to stop all parts
            return False

    return layout.Checks(
        is_answering=lambda name: health.is_answering(app, name, timeout_s=PING_TIMEOUT_S),
        is_scheduling=is_scheduling,
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def _where_to_look(installation: Installation) -> list[str]:
    now, plan = installation.settings, installation.layout
    home_variable = {} if now.home == Path.cwd() / ".podyard" else {"PODYARD_HOME": now.home}
    lines = [
        f"DAG files    {now.dags.folder}",
        f"database     {redaction.hide_text(now.database.url)}",
        f"logs         {now.logs.folder} (of tasks), {now.home / 'parts'} (of the parts)",
    ]
    if plan.cluster_port:
        kubectl = commands.plain("--kubeconfig", plan.kubeconfig, "get", "pods", program="kubectl")
        lines.append(f"pods         {kubectl}")
    if plan.flower:
        user, _, password = (now.flower.basic_auth or "").partition(":")
        lines.append(f"Flower       http://{plan.flower}  (user {user}, password {password})")
    tries = (("dags", "list"), ("dags", "trigger", "DAG", "--wait"))
    first, second = (commands.plain(*words, environment=home_variable) for words in tries)
    return [*lines, f"try          {first}", f"             {second}"]
