"""Ids and parameter names as authors write them: what is refused, with words that help. Pure."""

from collections.abc import Iterable
from typing import Any

from routing.errors import InvalidDag

MAX_LENGTH = 512


def checked_id(kind: str, value: Any) -> str:
    """The id itself. Any Unicode text is fine except control characters; raises InvalidDag otherwise."""
    if not isinstance(value, str):
        raise InvalidDag(f"a {kind} must be a string, not {value!r}")
    if not value.strip():
        raise InvalidDag(f"a {kind} must not be empty")
    if value != value.strip():
        raise InvalidDag(f"the {kind} {value!r} begins or ends with white space")
    if any(_is_forbidden(char) for char in value):
        raise InvalidDag(f"the {kind} {value!a} has control characters; use printable text")
    if len(value) > MAX_LENGTH:
        raise InvalidDag(f"the {kind} {value[:40]!r}… has {len(value)} characters, more than {MAX_LENGTH}")
    return value


def refuse_unknown(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises InvalidDag for the first name that is not known, with the nearest known one."""
    accepted = set(known)
    unknown = next((name for name in given if name not in accepted), None)
    if unknown is None:
        return
    from difflib import get_close_matches

    near = get_close_matches(unknown, accepted, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(accepted))}"
    raise InvalidDag(f"{where} {unknown!r} is not known; {hint}")


def _is_forbidden(char: str) -> bool:
    code = ord(char)
    # Lone surrogates, too: they cannot be encoded, so no broker and no database takes them.
    return code < 32 or 127 <= code < 160 or 0xD800 <= code <= 0xDFFF
