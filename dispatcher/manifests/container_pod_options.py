"""Options of container pods: what the sender of `dispatcher.pod` wants done around the pod, beside its manifest.

How its end is judged, how long it may take to start, which logs are kept, what becomes of the pod object. Pure, and
read from the arguments of the task message, so that a restarted dispatcher knows them again. The manifest's half of the
arguments is `dispatcher.manifests.container_pod`.
"""

import math
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher import errors
from dispatcher.manifests import merge

FINISH_ACTIONS = ("delete_pod", "delete_succeeded_pod", "delete_active_pod", "keep_pod")
KILL_ACTIONS = ("delete_pod", "keep_pod")
RESULT_PATH = "/airflow/xcom/return.json"
"""Where a pod of any image leaves its result, unless something else is asked for."""


@dataclass(frozen=True, kw_only=True)
class Logs:
    """Which containers' logs are saved."""

    containers: tuple[str, ...] | None = None
    """Names; empty for none, None for the task container alone."""
    is_all: bool = False
    """All containers, in the order of the manifest."""
    inits: tuple[str, ...] = ()
    is_all_inits: bool = False
    has_prefix: bool = True
    """Lines begin with `[container] ` where logs of several containers are saved."""
    has_events: bool = True
    """The pod's events follow the log of a pod that failed."""


@dataclass(frozen=True, kw_only=True)
class PodOptions:
    """What a sender asked for. The defaults are those of a task pod."""

    base: str = merge.BASE
    """The container that decides."""
    on_finish_action: str | None = None
    """One of FINISH_ACTIONS; None leaves it to the queue's rule."""
    on_kill_action: str = "delete_pod"
    skip_on_exit_code: frozenset[int] = frozenset()
    """Exit codes of the deciding container with which the task counts as skipped."""
    schedule_timeout_s: float | None = None
    """How long a node may be looked for; None leaves it to the queue's rule."""
    startup_timeout_s: float | None = None
    """How long the container may take to start, once a node is found."""
    result_path: str | None = None
    """The file that holds the result; None: the pod leaves none."""
    logs: Logs = Logs()


def read(arguments: Mapping[str, Any]) -> PodOptions:
    """The options among the arguments of `dispatcher.pod`; others are not looked at.

    Raises InvalidPod that names the argument.
    """
    given = {
        name: READERS[name](name, value) for name, value in arguments.items() if name in READERS and value is not None
    }
    startup_s = given.get("startup_timeout_seconds")
    return PodOptions(
        base=given.get("base_container_name") or merge.BASE,
        on_finish_action=_finish_action(given),
        on_kill_action=given.get("on_kill_action", "delete_pod"),
        skip_on_exit_code=given.get("skip_on_exit_code", frozenset()),
        schedule_timeout_s=given.get("schedule_timeout_seconds", startup_s),
        startup_timeout_s=startup_s,
        result_path=given.get("xcom_path", RESULT_PATH) if given.get("do_xcom_push") else None,
        logs=_logs(given),
    )


def wrong(path: str, problem: str) -> errors.InvalidPod:
    """The error for an argument of `dispatcher.pod`."""
    return errors.InvalidPod(f"dispatcher.pod: {path}: {problem}")


def _finish_action(given: Mapping[str, Any]) -> str | None:
    action: str | None = given.get("on_finish_action")
    old = given.get("is_delete_operator_pod")
    if old is None:
        return action
    # Airflow's argument from before `on_finish_action`.
    meant = "delete_pod" if old else "keep_pod"
    if action not in (None, meant):
        raise wrong("is_delete_operator_pod", f"contradicts on_finish_action={action!r}; leave the old one out")
    return meant


def _logs(given: Mapping[str, Any]) -> Logs:
    """`True` means all of them, a name or a list those; without `get_logs` none of the containers'."""
    wanted, inits = given.get("container_logs"), given.get("init_container_logs", ())
    is_on = given.get("get_logs", True)
    return Logs(
        containers=() if not is_on else None if wanted in (None, True) else wanted,
        is_all=is_on and wanted is True,
        inits=() if inits is True else inits,
        is_all_inits=inits is True,
        has_prefix=given.get("container_name_log_prefix_enabled", True),
        has_events=given.get("log_events_on_failure", True),
    )


def read_text(name: str, value: object) -> str:
    """A non-empty string."""
    if not isinstance(value, str) or not value.strip():
        raise wrong(name, f"must be a non-empty string, not {described(value)}")
    return value


def read_bool(name: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(name, f"must be true or false, not {described(value)}")
    return value


def one_of(*allowed: str) -> Callable[[str, object], str]:
    """The reader of one of a few words."""

    def read_word(name: str, value: object) -> str:
        if value not in allowed:
            shown = repr(value) if isinstance(value, str) else described(value)
            raise wrong(name, f"must be one of {', '.join(allowed)}, not {shown}")
        return str(value)

    return read_word


def described(value: object) -> str:
    """What a value is, in words; never a text, which may be a secret."""
    words: dict[type, str] = {bool: str(value).lower(), dict: "a mapping", list: "a list", str: "a text"}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value}"
    return words.get(type(value), "null" if value is None else f"a value of type {type(value).__name__}")


def _seconds(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise wrong(name, f"must be a number of seconds above 0, not {described(value)}")
    return float(value)


def _exit_codes(name: str, value: object) -> frozenset[int]:
    codes = value if isinstance(value, list | tuple) else [value]
    for code in codes:
        if not isinstance(code, int) or isinstance(code, bool) or not 0 <= code <= 255:
            raise wrong(name, f"must be an exit code from 0 to 255 or a list of them, not {described(code)}")
    return frozenset(codes)


def _containers(name: str, value: object) -> tuple[str, ...] | bool:
    """True for all, False for none; a name; a list of names."""
    if isinstance(value, bool):
        return value or ()
    if isinstance(value, list | tuple):
        return tuple(read_text(f"{name}[{index}]", entry) for index, entry in enumerate(value))
    if isinstance(value, str):
        return (read_text(name, value),)
    raise wrong(name, f"must be true, a container's name or a list of names, not {described(value)}")


def _result_path(name: str, value: object) -> str:
    path = read_text(name, value)
    if not path.startswith("/") or posixpath.normpath(path) != path or posixpath.dirname(path) == "/":
        raise wrong(name, f"must be the absolute path of a file in a folder of its own, such as {RESULT_PATH}")
    return path


READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "base_container_name": read_text,
    "container_logs": _containers,
    "container_name_log_prefix_enabled": read_bool,
    "do_xcom_push": read_bool,
    "get_logs": read_bool,
    "init_container_logs": _containers,
    "is_delete_operator_pod": read_bool,
    "log_events_on_failure": read_bool,
    "on_finish_action": one_of(*FINISH_ACTIONS),
    "on_kill_action": one_of(*KILL_ACTIONS),
    "schedule_timeout_seconds": _seconds,
    "skip_on_exit_code": _exit_codes,
    "startup_timeout_seconds": _seconds,
    "xcom_path": _result_path,
}
"""Argument of `dispatcher.pod` -> how it is read; raises InvalidPod."""
