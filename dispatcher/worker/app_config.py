"""The options of a Celery application that was not built by `routing`: a plain one, as `celery -A` starts it.

They come from `app.conf.podyard`, an `Options` or a mapping, and from `PODYARD_…` variables of the environment, which
win over a mapping and are named as the settings of an installation are. Everything has a default but the path of the
app, which pods import: it is read from the command line of this process.
"""

import difflib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dispatcher import errors
from dispatcher.attempts import wait_rules
from dispatcher.manifests import quantities
from dispatcher.options import Options, QueueProfile

DEFAULT_QUEUE = "kubernetes"


def _whole_number(value: Any) -> int:
    return int(value)


def _yes_or_no(value: Any) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return known[str(value).lower()]


def _pairs(value: Any) -> dict[str, str]:
    """A mapping; from the environment as JSON, as in the settings."""
    pairs = value if isinstance(value, Mapping) else json.loads(value)
    return {str(name): str(text) for name, text in pairs.items()}


def _waits(value: Any) -> dict[str, str]:
    """Rules of waits. Raises DispatcherError that says what is wrong."""
    rules = value if isinstance(value, Mapping) else json.loads(value)
    wrong = wait_rules.problem(rules)
    if wrong:
        raise errors.DispatcherError(wrong)
    return dict(rules)


def _table_of_whole_numbers(value: Any) -> dict[str, int]:
    """A mapping of names to whole numbers; from the environment as JSON."""
    pairs = value if isinstance(value, Mapping) else json.loads(value)
    return {str(name): _whole_number_of_at_least_1(number) for name, number in pairs.items()}


def _whole_number_of_at_least_1(value: Any) -> int:
    """A whole number of at least 1."""
    number = int(value)
    if number < 1:
        raise ValueError
    return number


def _number_of_at_least_0(value: Any) -> float:
    """A number, 0 or more."""
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def _memory(value: Any) -> str:
    quantities.bytes_of(value)
    return str(value)


def _path(value: Any) -> Path:
    return Path(value).expanduser().absolute()


_SETTINGS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "deployment": ("PODYARD_DEPLOYMENT", str),
    "app": ("PODYARD_KUBERNETES__APP", str),
    "kubeconfig": ("PODYARD_KUBERNETES__KUBECONFIG", _path),
    "context": ("PODYARD_KUBERNETES__CONTEXT", str),
    "in_cluster": ("PODYARD_KUBERNETES__IN_CLUSTER", _yes_or_no),
    "verify_ssl": ("PODYARD_KUBERNETES__VERIFY_SSL", _yes_or_no),
    "namespace": ("PODYARD_KUBERNETES__NAMESPACE", str),
    "max_pods": ("PODYARD_KUBERNETES__MAX_PODS", _whole_number_of_at_least_1),
    "max_pods_by_namespace": ("PODYARD_KUBERNETES__MAX_PODS_BY_NAMESPACE", _table_of_whole_numbers),
    "create_rate": ("PODYARD_KUBERNETES__CREATE_RATE", _number_of_at_least_0),
    "create_burst": ("PODYARD_KUBERNETES__CREATE_BURST", _whole_number_of_at_least_1),
    "image": ("PODYARD_KUBERNETES__IMAGE", str),
    "database_url": ("PODYARD_DATABASE__URL", str),
    "log_folder": ("PODYARD_LOGS__FOLDER", _path),
    "health_folder": ("PODYARD_HEALTH__FOLDER", _path),
    "log_max_bytes": ("PODYARD_LOGS__MAX_BYTES", _whole_number),
    "result_max_bytes": ("PODYARD_RESULTS__MAX_BYTES", _whole_number),
}
"""Key of the mapping -> variable, and what makes a value of it."""
_PROFILE: Mapping[str, Callable[[Any], Any]] = {
    "max_pods": _whole_number_of_at_least_1,
    "keep_finished_s": float,
    "schedule_timeout_s": float,
    "startup_timeout_s": float,
    "env": _pairs,
    "waits": _waits,
    "memory_growth": float,
    "memory_growth_max": _memory,
    "avoid_failed_nodes": _yes_or_no,
}
"""Keys of a queue that are no texts."""
_CHOICES: Mapping[str, Sequence[str]] = {
    "delete": ("always", "succeeded", "never"),
    "credentials": ("none", "inherit"),
    "payload": ("inline", "secret"),
}


def from_app(app: Any, *, environ: Mapping[str, str] = os.environ, argv: Sequence[str] = tuple(sys.argv)) -> Options:
    """The options that a Celery app carries in `app.conf.podyard`, or those that it was not told to have otherwise.

    Raises DispatcherError that names what cannot be used and where it was said.
    """
    given = app.conf.get("podyard")
    if isinstance(given, Options):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise errors.DispatcherError(
            f"app.conf.podyard is a {type(given).__name__}; it must be a mapping or a dispatcher.options.Options"
        )
    chosen = _chosen(given or {}, environ)
    path = chosen.pop("app", None) or app_on_command_line(argv) or environ.get("APP")
    if not path:
        raise errors.DispatcherError(
            "it is not known which Celery app the pods import: start the worker with -A MODULE:APP, or set "
            'app.conf.podyard = {"app": "MODULE:APP"} or PODYARD_KUBERNETES__APP'
        )
    namespace = chosen.pop("namespace", "default")
    profiles = _profiles(given or {}, environ, default=QueueProfile(namespace=namespace))
    return Options(
        profile_for=lambda queue: profiles.get(queue, profiles[""]),
        app_path=path,
        limits_namespace=namespace,
        namespaces=tuple(sorted({namespace, *(profile.namespace for profile in profiles.values())})),
        **{"deployment": app.main or "default", **chosen},
    )


def app_on_command_line(argv: Sequence[str]) -> str | None:
    """What `-A` or `--app` says in the words of a command."""
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        if word in ("-A", "--app"):
            return following or None
        if word.startswith("--app="):
            return word.removeprefix("--app=")
        if word.startswith("-A") and len(word) > 2:
            return word[2:].removeprefix("=")
    return None


def _chosen(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that somebody made, the environment's last."""
    _refuse_unknown(given, known=[*_SETTINGS, "queues"], where="app.conf.podyard")
    chosen = {}
    for key, (variable, make) in _SETTINGS.items():
        if environ.get(variable):
            chosen[key] = _made(make, environ[variable], where=f"environment {variable}")
        elif given.get(key) is not None:
            chosen[key] = _made(make, given[key], where=f"app.conf.podyard[{key!r}]")
    return chosen


def _profiles(
    given: Mapping[str, Any], environ: Mapping[str, str], *, default: QueueProfile
) -> dict[str, QueueProfile]:
    """Queue -> profile; the empty name is that of all queues that nothing is said about."""
    queues = given.get("queues") or {}
    if not isinstance(queues, Mapping) or not all(isinstance(rule, Mapping) for rule in queues.values()):
        raise errors.DispatcherError('app.conf.podyard["queues"] must be a mapping of mappings: {queue: {key: value}}')
    profiles = {"": default}
    for queue in {DEFAULT_QUEUE: {}, **queues}:
        rule = queues.get(queue, {})
        where = f'app.conf.podyard["queues"][{queue!r}]'
        _refuse_unknown(rule, known=[field.name for field in fields(QueueProfile)], where=where)
        said = {key: (value, f"{where}[{key!r}]") for key, value in rule.items()}
        for field in fields(QueueProfile):
            variable = f"PODYARD_QUEUES__{_spelled(queue)}__{field.name.upper()}"
            if environ.get(variable):
                said[field.name] = (environ[variable], f"environment {variable}")
        made = {key: _profile_value(key, value, where=where) for key, (value, where) in said.items()}
        profiles[queue] = QueueProfile(**{"namespace": default.namespace, **made})
    return profiles


def _profile_value(key: str, value: Any, *, where: str) -> Any:
    allowed = _CHOICES.get(key)
    if allowed and value not in allowed:
        raise errors.DispatcherError(f"{where} = {value!r}: must be {' or '.join(allowed)}")
    return None if value is None else _made(_PROFILE.get(key, str), value, where=where)


def _made(make: Callable[[Any], Any], value: Any, *, where: str) -> Any:
    try:
        return make(value)
    except errors.DispatcherError as error:
        raise errors.DispatcherError(f"{where}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        kind = make.__name__.strip("_").replace("_", " ")
        raise errors.DispatcherError(f"{where} = {value!r}: must be a {kind}") from error


def _refuse_unknown(given: Iterable[str], *, known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise errors.DispatcherError(f"{where}: unknown key {key!r}; {hint}")


def _spelled(queue: str) -> str:
    """A queue's name as variables spell it: capitals, and `_` for other signs."""
    return "".join(sign.upper() if sign.isascii() and sign.isalnum() else "_" for sign in queue)
