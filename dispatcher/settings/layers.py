"""The layers of the settings as they are written: values out of files, applications and environment, each with its
place.

Whoever reads settings gathers them here, then has them checked by `dispatcher.settings.reading`. What cannot be a
setting at all (a key that does not exist) is found here, because only here its place is known. Reads no file itself.
"""

import difflib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dispatcher import constraints
from dispatcher.manifests import redaction
from dispatcher.options import QueueProfile
from dispatcher.settings.sections import KeyPath

PREFIX = "PODYARD_"
CONFIG_VARIABLE = "PODYARD_CONFIG"
DEFAULT_RULE = "kubernetes"
"""The rule of queues that exists without being written."""


class Source(Protocol):
    """Where settings are written: a file, or an application."""

    @property
    def base(self) -> Path:
        """What relative paths in it count from."""

    def place(self, *path: str) -> str:
        """Where a value stands to which these keys lead, such as `podyard.toml:7`."""


# Everything else that begins with our prefix must mean a setting, so that a misspelt one is found.
_OTHERS = re.compile(
    r"PODYARD_(CONFIG|APP|MESSAGE|MESSAGE_FILE|RESULT_MAX_BYTES|CREDENTIALS|TERMINATION_\w+|LOCAL_CLUSTER_FAULTS"
    r"|IMAGE|USER|NAMESPACE|CTX_\w+|TEST_\w+|CHAOS_\w+|UPDATE_GOLDEN)"
)
"""Variables that are no settings but mean something elsewhere: to pods and their tasks, compose.yaml, options,
tests."""
# A Service named podyard gives every pod of its namespace such variables (`enableServiceLinks`).
_SERVICE = re.compile(r"PODYARD_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True)
class Value:
    """A value as written, and where."""

    raw: Any
    place: str
    base: Path
    """What a relative path in it counts from."""


@dataclass(kw_only=True)
class Layers:
    """What was read so far; a later reading wins."""

    tables: Mapping[str, type[Any]]
    """Section -> its table; "" for the keys outside of sections."""
    cwd: Path
    ignored: Collection[str] = ()
    """Sections and keys that are others' and no mistake in the environment."""
    has_sides: bool = True
    """Whether rules of queues say which side runs them."""
    values: dict[KeyPath, Value] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    """Queue name -> where its rule begins."""
    problems: list[str] = field(default_factory=list)
    """One line for each mistake."""

    def keys(self, section: str) -> Mapping[str, constraints.Key]:
        """The keys of a section; "" for those outside of sections."""
        return constraints.keys_of(self.tables[section])

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of the sections."""
        return tuple(name for name in self.tables if name)

    @property
    def rule_keys(self) -> tuple[str, ...]:
        """What a rule of a queue may say."""
        return (*(("side",) if self.has_sides else ()), *constraints.keys_of(QueueProfile))

    def add_document(self, document: Mapping[str, Any], source: Source) -> None:
        """Adds what a file of settings holds."""
        for name, content in document.items():
            if name == "queues":
                self.add_queues(content, source)
            elif name in self.keys(""):
                self.values[(name,)] = Value(content, source.place(name), source.base)
            elif name in self.sections:
                self._add_section(name, content, source)
            else:
                known = [*self.keys(""), *self.sections, "queues"]
                self.add_problem(source.place(name), f"{name}: unknown section or key{_nearest(name, known)}")

    def add_below(self, other: "Layers") -> None:
        """Adds layers whose values lose against those that are there already."""
        # `|` takes the right side where both have a key.
        self.values = other.values | self.values
        self.rules = other.rules | self.rules
        self.problems += other.problems

    def add_application(self, given: Mapping[str, Any], source: Source, *, keys: Mapping[str, KeyPath]) -> None:
        """Adds what a Celery application says in flat keys; None means "not set"."""
        for name, content in given.items():
            if name == "queues":
                self.add_queues(content or {}, source)
            elif name not in keys:
                self.add_problem(source.place(), f"unknown key {name!r}{_nearest(str(name), [*keys, 'queues'])}")
            elif content is None:
                continue
            elif len(keys[name]) == 1 and keys[name][0] in self.sections:
                self._add_section(name, content, source)
            else:
                self.values[keys[name]] = Value(content, source.place(name), source.base)

    def add_queues(self, content: object, source: Source) -> None:
        """Adds rules of queues: a table of tables."""
        if not isinstance(content, Mapping):
            wrong = f"queues = {quote(content)}: must be a table of rules, such as [queues.kubernetes]"
            self.add_problem(source.place("queues"), wrong)
            return
        for queue, rule in content.items():
            # The first place stays: a later layer changes single keys of a rule that was begun there.
            self.rules.setdefault(queue, source.place("queues", queue))
            if isinstance(rule, Mapping):
                self.values |= {
                    ("queues", queue, key): Value(value, source.place("queues", queue, key), source.base)
                    for key, value in rule.items()
                }
            else:
                self.values["queues", queue] = Value(rule, source.place("queues", queue), source.base)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Adds the variables that mean settings. One that means nothing is a mistake, with the nearest that exists."""
        for variable, text in environ.items():
            # An empty variable means "not set", as in a compose file's ${VALUE:-}.
            if not variable.startswith(PREFIX) or not text or _is_of_others(variable, text):
                continue
            # Two underscores: keys have one in them.
            section, separator, key = variable.removeprefix(PREFIX).lower().partition("__")
            if not separator:
                self._add_top_variable(variable, text, section)
            elif section == "queues":
                self._add_queue_variable(variable, text, variable.removeprefix(f"{PREFIX}QUEUES__"))
            elif section in self.ignored or f"{section}.{key}" in self.ignored:
                continue
            # After what is ignored: an installation's own sections are no mistake in an environment that both share.
            elif section not in self.sections:
                self._unknown_variable(variable, f"section {section!r}", [*self.sections, "queues"], section)
            elif key not in (known := self.keys(section)):
                self._unknown_variable(variable, f"key {key!r}", list(known), key)
            else:
                self.values[section, key] = self._from_environment(variable, text, known[key])

    def add_problem(self, place: str, what: str) -> None:
        """Notes a mistake as one line."""
        self.problems.append(" ".join(f"{place}: {what}".split()))

    def _add_section(self, name: str, content: object, source: Source) -> None:
        if not isinstance(content, Mapping):
            self.add_problem(source.place(name), f"{name} = {quote(content)}: must be a table, [{name}]")
            return
        known = self.keys(name)
        for key, value in content.items():
            if key in known:
                self.values[name, key] = Value(value, source.place(name, key), source.base)
            else:
                self.add_problem(source.place(name, key), f"{spell((name, key))}: unknown key{_nearest(key, known)}")

    def _add_top_variable(self, variable: str, text: str, name: str) -> None:
        if name in self.keys(""):
            self.values[(name,)] = self._from_environment(variable, text, self.keys("")[name])
        elif name not in self.ignored:
            # Always one, however far off: whoever set it meant something.
            near = difflib.get_close_matches(variable, self._variables(), n=1, cutoff=0.0)
            self.add_problem(
                _environment(variable), f"no setting has this name; the nearest is {near[0]}; correct or unset it"
            )

    def _add_queue_variable(self, variable: str, text: str, name: str) -> None:
        """`KUBERNETES__MAX_PODS`: the rule whose name is spelled so, in any case and with `_` for other characters."""
        # From the right: a queue's name may have two underscores in it.
        spelled, _, key = name.rpartition("__")
        key = key.lower()
        if not self.has_sides and key == "side":
            return  # of an installation that shares the environment: a Celery application has no sides
        if not spelled or key not in self.rule_keys:
            self._unknown_variable(variable, f"key {key!r}", self.rule_keys, key)
            return
        # A variable cannot spell dots, dashes and small letters: the rule
        # that is meant is found by spelling all known ones the same way.
        meant = [queue for queue in {DEFAULT_RULE: "", **self.rules} if spell_variable(queue) == spelled.upper()]
        if len(meant) > 1:
            both = " and ".join(map(repr, meant))
            self.add_problem(_environment(variable), f"means the queues {both} alike; set it in the file")
            return
        # A rule that no file has is made by its first variable, in small letters: those of a variable are capitals.
        queue = meant[0] if meant else spelled.lower()
        self.rules.setdefault(queue, _environment(variable))
        one = constraints.keys_of(QueueProfile).get(key)
        self.values["queues", queue, key] = self._from_environment(variable, text, one)

    def _from_environment(self, variable: str, text: str, key: constraints.Key | None) -> Value:
        return Value(text if key is None else key.parse(text), _environment(variable), self.cwd)

    def _unknown_variable(self, variable: str, what: str, known: Collection[str], word: str) -> None:
        self.add_problem(_environment(variable), f"unknown {what}{_nearest(word, known)}; correct or unset it")

    def _variables(self) -> list[str]:
        """Every variable that would mean a setting."""
        queues = [spell_variable(queue) for queue in {DEFAULT_RULE: "", **self.rules}]
        return [
            *(f"{PREFIX}{name.upper()}" for name in self.keys("")),
            *(f"{PREFIX}{section}__{name}".upper() for section in self.sections for name in self.keys(section)),
            *(f"{PREFIX}QUEUES__{queue}__{name.upper()}" for queue in queues for name in self.rule_keys),
        ]


def spell(path: KeyPath) -> str:
    """The key as TOML writes it: a part with other characters than letters, digits, `_` and `-` is quoted."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in path)


def spell_variable(queue: str) -> str:
    """A queue's name as variables spell it: capitals, and `_` for other characters."""
    return re.sub(r"[^A-Z0-9]", "_", queue.upper())


def expanded(path: str) -> Path:
    """The path with `~` replaced; one of a user that does not exist stays as it is, to be reported as missing."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def quote(value: object, *, key: str = "") -> str:
    """A value as an error shows it: short, and without what may be a secret. `key` is its name."""
    # Hidden before it is cut: half of a secret is too much, too.
    text = repr(redaction.hide(value, name=key))
    return text if len(text) <= 100 else f"{text[:97]}…"


def _is_of_others(variable: str, text: str) -> bool:
    """Whether a variable means something to others: Kubernetes sets PODYARD_PORT and the like for a Service of that
    name."""
    if _OTHERS.fullmatch(variable):
        return True
    if "__" in variable or not _SERVICE.fullmatch(variable):
        return False
    # `PODYARD_SCHEDULER_PORT=tcp://…` is Kubernetes', `…=8080` somebody's setting with an underscore too few.
    return not variable.endswith("_PORT") or "_SERVICE_" in variable or bool(_SERVICE_URL.match(text))


def _environment(variable: str) -> str:
    return f"environment variable {variable}"


def _nearest(word: str, known: Collection[str]) -> str:
    return constraints.nearest(word, known) or f"; known are {', '.join(known)}"
