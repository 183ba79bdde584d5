"""The options of a Celery application that was not built by `routing`: a plain one, as `celery -A` starts it.

They come from `app.conf.podyard`, an `Options` or a mapping, and from `PODYARD_…` variables of the environment, which
win over a mapping and are named as the settings of an installation are; both are read as an installation's settings
are. Everything has a default but the path of the app, which pods import: it is read from the command line of this
process.
"""

import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher import errors, queue_patterns
from dispatcher.options import Options, QueueProfile
from dispatcher.settings import layers, reading, sections

DEFAULT_QUEUE = layers.DEFAULT_RULE
_PLACE = "app.conf.podyard"


def from_app(app: Any, *, environ: Mapping[str, str] = os.environ, argv: Sequence[str] = tuple(sys.argv)) -> Options:
    """The options that a Celery app carries in `app.conf.podyard`, or the defaults where it says nothing.

    Raises DispatcherError that names everything that cannot be used, and where it was said.
    """
    given = app.conf.get("podyard")
    if isinstance(given, Options):
        return given
    read = read_app(given, environ=environ)
    found = {name: reading.section(read, name) for name in read.sections}
    rules = _profiles(read, QueueProfile(namespace=found["kubernetes"].namespace))
    is_deployment_set = ("deployment",) in read.values
    deployment = reading.section(read, "").deployment
    if read.problems:
        raise errors.DispatcherError("; ".join(read.problems))
    # APP is the variable of Celery's own `-A`.
    path = found["kubernetes"].app or app_on_command_line(argv) or environ.get("APP")
    if not path:
        raise errors.DispatcherError(
            "it is not known which Celery app the pods import: start the worker with -A MODULE:APP, or set "
            'app.conf.podyard = {"app": "MODULE:APP"} or PODYARD_KUBERNETES__APP'
        )
    return reading.options(
        found,
        written=read.values,
        deployment=deployment if is_deployment_set else app.main or deployment,
        app_path=path,
        include=include_on_command_line(argv),
        profile_for=lambda queue: _profile(rules, queue),
        profiles=rules,
    )


def read_app(given: object, *, environ: Mapping[str, str]) -> layers.Layers:
    """What an application and its environment say, with the place of each value. Raises DispatcherError."""
    if given is not None and not isinstance(given, Mapping):
        raise errors.DispatcherError(
            f"{_PLACE} is a {type(given).__name__}; it must be a mapping or a dispatcher.options.Options"
        )
    read = layers.Layers(
        tables={"": sections.Top, **sections.SECTIONS},
        cwd=Path.cwd(),
        ignored=sections.OF_AN_INSTALLATION,
        has_sides=False,
    )

    read.add_application(given or {}, _Application(base=read.cwd), keys=sections.app_keys())
    read.add_environment(environ)
    return read


@dataclass(frozen=True, kw_only=True)
class _Application:
    """An application's configuration as a source of settings."""

    base: Path

    def place(self, *path: str) -> str:
        return _PLACE + "".join(f"[{part!r}]" for part in path)


def app_on_command_line(argv: Sequence[str]) -> str | None:
    """What `-A` or `--app` says in the words of a command."""
    return next(iter(_said(argv, short="-A", long="--app")), None)


def include_on_command_line(argv: Sequence[str]) -> tuple[str, ...]:
    """The modules that `-I` or `--include` name."""
    said = _said(argv, short="-I", long="--include")
    return tuple(name.strip() for names in said for name in names.split(",") if name.strip())


def _said(argv: Sequence[str], *, short: str, long: str) -> Iterator[str]:
    """The values of an option, in each spelling that Celery's command line takes."""
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        if word in (short, long):
            if following:
                yield following
        elif word.startswith(f"{long}="):
            yield word.removeprefix(f"{long}=")
        elif word.startswith(short) and len(word) > len(short):
            yield word.removeprefix(short).removeprefix("=")


def profiles(read: layers.Layers) -> dict[str, QueueProfile]:
    """Rule -> profile as `from_app` makes them, of what an application says; the empty name is that of other queues."""
    return _profiles(read, QueueProfile(namespace=reading.section(read, "kubernetes").namespace))


def _profiles(read: layers.Layers, default: QueueProfile) -> dict[str, QueueProfile]:
    """Rule -> profile, in the order in which rules are asked; the empty name is that of all other queues."""
    found = {DEFAULT_QUEUE: default}
    for queue, rule in reading.rules(read).items():
        place = read.rules[queue]
        if not isinstance(rule, Mapping):
            read.add_problem(place, "must be a mapping: {key: value}")
            continue
        wrong = queue_patterns.invalid_name(queue)
        if wrong:
            read.add_problem(place, f"{queue_patterns.NEVER}: {wrong}; remove or rename it")
        found[queue], problems = reading.profile(rule, defaults=default)
        for problem in problems:
            value = read.values.get(("queues", queue, problem.key))
            read.add_problem(value.place if value else place, f"{problem.key} = {problem.value!r}: {problem.message}")
    for queue, why in queue_patterns.unreachable(found):
        read.add_problem(read.rules.get(queue, _PLACE), f"queue {queue!r}: {why}")
    # Sorted once, by how much each pattern says: which rule wins does not
    # depend on the order in which they were written.
    return {name: found[name] for name in sorted(found, key=queue_patterns.precedence)} | {"": default}


def _profile(rules: Mapping[str, QueueProfile], queue: str) -> QueueProfile:
    """An exact name wins over patterns, and of those the first that matches."""
    if queue in rules:
        return rules[queue]
    pattern = next(
        (name for name in rules if queue_patterns.is_pattern(name) and queue_patterns.matches(name, queue)), ""
    )
    return rules[pattern]
