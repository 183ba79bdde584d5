"""Small objects in protobuf, as some commands of kubectl send them: bytes -> the JSON form. Pure.

Only the kinds that kubectl makes from its own arguments (`kubectl create secret …`); answers are always JSON, which its
clients take. Field numbers are those of Kubernetes' generated.proto files.
https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class _Field:
    """`kind` is `str`, `bytes` (base64 in JSON), `int`, `bool` or the name of a message in `_MESSAGES`."""

    name: str
    kind: str
    shape: str = "one"
    """`one`, `many` (repeated) or `map` (of text to `kind`)."""


_MESSAGES: Mapping[str, Mapping[int, _Field]] = {
    "ObjectMeta": {
        1: _Field("name", "str"),
        2: _Field("generateName", "str"),
        3: _Field("namespace", "str"),
        5: _Field("uid", "str"),
        6: _Field("resourceVersion", "str"),
        11: _Field("labels", "str", "map"),
        12: _Field("annotations", "str", "map"),
        13: _Field("ownerReferences", "OwnerReference", "many"),
        14: _Field("finalizers", "str", "many"),
    },
    "OwnerReference": {
        1: _Field("kind", "str"),
        3: _Field("name", "str"),
        4: _Field("uid", "str"),
        5: _Field("apiVersion", "str"),
        6: _Field("controller", "bool"),
        7: _Field("blockOwnerDeletion", "bool"),
    },
    "Secret": {
        1: _Field("metadata", "ObjectMeta"),
        2: _Field("data", "bytes", "map"),
        3: _Field("type", "str"),
        4: _Field("stringData", "str", "map"),
        5: _Field("immutable", "bool"),
    },
    "ConfigMap": {
        1: _Field("metadata", "ObjectMeta"),
        2: _Field("data", "str", "map"),
        3: _Field("binaryData", "bytes", "map"),
        4: _Field("immutable", "bool"),
    },
    "Namespace": {1: _Field("metadata", "ObjectMeta")},
    "ServiceAccount": {1: _Field("metadata", "ObjectMeta")},
    "ResourceQuota": {1: _Field("metadata", "ObjectMeta"), 2: _Field("spec", "ResourceQuotaSpec")},
    "ResourceQuotaSpec": {1: _Field("hard", "Quantity", "map"), 2: _Field("scopes", "str", "many")},
    "Quantity": {1: _Field("string", "str")},
    "SelfSubjectAccessReview": {2: _Field("spec", "AccessReviewSpec")},
    "AccessReviewSpec": {
        1: _Field("resourceAttributes", "ResourceAttributes"),
        2: _Field("nonResourceAttributes", "NonResourceAttributes"),
    },
    "ResourceAttributes": {
        number: _Field(name, "str")
        for number, name in enumerate(
            ("namespace", "verb", "group", "version", "resource", "subresource", "name"), start=1
        )
    },
    "NonResourceAttributes": {1: _Field("path", "str"), 2: _Field("verb", "str")},
}
KINDS = frozenset({"ConfigMap", "Namespace", "ResourceQuota", "Secret", "SelfSubjectAccessReview", "ServiceAccount"})


def read(data: bytes) -> Json:
    """The object; raises ValueError that says what is wrong, or which kinds can be read."""
    if not data.startswith(_MAGIC):
        raise ValueError("no Kubernetes protobuf: the first four bytes are others")
    envelope = dict(_fields(data[len(_MAGIC) :]))
    about = dict(_fields(_chunk(envelope.get(1, b""))))
    version, kind = (_chunk(about.get(number, b"")).decode() for number in (1, 2))
    if kind not in KINDS:
        raise ValueError(f"a {kind} is read as JSON only (as protobuf: {', '.join(sorted(KINDS))})")
    return {"apiVersion": version, "kind": kind} | _message(_chunk(envelope.get(2, b"")), kind)


def _message(data: bytes, kind: str) -> Json:
    found: Json = {}
    for number, value in _fields(data):
        field = _MESSAGES[kind].get(number)
        if field is None:
            continue
        if field.shape == "map":
            key, entry = _entry(_chunk(value), field.kind)
            found.setdefault(field.name, {})[key] = entry
        elif field.shape == "many":
            found.setdefault(field.name, []).append(_value(value, field.kind))
        elif (plain := _value(value, field.kind)) not in ("", {}):
            found[field.name] = plain  # what is empty was not set: this encoding writes it nevertheless
    return found


def _entry(data: bytes, kind: str) -> tuple[str, Any]:
    parts = dict(_fields(data))
    return _chunk(parts.get(1, b"")).decode(), _value(parts.get(2, b""), kind)


def _value(value: int | bytes, kind: str) -> Any:
    if kind == "bool":
        return bool(value)
    if kind == "int":
        return value
    data = _chunk(value)
    if kind == "str":
        return data.decode()
    if kind == "bytes":
        return base64.b64encode(data).decode()
    found = _message(data, kind)
    return found.get("string", "0") if kind == "Quantity" else found


def _chunk(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("a number stands where a text belongs")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one message: number and raw value."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if position + size > len(data):
            raise ValueError("the message ends too early")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("the message ends too early")
