"""The layers of the settings as they are written: values out of files and environment, each with where it stands.

`routing.config.settings` gathers them here, then checks them. What cannot be a setting at all (a file that is no TOML,
a key that does not exist) is found here, because only here its place is known.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routing import redaction
from routing import router as rules
from routing.config import sections, toml_lines

PREFIX = "PODYARD_"
CONFIG_VARIABLE = "PODYARD_CONFIG"
FILE_NAME = "podyard.toml"

KeyPath = tuple[str, ...]
"""("deployment",), ("broker", "url") or ("queues", "gpu-*", "max_pods")."""

Where = Callable[..., str]
"""The keys that lead to a value -> its place, such as `podyard.toml:7`."""

_QUEUE_KINDS: Mapping[str, type[Any]] = {
    "max_pods": int,
    "keep_finished_s": float,
    "schedule_timeout_s": float,
    "startup_timeout_s": float,
    "env": dict,
    "waits": dict,
    "memory_growth": float,
    "avoid_failed_nodes": bool,
}
"""How a rule's key is read from the environment, where it is no text."""
_BOOLS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class Unreadable(Exception):  # noqa: N818 - says what a file is
    """A file of settings cannot be read at all; the message is the line to tell."""


@dataclass(frozen=True)
class Value:
    """A value as written, and where."""

    raw: Any
    source: str
    base: Path
    """What a relative path in it counts from."""


@dataclass(kw_only=True)
class Layers:
    """What was read so far; a later reading wins."""

    cwd: Path
    values: dict[KeyPath, Value] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    """Queue name -> where its rule begins."""
    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """One line for each mistake."""

    def read_file(self, file: Path) -> None:
        """Reads a TOML file. Raises Unreadable."""
        shown = str(file.relative_to(self.cwd)) if file.is_relative_to(self.cwd) else str(file)
        text = _read_text(file, shown)
        document = _parse_toml(text, shown)
        self.files.append(file)
        lines = toml_lines.find_lines(text)

        def where(*path: str) -> str:
            line = toml_lines.line_of(lines, path)
            return shown if line is None else f"{shown}:{line}"

        for name, content in document.items():
            if name == "queues":
                self._add_queues(content, where=where, base=file.parent)
            else:
                self._add_table(name, content, where=where, base=file.parent)

    def read_below(self, file: Path) -> None:
        """Reads a TOML file whose values lose against those that are there already. Raises Unreadable."""
        own, self.values = self.values, {}
        self.read_file(file)
        self.values |= own

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """Reads the variables that mean settings."""
        for variable, text in environ.items():
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

    def add_problem(self, where: str, what: str) -> None:
        """Notes a mistake as one line."""
        self.problems.append(" ".join(f"{where}: {what}".split()))

    def _add_table(self, name: str, content: object, *, where: Where, base: Path) -> None:
        if name in sections.Top.model_fields:
            self.values[(name,)] = Value(content, where(name), base)
        elif name not in sections.SECTIONS:
            known = [*sections.Top.model_fields, *sections.SECTIONS, "queues"]
            self.add_problem(where(name), f"{name}: unknown section or key{_nearest(name, known)}")
        elif not isinstance(content, Mapping):
            self.add_problem(where(name), f"{name} = {quote(content)}: must be a table, [{name}]")
        else:
            for key, value in content.items():
                if key in sections.SECTIONS[name].model_fields:
                    self.values[name, key] = Value(value, where(name, key), base)
                else:
                    known = list(sections.SECTIONS[name].model_fields)
                    self.add_problem(where(name, key), f"{spell((name, key))}: unknown key{_nearest(key, known)}")

    def _add_queues(self, content: object, *, where: Where, base: Path) -> None:
        if not isinstance(content, Mapping):
            self.add_problem(
                where("queues"), f"queues = {quote(content)}: must be a table of rules, such as [queues.kubernetes]"
            )
            return
        for queue, rule in content.items():
            self.rules.setdefault(queue, where("queues", queue))
            if isinstance(rule, Mapping):
                self.values |= {
                    ("queues", queue, key): Value(value, where("queues", queue, key), base)
                    for key, value in rule.items()
                }
            else:
                self.values["queues", queue] = Value(rule, where("queues", queue), base)

    def _add_queue_variable(self, variable: str, text: str, name: str) -> None:
        """`KUBERNETES__MAX_PODS`: the rule whose name is spelled so, in any case and with `_` for other signs."""
        spelled, _, key = name.rpartition("__")
        key = key.lower()
        if not spelled or key not in ("side", *rules.CHECKS):
            self._unknown_variable(variable, f"key {key!r}", ("side", *rules.CHECKS), key)
            return
        meant = [queue for queue in {rules.DEFAULT_RULE: "", **self.rules} if _spell_variable(queue) == spelled.upper()]
        if len(meant) > 1:
            both = " and ".join(map(repr, meant))
            self.add_problem(_environment(variable), f"means the queues {both} alike; set it in the file")
            return
        queue = meant[0] if meant else spelled.lower()
        self.rules.setdefault(queue, _environment(variable))
        self.values["queues", queue, key] = self._from_environment(variable, text, _QUEUE_KINDS.get(key, str))

    def _from_environment(self, variable: str, text: str, kind: type[Any]) -> Value:
        return Value(_parse(text, kind), _environment(variable), self.cwd)

    def _unknown_variable(self, variable: str, what: str, known: Collection[str], word: str) -> None:
        self.add_problem(_environment(variable), f"unknown {what}{_nearest(word, known)}; correct or unset it")


def spell(path: KeyPath) -> str:
    """The key as TOML writes it: a part with other signs than letters, digits, `_` and `-` is quoted."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in path)


def expanded(path: str) -> Path:
    """The path with `~` replaced; one of a user that does not exist stays as it is, to be told as missing."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def quote(value: object) -> str:
    """A value as an error shows it: short, and without the password of a URL."""
    text = repr(redaction.hide_url(value) if isinstance(value, str) else value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _read_text(file: Path, shown: str) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Unreadable(f"{shown}: cannot be read: {error.strerror}; correct the path or its permissions") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Unreadable(f"{shown}:{line}: this is not UTF-8 text; save the file as UTF-8") from error


def _parse_toml(text: str, shown: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = toml_lines.line_of_error(error, text)
        raise Unreadable(f"{shown}:{line}: this is not TOML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise Unreadable(f"{shown}: this is not TOML that we read: it is nested too deeply") from error


def _parse(text: str, kind: type[Any]) -> object:
    """The value that a variable's text means; the text itself where it means none, for the model to refuse."""
    try:
        if kind is bool:
            return _BOOLS.get(text.lower(), text)
        if kind is dict:
            return json.loads(text)
        if kind is list:
            return [part.strip() for part in text.split(",") if part.strip()]
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def _environment(variable: str) -> str:
    return f"environment variable {variable}"


def _spell_variable(queue: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", queue.upper())


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(known)}"
