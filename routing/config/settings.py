"""The settings: one reader for every process and every command.

Later wins: defaults, the file (`--config`, else `PODYARD_CONFIG`, else `./podyard.toml`), the file that a running
standalone leaves in the home folder (only for keys that the first file does not set), the environment
(`PODYARD_SECTION__KEY`, `PODYARD_QUEUES__KUBERNETES__MAX_PODS`). Each value remembers where it came from. Everything
that is wrong is gathered and reported at once, one line each: where, key, value, what is allowed.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dispatcher import constraints, policy
from dispatcher.manifests import redaction
from dispatcher.options import QueueProfile
from dispatcher.settings import layers, reading
from dispatcher.settings import sections as shared
from routing import router as rules
from routing.config import files, sections

CONFIG_VARIABLE = layers.CONFIG_VARIABLE
HOME_VARIABLE = "PODYARD_HOME"
POD_APP = "routing.worker.run:pod_app"
"""What a pod of a DAG's task imports."""
EMBEDDED_NAME = "embedded.toml"
DEFAULT = "default"
"""The source of a value that nobody set."""


class SettingsError(Exception):
    """Settings that cannot be used. `problems` holds one line for each mistake; the text is the first and a count."""

    def __init__(self, *problems: str) -> None:
        more = f" (and {len(problems) - 1} more; `podyard config check` lists them)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One setting as people may see it."""

    key: str
    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a process of this installation needs to know; see `routing.config.sections` for the keys."""

    deployment: str
    home: Path
    broker: sections.Broker
    results: sections.Results
    database: shared.Database
    dags: sections.Dags
    logs: shared.Logs
    health: shared.Health
    scheduler: sections.Scheduler
    worker: sections.Worker
    kubernetes: shared.Kubernetes
    policy: policy.Policy
    celery_patches: shared.CeleryPatches
    flower: sections.Flower
    router: rules.Router
    source: Mapping[str, str]
    """Where each key's value came from; a key that is missing here has its default."""
    rule_source: Mapping[str, str]
    """Where each rule of `queues` begins; the default rule is missing here unless it was touched."""
    files: tuple[Path, ...]
    """The files that were read."""

    @property
    def queues(self) -> Mapping[str, rules.QueueRule]:
        """The rules by name, in the order in which they are asked; `Router.from_mapping` takes them too."""
        return {rule.name: rule for rule in self.router.rules}

    def redacted(self) -> list[Shown]:
        """Every setting with its source; passwords are hidden."""
        return [
            Shown(key=key, value=_shown(key, value), source=self.source.get(key, DEFAULT))
            for key, value in self._values()
        ]

    def _values(self) -> Iterator[tuple[str, Any]]:
        for section, table in sections.TABLES.items():
            for name in constraints.keys_of(table):
                holder = getattr(self, section) if section else self
                yield f"{section}.{name}" if section else name, getattr(holder, name)
        for rule in self.router.rules:
            yield layers.spell(("queues", rule.name, "side")), rule.side
            for name, value in vars(rule.profile).items():
                if rule.side == "kubernetes" or (name == "waits" and value):
                    yield layers.spell(("queues", rule.name, name)), value


def load(path: Path | None = None, *, environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Settings:
    """The settings of this process.

    Args:
        path: the file that `--config` names; it must exist.
        environ: where `PODYARD_…` variables are looked up.
        cwd: relative paths from defaults and environment count from here; those in a file count from its folder.

    Raises SettingsError.
    """
    cwd = (cwd or Path.cwd()).absolute()
    read = _layers(cwd)
    found = []
    try:
        file = _file(path, environ, cwd)
        if file is not None:
            found.append(file)
            files.read(read, file)
        embedded = _home(read, environ) / EMBEDDED_NAME
        if embedded.is_file():
            found.append(embedded)
            # Read apart and laid below: what the user wrote wins over what
            # `standalone` chose, the environment over both.
            below = _layers(cwd)
            files.read(below, embedded)
            read.add_below(below)
    except files.Unreadable as error:
        raise SettingsError(str(error)) from error
    read.add_environment(environ)
    return _settings(read, tuple(found))


def iter_help() -> Iterator[tuple[str, str, str]]:
    """Each key outside of `queues`, what it does and what is allowed: for docs and their test."""
    for section, table in sections.TABLES.items():
        for name, one in constraints.keys_of(table).items():
            yield layers.spell((section, name) if section else (name,)), one.description, one.allowed


def _layers(cwd: Path) -> layers.Layers:
    return layers.Layers(tables=sections.TABLES, cwd=cwd)


def _file(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named, by = (str(path), "--config") if path else (environ.get(CONFIG_VARIABLE), CONFIG_VARIABLE)
    if not named:
        default = cwd / files.FILE_NAME
        return default if default.exists() else None
    file = cwd / layers.expanded(named)
    if not file.exists():
        raise SettingsError(f"{named}: the file that {by} names does not exist; correct the name or create the file")
    return file


def _home(read: layers.Layers, environ: Mapping[str, str]) -> Path:
    """The home folder, asked for before all layers are there: it holds one of them."""
    variable = environ.get(HOME_VARIABLE)
    return read.cwd / layers.expanded(variable) if variable else _top(read).home


def _top(read: layers.Layers) -> sections.Top:
    """The keys outside of sections, as far as they are read."""
    top: sections.Top = reading.section(read, "")
    return replace(top, home=read.cwd / top.home)


def _settings(read: layers.Layers, found_files: tuple[Path, ...]) -> Settings:
    """The settings. Raises SettingsError with every mistake."""
    top = _top(read)
    defaults: dict[str, dict[str, object]] = {
        "database": {"url": f"sqlite:///{top.home / 'podyard.db'}"},
        "dags": {"folder": read.cwd / "dags"},
        "logs": {"folder": top.home / "logs"},
        "health": {"folder": top.home / "health"},
        "kubernetes": {"app": POD_APP},
    }
    found = {name: reading.section(read, name, defaults=defaults.get(name)) for name in sections.SECTIONS}
    routes = _router(read, found["kubernetes"])
    if read.problems or routes is None:
        raise SettingsError(*dict.fromkeys(read.problems))
    return Settings(
        deployment=top.deployment,
        home=top.home,
        router=routes,
        source={layers.spell(key): value.place for key, value in read.values.items()},
        rule_source=read.rules,
        files=found_files,
        **found,
    )


def _router(read: layers.Layers, kubernetes: shared.Kubernetes) -> rules.Router | None:
    defaults = QueueProfile(namespace=kubernetes.namespace)
    try:
        return rules.Router.from_mapping({"queues": reading.rules(read)}, defaults=defaults)
    except rules.InvalidRules as error:
        for problem in error.problems:
            about = read.values.get(("queues", problem.queue, problem.key or ""))
            read.add_problem(about.place if about else read.rules.get(problem.queue, "settings"), str(problem))
        return None


def _shown(key: str, value: Any) -> Any:
    """The value as people may see it, as plain data."""
    if key == "flower.basic_auth" and value is not None:
        return redaction.hide_pair(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping) and all(isinstance(one, int) for one in value.values()):
        return dict(value)  # a table of limits: its names may look like anything
    return redaction.hide(value)
