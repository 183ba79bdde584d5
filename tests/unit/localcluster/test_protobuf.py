"""Protobuf as kubectl sends it; the bytes are built here by the rules of the wire format."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.localcluster.apiserver import protobuf


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _chunk(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _envelope(kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + _chunk(1, _chunk(1, b"v1") + _chunk(2, kind.encode())) + _chunk(2, raw)


def test_a_secret_is_read() -> None:
    """Names, labels, bytes; what is empty was not set."""
    metadata = _chunk(1, b"keys") + _chunk(2, b"") + _chunk(11, _chunk(1, b"team") + _chunk(2, b"a")) + _chunk(8, b"")
    raw = _chunk(1, metadata) + _chunk(2, _chunk(1, b"a") + _chunk(2, b"\xff\x00")) + _chunk(3, b"Opaque")
    raw += _varint(5 << 3) + b"\x01"
    assert protobuf.read(_envelope("Secret", raw)) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "labels": {"team": "a"}},
        "data": {"a": "/wA="},
        "type": "Opaque",
        "immutable": True,
    }


def test_quantities_become_text() -> None:
    """A quota's amounts."""
    hard = _chunk(1, _chunk(1, b"pods") + _chunk(2, _chunk(1, b"2")))
    found = protobuf.read(_envelope("ResourceQuota", _chunk(1, _chunk(1, b"two")) + _chunk(2, hard)))
    assert found["spec"] == {"hard": {"pods": "2"}}


@pytest.mark.parametrize("data", [b"", b"k8s", b"{}", b"k8s\x00\x0a\xff", _envelope("Pod", b""), b"k8s\x00\x0b"])
def test_what_cannot_be_read_is_said(data: bytes) -> None:
    """Nonsense, pieces, and kinds that are JSON only."""
    with pytest.raises(ValueError, match=r"protobuf|ends too early|wire type|JSON only"):
        protobuf.read(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data: bytes) -> None:
    """An object, or a ValueError; nothing else."""
    with contextlib.suppress(ValueError):
        assert isinstance(protobuf.read(_envelope("Secret", data)), dict)
