"""A certificate for 127.0.0.1 that this cluster signs itself: kubectl sends a token over TLS only.

Written out here because the standard library makes no certificates: a P-256 key, ECDSA with SHA-256 (FIPS 186-4) and as
much DER (RFC 5280) as one certificate needs. It guards a loopback port whose kubeconfig pins it; use it for nothing
else. Not constant-time: whoever can measure this process on this machine already is this user.
"""

import base64
import hashlib
import secrets
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_LIFETIME = timedelta(days=365)
_Point = tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Certificate and private key, both PEM."""

    certificate: str
    key: str


def make(*, now: datetime) -> Pair:
    """A new key and its certificate, valid for a year."""
    secret = 1 + secrets.randbelow(_ORDER - 1)
    public = _public_bytes(_multiply(secret, _BASE))
    body = _body(public, now)
    certificate = _sequence(body, _ECDSA_SHA256, _bits(_sign(body, secret)))
    key = _sequence(_integer(1), _tlv(0x04, secret.to_bytes(32, "big")), _tlv(0xA0, _P256), _tlv(0xA1, _bits(public)))
    return Pair(certificate=_pem("CERTIFICATE", certificate), key=_pem("EC PRIVATE KEY", key))


# --- the curve ---


def _add(one: _Point, other: _Point) -> _Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0]:
        if (one[1] + other[1]) % _P == 0:
            return None
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, _P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P)
    x = (slope * slope - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _multiply(factor: int, point: _Point) -> tuple[int, int]:
    product: _Point = None
    while factor:
        if factor & 1:
            product = _add(product, point)
        point = _add(point, point)
        factor >>= 1
    if product is None:
        raise ValueError("a multiple of the group's order")
    return product


def _sign(message: bytes, secret: int) -> bytes:
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    while True:
        nonce = 1 + secrets.randbelow(_ORDER - 1)
        r = _multiply(nonce, _BASE)[0] % _ORDER
        s = pow(nonce, -1, _ORDER) * (digest + r * secret) % _ORDER
        if r and s:
            return _sequence(_integer(r), _integer(s))


def _public_bytes(point: tuple[int, int]) -> bytes:
    return b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


# --- DER ---


def _tlv(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def _sequence(*content: bytes) -> bytes:
    return _tlv(0x30, *content)


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(content: bytes, *, unused: int = 0) -> bytes:
    return _tlv(0x03, bytes([unused]), content)


def _oid(*arcs: int) -> bytes:
    return _tlv(0x06, bytes([arcs[0] * 40 + arcs[1]]), *(_base128(arc) for arc in arcs[2:]))


def _base128(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | (value & 0x7F))
    return bytes(reversed(digits))


def _time(moment: datetime) -> bytes:
    return _tlv(0x18 if moment.year >= 2050 else 0x17, _time_text(moment).encode())


def _time_text(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%SZ" if moment.year >= 2050 else "%y%m%d%H%M%SZ")


def _extension(number: int, content: bytes, *, critical: bool = False) -> bytes:
    flag = _tlv(0x01, b"\xff") if critical else b""
    return _sequence(_oid(2, 5, 29, number), flag, _tlv(0x04, content))


_P256 = _oid(1, 2, 840, 10045, 3, 1, 7)
_ECDSA_SHA256 = _sequence(_oid(1, 2, 840, 10045, 4, 3, 2))
_SERVER = _oid(1, 3, 6, 1, 5, 5, 7, 3, 1)


def _body(public: bytes, now: datetime) -> bytes:
    """The part of a certificate that is signed."""
    name = _sequence(_tlv(0x31, _sequence(_oid(2, 5, 4, 3), _tlv(0x0C, b"podyard local cluster"))))
    key = _sequence(_sequence(_oid(1, 2, 840, 10045, 2, 1), _P256), _bits(public))
    return _sequence(
        _tlv(0xA0, _integer(2)),
        _integer(secrets.randbits(127) | 1),
        _ECDSA_SHA256,
        name,
        _sequence(_time(now - timedelta(days=1)), _time(now + _LIFETIME)),
        name,
        key,
        _tlv(0xA3, _sequence(*_extensions(hashlib.sha256(public).digest()[:20]))),
    )


def _extensions(key_id: bytes) -> Iterable[bytes]:
    """It is its own authority; strict verifiers (Python 3.13) want each of these."""
    yield _extension(19, _sequence(_tlv(0x01, b"\xff")), critical=True)
    yield _extension(15, _bits(b"\x84", unused=2), critical=True)  # digitalSignature, keyCertSign
    yield _extension(37, _sequence(_SERVER))
    yield _extension(14, _tlv(0x04, key_id))
    yield _extension(35, _sequence(_tlv(0x80, key_id)))
    yield _extension(17, _sequence(_tlv(0x82, b"localhost"), _tlv(0x87, bytes([127, 0, 0, 1]))))


def _pem(label: str, der: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
