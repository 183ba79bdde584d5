"""The settings: one reader for every process and every command.

Later wins: defaults, the file (`--config`, else `PODYARD_CONFIG`, else `./podyard.toml`), the file that a running
standalone leaves in the home folder (only for keys that the first file does not set), the environment
(`PODYARD_SECTION__KEY`, `PODYARD_QUEUES__KUBERNETES__MAX_PODS`). Each value remembers where it came from. Everything
that is wrong is gathered and told at once, one line each: where, key, value, what is allowed.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dispatcher.options import QueueProfile
from routing import redaction, sections, templates, tomllines
from routing import router as rules

PREFIX = "PODYARD_"
CONFIG_VARIABLE = "PODYARD_CONFIG"
HOME_VARIABLE = "PODYARD_HOME"
FILE_NAME = "podyard.toml"
EMBEDDED_NAME = "embedded.toml"
DEFAULT = "default"
"""The source of a value that nobody set."""

KeyPath = tuple[str, ...]
"""("deployment",), ("broker", "url") or ("queues", "gpu-*", "max_pods")."""


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
    """Everything that a process of this installation needs to know; see `routing.sections` for the keys."""

    deployment: str
    home: Path
    broker: sections.Broker
    results: sections.Results
    database: sections.Database
    dags: sections.Dags
    logs: sections.Logs
    scheduler: sections.Scheduler
    worker: sections.Worker
    kubernetes: sections.Kubernetes
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
        shown = [
            Shown(key=key, value=getattr(self, key), source=self._source(key)) for key in sections.Top.model_fields
        ]
        for section, model in sections.SECTIONS.items():
            for name in model.model_fields:
                key, value = f"{section}.{name}", getattr(getattr(self, section), name)
                shown.append(Shown(key=key, value=_hide(key, value), source=self._source(key)))
        for rule in self.router.rules:
            values = {"side": rule.side} | (vars(rule.profile) if rule.side == "kubernetes" else {})
            for name, value in values.items():
                key = _spell(("queues", rule.name, name))
                shown.append(Shown(key=key, value=_hide(key, value), source=self._source(key)))
        return [Shown(key=one.key, value=_plain(one.value), source=one.source) for one in shown]

    def _source(self, key: str) -> str:
        return self.source.get(key, DEFAULT)


def load(path: Path | None = None, *, environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Settings:
    """The settings of this process.

    Args:
        path: the file that `--config` names; it must exist.
        environ: where `PODYARD_…` variables are looked up.
        cwd: relative paths from defaults and environment count from here; those in a file count from its folder.

    Raises SettingsError.
    """
    return _Reader(environ=environ, cwd=(cwd or Path.cwd()).absolute()).read(path)


@dataclass(frozen=True)
class _Value:
    """A value as written, and where."""

    raw: Any
    source: str
    base: Path
    """What a relative path in it counts from."""


class _Reader:
    """Gathers layers and problems of one reading."""

    def __init__(self, *, environ: Mapping[str, str], cwd: Path) -> None:
        self.environ = environ
        self.cwd = cwd
        self.values: dict[KeyPath, _Value] = {}
        self.headers: dict[str, str] = {}
        """Queue name -> where its rule begins."""
        self.problems: list[str] = []
        self.files: list[Path] = []

    def read(self, path: Path | None) -> Settings:
        self._read_file(self._file(path))
        embedded = self._home() / EMBEDDED_NAME
        if embedded.is_file():
            own, self.values = self.values, {}
            self._read_file(embedded)
            self.values |= own
        self._read_environment()
        top = self._top()
        found = {name: self._section(name, home=top.home) for name in sections.SECTIONS}
        routes = self._router(found["kubernetes"])
        if self.problems or routes is None:
            raise SettingsError(*dict.fromkeys(self.problems))
        return Settings(
            deployment=top.deployment,
            home=top.home,
            router=routes,
            source={_spell(key): value.source for key, value in self.values.items()},
            rule_source=self.headers,
            files=tuple(self.files),
            **found,
        )

    def _home(self) -> Path:
        """The home folder, asked for before all layers are there: it holds one of them."""
        variable = self.environ.get(HOME_VARIABLE)
        return self.cwd / Path(variable).expanduser() if variable else self._top().home

    # Layers

    def _file(self, path: Path | None) -> Path | None:
        named, by = (str(path), "--config") if path else (self.environ.get(CONFIG_VARIABLE), CONFIG_VARIABLE)
        if not named:
            default = self.cwd / FILE_NAME
            return default if default.exists() else None
        file = self.cwd / Path(named).expanduser()
        if not file.exists():
            raise SettingsError(
                f"{named}: the file that {by} names does not exist; correct the name or create the file"
            )
        return file

    def _read_file(self, file: Path | None) -> None:
        if file is None:
            return
        shown = _shown_path(file, self.cwd)
        text = _read_text(file, shown)
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line = tomllines.line_of_error(error, text)
            raise SettingsError(f"{shown}:{line}: this is not TOML: {_one_line(error)}") from error
        except RecursionError as error:
            raise SettingsError(f"{shown}: this is not TOML that we read: it is nested too deeply") from error
        self.files.append(file)
        lines = tomllines.find_lines(text)

        def where(*path: str) -> str:
            line = tomllines.line_of(lines, path)
            return shown if line is None else f"{shown}:{line}"

        for name, content in document.items():
            if name == "queues":
                self._add_queues(content, where=where, base=file.parent)
            else:
                self._add_table(name, content, where=where, base=file.parent)

    def _add_table(self, name: str, content: object, *, where: Any, base: Path) -> None:
        if name in sections.Top.model_fields:
            self.values[(name,)] = _Value(content, where(name), base)
        elif name not in sections.SECTIONS:
            known = [*sections.Top.model_fields, *sections.SECTIONS, "queues"]
            self._add_problem(where(name), f"{name}: unknown section or key{_nearest(name, known)}")
        elif not isinstance(content, Mapping):
            self._add_problem(where(name), f"{name} = {content!r}: must be a table, [{name}]")
        else:
            for key, value in content.items():
                if key in sections.SECTIONS[name].model_fields:
                    self.values[name, key] = _Value(value, where(name, key), base)
                else:
                    known = list(sections.SECTIONS[name].model_fields)
                    self._add_problem(where(name, key), f"{_spell((name, key))}: unknown key{_nearest(key, known)}")

    def _add_queues(self, content: object, *, where: Any, base: Path) -> None:
        if not isinstance(content, Mapping):
            self._add_problem(
                where("queues"), f"queues = {content!r}: must be a table of rules, such as [queues.kubernetes]"
            )
            return
        for queue, rule in content.items():
            self.headers.setdefault(queue, where("queues", queue))
            if isinstance(rule, Mapping):
                self.values |= {
                    ("queues", queue, key): _Value(value, where("queues", queue, key), base)
                    for key, value in rule.items()
                }
            else:
                self.values["queues", queue] = _Value(rule, where("queues", queue), base)

    def _read_environment(self) -> None:
        for variable, text in self.environ.items():
            if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE or not text:
                continue  # an empty variable means "not set", as in a compose file's ${VALUE:-}
            name = variable.removeprefix(PREFIX)
            section, separator, key = name.lower().partition("__")
            if not separator:
                # Kubernetes itself sets PODYARD_PORT and the like for a Service of that name: others are not ours.
                if section in sections.Top.model_fields:
                    self.values[(section,)] = self._from_environment(variable, text, str)
            elif section == "queues":
                self._add_queue_variable(variable, text, name.partition("__")[2])
            elif section not in sections.SECTIONS:
                self._unknown_variable(variable, f"section {section!r}", [*sections.SECTIONS, "queues"], section)
            elif key not in (known := sections.SECTIONS[section].model_fields):
                self._unknown_variable(variable, f"key {key!r}", known, key)
            else:
                self.values[section, key] = self._from_environment(variable, text, sections.kind_of(section, key))

    def _add_queue_variable(self, variable: str, text: str, name: str) -> None:
        """`KUBERNETES__MAX_PODS`: the rule whose name is spelled so, in any case and with `_` for other signs."""
        spelled, _, key = name.rpartition("__")
        key = key.lower()
        if not spelled or key not in ("side", *rules.CHECKS):
            self._unknown_variable(variable, f"key {key!r}", ("side", *rules.CHECKS), key)
            return
        meant = [
            queue for queue in {rules.DEFAULT_RULE: "", **self.headers} if _spell_variable(queue) == spelled.upper()
        ]
        if len(meant) > 1:
            both = " and ".join(map(repr, meant))
            self._add_problem(_environment(variable), f"means the queues {both} alike; set it in the file")
            return
        queue = meant[0] if meant else spelled.lower()
        self.headers.setdefault(queue, _environment(variable))
        self.values["queues", queue, key] = self._from_environment(variable, text, _QUEUE_KINDS.get(key, str))

    def _from_environment(self, variable: str, text: str, kind: type[Any]) -> _Value:
        return _Value(_parse(text, kind), _environment(variable), self.cwd)

    def _unknown_variable(self, variable: str, what: str, known: Collection[str], word: str) -> None:
        self._add_problem(_environment(variable), f"unknown {what}{_nearest(word, known)}; correct or unset it")

    # Values

    def _top(self) -> sections.Top:
        top = self._validated("", {})
        assert isinstance(top, sections.Top)  # noqa: S101 - for the type checker
        return top.model_copy(update={"home": self.cwd / top.home.expanduser()})

    def _section(self, name: str, *, home: Path) -> Any:
        defaults: dict[KeyPath, object] = {
            ("database", "url"): f"sqlite:///{home / 'podyard.db'}",
            ("dags", "folder"): self.cwd / "dags",
            ("logs", "folder"): home / "logs",
        }
        return self._validated(name, {path[1]: value for path, value in defaults.items() if path[0] == name})

    def _validated(self, section: str, defaults: Mapping[str, object]) -> sections.Section:
        """The section's model; what is wrong is noted, and the default stands in for it until the end of reading."""
        model = sections.model_of(section)
        prefix = (section,) if section else ()
        written = {path[-1]: value for path, value in self.values.items() if path[:-1] == prefix}
        given = {key: _converted(section, key, value) for key, value in written.items()}
        try:
            return model.model_validate({**defaults, **given})
        except ValidationError as error:
            wrong = {str(one["loc"][0]) for one in error.errors(include_input=False, include_url=False)}
        for key in sorted(wrong):
            spelled = _spell((*prefix, key))
            value = _quote(_hide(spelled, written[key].raw))
            self._add_problem(written[key].source, f"{spelled} = {value}: must be {model.model_fields[key].title}")
        return model.model_validate({**defaults, **{key: value for key, value in given.items() if key not in wrong}})

    def _router(self, kubernetes: sections.Kubernetes) -> rules.Router | None:
        written: dict[str, Any] = {queue: {} for queue in self.headers}
        for path, value in self.values.items():
            if path[0] == "queues" and len(path) == 3 and isinstance(written[path[1]], dict):
                written[path[1]][path[2]] = _template_path(value) if path[2] == "template" else value.raw
            elif path[0] == "queues" and len(path) == 2:
                written[path[1]] = value.raw
        try:
            return rules.Router.from_mapping({"queues": written}, defaults=QueueProfile(namespace=kubernetes.namespace))
        except rules.InvalidRules as error:
            for problem in error.problems:
                about = self.values.get(("queues", problem.queue, problem.key or ""))
                self._add_problem(about.source if about else self.headers.get(problem.queue, "settings"), str(problem))
            return None

    def _add_problem(self, where: str, what: str) -> None:
        self.problems.append(_one_line(f"{where}: {what}"))


_QUEUE_KINDS: Mapping[str, type[Any]] = {"max_pods": int, "keep_finished_s": float, "env": dict}
"""How a rule's key is read from the environment, where it is no text."""
_BOOLS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _parse(text: str, kind: type[Any]) -> object:
    """The value that a variable's text means; the text itself where it means none, for the model to refuse."""
    try:
        if kind is bool:
            return _BOOLS.get(text.lower(), text)
        if kind is dict:
            return json.loads(text)
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def _converted(section: str, key: str, value: _Value) -> object:
    """Paths count from where they were written; so do files of SQLite."""
    if not isinstance(value.raw, str):
        return value.raw
    if sections.kind_of(section, key) is Path:
        return value.base / Path(value.raw).expanduser() if value.raw else None
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


def _template_path(value: _Value) -> object:
    """A template that is a file is found from where it was written, not from where a process happens to run."""
    if isinstance(value.raw, str) and value.raw and templates.is_path(value.raw):
        return str(value.base / Path(value.raw).expanduser())
    return value.raw


def _read_text(file: Path, shown: str) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(
            f"{shown}: cannot be read: {error.strerror}; correct the path or its permissions"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{shown}:{line}: this is not UTF-8 text; save the file as UTF-8") from error


def _shown_path(file: Path, cwd: Path) -> str:
    return str(file.relative_to(cwd)) if file.is_relative_to(cwd) else str(file)


def _environment(variable: str) -> str:
    return f"environment variable {variable}"


def _spell(path: KeyPath) -> str:
    """The key as TOML writes it: a part with other signs than letters, digits, `_` and `-` is quoted."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in path)


def _spell_variable(queue: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", queue.upper())


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(known)}"


def _hide(key: str, value: Any) -> Any:
    if key in sections.SECRETS and isinstance(value, str):
        return redaction.hide_basic_auth(value) if key == "flower.basic_auth" else redaction.hide_url(value)
    return redaction.hide_environment(value) if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _quote(value: object) -> str:
    text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def iter_help() -> Iterator[tuple[str, str, str]]:
    """Each key outside of `queues`, what it does and what is allowed: for docs and their test."""
    for section in ("", *sections.SECTIONS):
        for name, one in sections.model_of(section).model_fields.items():
            yield _spell((section, name) if section else (name,)), str(one.description), str(one.title)
