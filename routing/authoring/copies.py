"""Copies of what an author gives to a DAG or a task, made when that is made: what the file does to its lists and
mappings afterwards (a loop that changes one and the same `executor_config`) changes no task that stands already.

Copied are lists, mappings, tuples and sets at any depth, and objects of the Kubernetes client. Anything else
(functions, results of tasks, objects of the author's own) stays the object that it is. Light: every pod imports it.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any


def copied(value: Any) -> Any:
    """The value, sharing no container with what was given; one that stands in several places still does."""
    return _copied(value, {})


def rebuilt(value: Any, part: Callable[[Any, Any], Any]) -> Any:
    """A mapping, list or tuple of the same kind with `part(key, value)` in place of each value; else the value."""
    if isinstance(value, dict | list):
        made = copy.copy(value)
        for key, one in list(value.items() if isinstance(value, dict) else enumerate(value)):
            made[key] = part(key, one)
        return made
    if isinstance(value, Mapping):
        return {key: part(key, one) for key, one in value.items()}
    if isinstance(value, tuple):
        parts = [part(index, one) for index, one in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def is_client_object(value: Any) -> bool:
    """Whether it is a model of the Kubernetes client, known by what each of them has, and nothing else."""
    return isinstance(getattr(type(value), "attribute_map", None), Mapping)


def _copied(value: Any, known: dict[int, Any]) -> Any:
    # A list that contains itself must end, too.
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, dict | list):
        made = known[id(value)] = copy.copy(value)  # a subclass keeps its kind
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            made[key] = _copied(part, known)
        return made
    # Not a named tuple or another subclass, whose constructor may take other arguments.
    if type(value) is tuple:
        return tuple(_copied(part, known) for part in value)
    if isinstance(value, set):
        return copy.copy(value)
    if is_client_object(value):
        made = known[id(value)] = copy.copy(value)
        for name, part in vars(value).items():
            vars(made)[name] = _copied(part, known)
        return made
    return value
