"""A certificate for 127.0.0.1 from an authority of its own: kubectl sends a token over TLS only.

The authority signs this one certificate and its key is forgotten, so that who trusts it trusts nothing else.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

_LIFETIME = timedelta(days=365)
_NAMES = ("127.0.0.1", "localhost")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Certificate and private key, and the certificate of the authority that signed it; all PEM."""

    certificate: str
    key: str
    authority: str


def make(*, now: datetime) -> Pair:
    """A new key and its certificate, valid for a year."""
    import trustme  # needed once in the life of a home folder, and slow to import

    authority = trustme.CA(organization_name="Podyard local cluster")
    made = authority.issue_cert(*_NAMES, not_after=now + _LIFETIME)
    return Pair(
        certificate="".join(part.bytes().decode() for part in made.cert_chain_pems),
        key=made.private_key_pem.bytes().decode(),
        authority=authority.cert_pem.bytes().decode(),
    )
