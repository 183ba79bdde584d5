"""Fields that no object has: what becomes of them is the caller's choice (`fieldValidation`). Pure.

The table of a pod's fields is the one that `dispatcher.manifests.pod_schema` has from the client library.
https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
"""

from collections.abc import Iterator, Mapping
from typing import Any

from dispatcher.localcluster.objects import refusal
from dispatcher.manifests import pod_schema

Json = dict[str, Any]
_HEAD = {"apiVersion": "str", "kind": "str", "metadata": "ObjectMeta"}
_SHAPES: Mapping[str, Mapping[str, str]] = {
    "ConfigMap": {**_HEAD, "data": "{str}", "binaryData": "{str}", "immutable": "bool"},
    "Secret": {**_HEAD, "data": "{str}", "stringData": "{str}", "immutable": "bool", "type": "str"},
}


def prune(kind: str, thing: Json) -> list[str]:
    """Takes unknown fields out of an object, as an API server does; gives their paths."""
    shape = pod_schema.types()["Pod"] if kind == "Pod" else _SHAPES.get(kind)
    return [] if shape is None else list(_unknown(thing, shape, ""))


def _unknown(thing: Json, shape: Mapping[str, str], path: str) -> Iterator[str]:
    for key in tuple(thing):
        here = f"{path}.{key}" if path else key
        if key not in shape:
            del thing[key]
            yield here
        else:
            yield from _inside(thing[key], shape[key], here)


def _inside(value: Any, kind: str, path: str) -> Iterator[str]:
    if kind.startswith("["):
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            yield from _inside(entry, kind[1:-1], f"{path}[{index}]")
    elif isinstance(value, dict) and (shape := pod_schema.types().get(kind)) is not None:
        yield from _unknown(value, shape, path)


def refuse(kind: str, unknown: list[str]) -> refusal.Refusal:
    """What a strict server says."""
    listed = ", ".join(f'unknown field "{path}"' for path in unknown)
    return refusal.bad_request(f'{kind} in version "v1" cannot be handled as a {kind}: strict decoding error: {listed}')


def warnings(unknown: list[str]) -> list[str]:
    """The headers by which a lenient server says it."""
    return [f'299 - "unknown field \\"{path}\\""' for path in unknown]
