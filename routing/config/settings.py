"""The settings: one reader for every process and every command.

Later wins: defaults, the file (`--config`, else `PODYARD_CONFIG`, else `./podyard.toml`), the file that a running
standalone leaves in the home folder (only for keys that the first file does not set), the environment
(`PODYARD_SECTION__KEY`, `PODYARD_QUEUES__KUBERNETES__MAX_PODS`). Each value remembers where it came from. Everything
that is wrong is gathered and told at once, one line each: where, key, value, what is allowed.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dispatcher.options import QueueProfile
from routing import redaction, template_files
from routing import router as rules
from routing.config import layers, sections

CONFIG_VARIABLE = layers.CONFIG_VARIABLE
HOME_VARIABLE = "PODYARD_HOME"
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
    database: sections.Database
    dags: sections.Dags
    logs: sections.Logs
    health: sections.Health
    scheduler: sections.Scheduler
    worker: sections.Worker
    kubernetes: sections.Kubernetes
    policy: sections.Policy
    flower: sections.Flower
    router: rules.Router
    source: Mapping[str, str]
    """Where each key's value came from; a key that is missing here has its default."""
    rule_source: Mapping[str, str]
    """Where each rule of `queues` begins; the default rule is missing here unless it was touched."""
    files: tuple[Path, ...]
    """The files that were read."""

    @property
    def queues(self) -> Mapping[str, rules.Rule]:
        """The rules by name, in the order in which they are asked; `Router.from_mapping` takes them too."""
        return {rule.name: rule for rule in self.router.rules}

    def redacted(self) -> list[Shown]:
        """Every setting with its source; passwords are hidden."""
        return [
            Shown(key=key, value=_shown(key, value), source=self.source.get(key, DEFAULT))
            for key, value in self._values()
        ]

    def _values(self) -> Iterator[tuple[str, Any]]:
        for name in sections.Top.model_fields:
            yield name, getattr(self, name)
        for section, model in sections.SECTIONS.items():
            for name in model.model_fields:
                yield f"{section}.{name}", getattr(getattr(self, section), name)
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
    read = layers.Layers(cwd=cwd)
    checker = _Checker(read)
    try:
        file = _file(path, environ, cwd)
        if file is not None:
            read.read_file(file)
        embedded = _home(checker, environ, cwd) / EMBEDDED_NAME
        if embedded.is_file():
            read.read_below(embedded)
    except layers.Unreadable as error:
        raise SettingsError(str(error)) from error
    read.read_environment(environ)
    return checker.settings()


def iter_help() -> Iterator[tuple[str, str, str]]:
    """Each key outside of `queues`, what it does and what is allowed: for docs and their test."""
    for section in ("", *sections.SECTIONS):
        for name, one in sections.model_of(section).model_fields.items():
            yield layers.spell((section, name) if section else (name,)), str(one.description), str(one.title)


def _file(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named, by = (str(path), "--config") if path else (environ.get(CONFIG_VARIABLE), CONFIG_VARIABLE)
    if not named:
        default = cwd / layers.FILE_NAME
        return default if default.exists() else None
    file = cwd / layers.expanded(named)
    if not file.exists():
        raise SettingsError(f"{named}: the file that {by} names does not exist; correct the name or create the file")
    return file


def _home(checker: "_Checker", environ: Mapping[str, str], cwd: Path) -> Path:
    """The home folder, asked for before all layers are there: it holds one of them."""
    variable = environ.get(HOME_VARIABLE)
    return cwd / layers.expanded(variable) if variable else checker.top().home


class _Checker:
    """Turns what was read into settings; mistakes join those of the layers."""

    def __init__(self, read: layers.Layers) -> None:
        self.read = read

    def settings(self) -> Settings:
        """The settings. Raises SettingsError with every mistake."""
        top = self.top()
        found = {name: self._section(name, home=top.home) for name in sections.SECTIONS}
        routes = self._router(found["kubernetes"])
        if self.read.problems or routes is None:
            raise SettingsError(*dict.fromkeys(self.read.problems))
        return Settings(
            deployment=top.deployment,
            home=top.home,
            router=routes,
            source={layers.spell(key): value.source for key, value in self.read.values.items()},
            rule_source=self.read.rules,
            files=tuple(self.read.files),
            **found,
        )

    def top(self) -> sections.Top:
        """The keys outside of sections, as far as they are read."""
        top = self._validated("", {})
        assert isinstance(top, sections.Top)  # noqa: S101 - for the type checker
        return top.model_copy(update={"home": self.read.cwd / top.home})

    def _section(self, name: str, *, home: Path) -> Any:
        defaults: dict[layers.KeyPath, object] = {
            ("database", "url"): f"sqlite:///{home / 'podyard.db'}",
            ("dags", "folder"): self.read.cwd / "dags",
            ("logs", "folder"): home / "logs",
            ("health", "folder"): home / "health",
        }
        return self._validated(name, {path[1]: value for path, value in defaults.items() if path[0] == name})

    def _validated(self, section: str, defaults: Mapping[str, object]) -> sections.Section:
        """The section's model; what is wrong is noted, and the default stands in for it until the end of reading."""
        model = sections.model_of(section)
        prefix = (section,) if section else ()
        written = {path[-1]: value for path, value in self.read.values.items() if path[:-1] == prefix}
        given = {key: _converted(section, key, value) for key, value in written.items()}
        try:
            return model.model_validate({**defaults, **given})
        except ValidationError as error:
            wrong = {str(one["loc"][0]) for one in error.errors(include_input=False, include_url=False)}
        for key in sorted(wrong):
            spelled = layers.spell((*prefix, key))
            value = layers.quote(_shown(spelled, written[key].raw))
            self.read.add_problem(written[key].source, f"{spelled} = {value}: must be {model.model_fields[key].title}")
        return model.model_validate({**defaults, **{key: value for key, value in given.items() if key not in wrong}})

    def _router(self, kubernetes: sections.Kubernetes) -> rules.Router | None:
        written: dict[str, Any] = {queue: {} for queue in self.read.rules}
        for path, value in self.read.values.items():
            if path[0] == "queues" and len(path) == 3 and isinstance(written[path[1]], dict):
                written[path[1]][path[2]] = _template_path(value) if path[2] == "template" else value.raw
            elif path[0] == "queues" and len(path) == 2:
                written[path[1]] = value.raw
        try:
            return rules.Router.from_mapping({"queues": written}, defaults=QueueProfile(namespace=kubernetes.namespace))
        except rules.InvalidRules as error:
            for problem in error.problems:
                about = self.read.values.get(("queues", problem.queue, problem.key or ""))
                self.read.add_problem(
                    about.source if about else self.read.rules.get(problem.queue, "settings"), str(problem)
                )
            return None


def _converted(section: str, key: str, value: layers.Value) -> object:
    """Paths count from where they were written; so do files of SQLite."""
    if not isinstance(value.raw, str):
        return value.raw
    if sections.kind_of(section, key) is Path:
        return value.base / layers.expanded(value.raw) if value.raw else None
    if (section, key) == ("database", "url"):
        return _database_url(value.raw, value.base)
    return value.raw


def _database_url(url: str, base: Path) -> str:
    """A driver that we ship for PostgreSQL's plain URLs; an absolute file for SQLite."""
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg{separator}{rest}"
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1 and not rest.startswith("/:memory:"):
        return f"sqlite:///{base / rest[1:]}"
    return url


def _template_path(value: layers.Value) -> object:
    """A template that is a file is found from where it was written, not from where a process happens to run."""
    if isinstance(value.raw, str) and value.raw and template_files.is_path(value.raw):
        return str(value.base / layers.expanded(value.raw))
    return value.raw


def _shown(key: str, value: Any) -> Any:
    """The value as people may see it, as plain data."""
    if key in sections.SECRETS and isinstance(value, str):
        return redaction.hide_basic_auth(value) if key == "flower.basic_auth" else redaction.hide_url(value)
    if isinstance(value, Mapping):
        return dict(value) if key in sections.PLAIN_TABLES else redaction.hide_environment(value)
    return str(value) if isinstance(value, Path) else value
