"""Names: ids of tasks as Kubernetes names and label values, valid for any Unicode.

Pure. Raw ids travel in annotations; what is made here is for selectors and for people who read `kubectl get pods`.
Nobody parses a name to get an id back.

Rules of the cluster: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ (DNS label) and
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ (label values).
"""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Sequence

MAX_LENGTH = 63
"""The longest DNS label and the longest label value."""

_HASH_LENGTH = 12  # 60 bits: among a million names of one namespace, one chance in two million that any two meet
_LABEL_HASH_LENGTH = 16  # 80 bits: nothing else tells two label values apart
_SHORTEST_NAME = 3  # one character of stem, the dash, one of hash
_READ_AT_MOST = 512  # characters of an id that are looked at for the stem; the hash sees all
_STEM_OF_NOTHING = "pod"

_VALID_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_NOT_IN_LABEL_VALUE = re.compile(r"[^A-Za-z0-9._-]+")
_NOT_IN_NAME = re.compile(r"[^a-z0-9]+")
_EDGES = "-_."


def label_value(text: str | None) -> str:
    """A valid label value: the text itself if it is one, else a readable stem and a hash of the whole text.

    None and the empty text give the empty value. Distinct texts give distinct values, as far as 80 bits of hash can
    tell generated ones apart. Making a label value of a label value changes nothing.
    """
    if not text:
        return ""
    if _VALID_LABEL_VALUE.fullmatch(text):
        return text
    suffix = _digest(text, _LABEL_HASH_LENGTH)
    stem = _NOT_IN_LABEL_VALUE.sub("_", _latin(text)).strip(_EDGES)
    stem = stem[: MAX_LENGTH - 1 - len(suffix)].rstrip(_EDGES)
    return f"{stem}-{suffix}" if stem else suffix


def pod_name(*parts: str, key: str, max_length: int = MAX_LENGTH) -> str:
    """The name `<stem>-<hash>`: a readable stem made of `parts`, and a hash of `[a-z0-9]` made of `key` alone.

    Always a valid DNS label of at most `max_length` characters, whatever the parts hold; where room is short, the
    longest parts are cut first. The same arguments always give the same name, so creating a pod by it is a claim.

    Raises ValueError if no part is given, or if `max_length` leaves no room for a name.
    """
    given = [part for part in parts if part is not None]
    if not given:
        raise ValueError("a pod name needs at least one part, such as the id of the task")
    room = min(max_length, MAX_LENGTH)
    if room < _SHORTEST_NAME:
        raise ValueError(f"a pod name needs max_length of at least {_SHORTEST_NAME}, got {max_length}")
    suffix = _digest(key, min(_HASH_LENGTH, room - 2))
    slugs = [slug for part in given if (slug := _slug(part))]
    return f"{_stem(slugs or [_STEM_OF_NOTHING], room=room - 1 - len(suffix))}-{suffix}"


def _stem(slugs: Sequence[str], *, room: int) -> str:
    """The slugs joined by dashes, cut to `room` characters so that every slug keeps a fair share."""
    share = room
    while share > 1 and sum(min(len(slug), share) for slug in slugs) + len(slugs) - 1 > room:
        share -= 1
    return "-".join(slug[:share].rstrip("-") for slug in slugs)[:room].rstrip("-")


def _slug(text: str) -> str:
    """Lower-case ASCII letters and digits of `text`, everything else a single dash, none at the ends."""
    # A DNS label knows ASCII alone; an id in another script is left to the hash.
    return _NOT_IN_NAME.sub("-", _latin(text).lower()).strip("-")


def _latin(text: str) -> str:
    """The start of `text` without accents and widths: `Čeština` reads `Cestina`; other scripts stay as they are."""
    if text.isascii():
        return text[:_READ_AT_MOST]
    decomposed = unicodedata.normalize("NFKD", text[:_READ_AT_MOST])
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _digest(text: str, length: int) -> str:
    """`length` (at most 16) characters of `[a-z2-7]` that stand for the exact text, lone surrogates too."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).digest()
    return base64.b32encode(digest).decode("ascii").lower()[:length]
