"""One call of the command line: its common options, and the doors that it opens when first needed."""

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from routing import commands
from routing.cli.failure import Failure

if TYPE_CHECKING:
    from celery import Celery

    from dispatcher.attempts.status_store import PodStore
    from routing.cli.application import Application
    from routing.config.settings import Settings
    from routing.store.store import Store

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """Holds `--config`, `--home`, `--debug` and `--app`; commands get it by `@pass_session`."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.home: Path | None = None
        self.debug = False
        self.app: str | None = None

    @cached_property
    def settings(self) -> "Settings":
        """The settings, with `--app` those of that application's dispatcher. Raises SettingsError or Failure."""
        return self.application.settings if self.application else self._of_installation

    @cached_property
    def application(self) -> "Application | None":
        """The Celery application that `--app` names. Raises SettingsError or Failure."""
        if self.app is None:
            return None
        from routing.cli import application

        return application.load(self.app, self._of_installation)

    @cached_property
    def celery(self) -> "Celery":
        """The application whose broker and workers are meant: that of `--app`, else that of DAGs."""
        if self.application:
            return self.application.app
        from routing.worker import celery_app

        return celery_app.build(self.settings, "scheduler")

    @cached_property
    def _of_installation(self) -> "Settings":
        from routing.config import settings

        if self.home is not None:
            os.environ["PODYARD_HOME"] = str(self.home.absolute())  # processes that a command starts see the same
        loaded = settings.load(self.config)
        if self.config is not None:
            os.environ[settings.CONFIG_VARIABLE] = str(self.config.absolute())
        return loaded

    @cached_property
    def store(self) -> "Store":
        """The record, once its tables fit this code. Raises RecordError or Failure, which say what to do."""
        from routing.store import Store

        self.require_database_file()
        store = Store.open(self.settings.database.url)
        store.require_schema()
        return store

    @cached_property
    def pod_store(self) -> "PodStore":
        """The pods' table of the same database."""
        from dispatcher.attempts.status_store import PodStore

        self.require_database_file()
        return PodStore(self.settings.database.url)

    @property
    def health_folder(self) -> Path:
        """Where processes write what they lack. Raises Failure where the application's dispatcher writes nothing."""
        if self.application and self.application.options.health_folder is None:
            raise Failure(
                f"the dispatcher of {self.app} writes no health: give it a folder by health_folder in app.conf.podyard"
                " or by PODYARD_HEALTH__FOLDER, and start it again"
            )
        return self.settings.health.folder

    @property
    def database_file(self) -> Path | None:
        """The file of an SQLite database."""
        url = self.settings.database.url
        return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None

    def require_database_file(self) -> None:
        """Refuses to make an empty SQLite file just because somebody wanted to read one."""
        self.require_database()
        path = self.database_file
        if path is None or path.exists():
            return
        if self.app:
            raise Failure(
                f"there is no database at {path} yet: make it with {commands.shown('db', 'upgrade', '--app', self.app)}"
            )
        raise Failure(
            f"there is no database at {path} yet: run `podyard standalone` (or `podyard demo`) in this folder,"
            " or make one with `podyard db upgrade`; for a Celery application of your own, name it with --app"
        )

    def require_database(self) -> None:
        """Refuses what a Celery application without a database cannot answer."""
        if self.application and not self.settings.database.url:
            upgrade = commands.shown("db", "upgrade", "--app", self.app or "")
            raise Failure(
                f"the dispatcher of {self.app} keeps no record of pods: set database_url in app.conf.podyard, or"
                f" PODYARD_DATABASE__URL, make the tables with {upgrade}, and start the dispatcher again"
            )


pass_session = click.make_pass_decorator(Session)


def common_options(command: F) -> F:
    """Adds `--config`, `--home` and `--debug`: they may stand before or after the command's name."""
    options = (
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            expose_value=False,
            callback=_keep("config"),
            help="Settings file. Else PODYARD_CONFIG, else ./podyard.toml.",
        ),
        click.option(
            "--home",
            type=click.Path(path_type=Path, file_okay=False),
            expose_value=False,
            callback=_keep("home"),
            help="Folder of the embedded parts. Else PODYARD_HOME, else ./.podyard.",
        ),
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_keep("debug"),
            help="Show the traceback of a failure.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def app_option(command: F) -> F:
    """Adds `--app`, for what is asked of a Celery application as well as of an installation."""
    option = click.option(
        "--app",
        "-A",
        metavar="MODULE:APP",
        expose_value=False,
        callback=_keep("app"),
        help="A Celery application of your own, as `celery -A` has it: its pods, queues and settings are meant.",
    )
    return option(command)


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, _: click.Parameter, value: Any) -> None:
        # An option may stand before the command and after it: where it is missing it must not undo the other.
        if value:
            setattr(context.ensure_object(Session), name, value)

    return keep
