"""What JSON can hold: which part of a value cannot travel, and why. Pure, and exact about the place."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

MAX_DEPTH = 100
_SCALARS = (str, bool, int)
_WAYS_OUT = {
    "bytes": "return text, for example base64",
    "bytearray": "return text, for example base64",
    "complex": "return its parts as numbers",
    "coroutine": "define the task with `def`, or run the coroutine with asyncio.run",
    "DataFrame": "return .to_dict('records'), or store it and return where it is",
    "date": "return an ISO string",
    "datetime": "return an ISO string",
    "Decimal": "return str() or float() of it",
    "frozenset": "return a list",
    "generator": "return a list",
    "ndarray": "return .tolist(), or store it and return where it is",
    "PosixPath": "return str() of it",
    "set": "return a list",
    "time": "return an ISO string",
    "timedelta": "return its total_seconds()",
    "UUID": "return str() of it",
}


def refusal(value: Any) -> str | None:
    """Why JSON cannot hold the value, beginning with the path of the part (`$.rows[3].when: …`); None if it can."""
    return _refusal(value, "$", 0)


def _refusal(value: Any, path: str, depth: int) -> str | None:
    if value is None or isinstance(value, _SCALARS):
        return None
    if isinstance(value, float):
        return None if isfinite(value) else f"{path}: {value} is not JSON; return None or leave it out"
    if depth >= MAX_DEPTH:
        return f"{path}: nested deeper than {MAX_DEPTH} levels, or it contains itself"
    # Of all mappings json.dumps takes dicts alone.
    if isinstance(value, Mapping) and isinstance(value, dict):
        return _mapping_refusal(value, path, depth)
    if isinstance(value, list | tuple):
        parts = (_refusal(part, f"{path}[{index}]", depth + 1) for index, part in enumerate(value))
        return next(filter(None, parts), None)
    name = type(value).__name__
    return (
        f"{path}: {name} is not JSON; {_WAYS_OUT.get(name, 'return lists, mappings, text, numbers, booleans or None')}"
    )


def _mapping_refusal(value: dict[Any, Any], path: str, depth: int) -> str | None:
    for key, part in value.items():
        if not isinstance(key, str):
            return f"{path}: the key {key!r} is not text, as JSON wants it; use str() of it"
        found = _refusal(part, f"{path}.{key}" if key.isidentifier() else f"{path}[{key!r}]", depth + 1)
        if found:
            return found
    return None
