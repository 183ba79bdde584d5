"""Patterns of queue names: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`, matched as Python's `fnmatch.fnmatchcase` does.

A pattern is reachable if it decides at least one queue name, given the rules that are asked before it. `is_shadowed`
says that it is not, and only where that is proved: names are spelled with one character for each class that no
pattern tells apart, and with one that stands for any text, which only a `*` matches. If the rules above match all these
spellings, they match every name. No I/O, no state.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice, product

MAX_NAME_BYTES = 255
"""AMQP's bound on a queue name, kept for every broker so that a name stays usable when the broker changes."""

NEVER = "this rule can never match"

_MAX_SPELLINGS = 2_000
"""More are not looked at: then nothing is claimed."""
_TOKEN = re.compile(r"\*+|\?|\[!?+\]?+[^\]]*+\]|.", re.DOTALL)
"""As in fnmatch, a "]" directly after "[" or "[!" belongs to the class, and an unclosed "[" is an ordinary
character."""
_FORBIDDEN = re.compile("[\0-\x1f,\x7f-\x9f\ud800-\udfff]")
"""Control characters, the comma (Celery's `-Q` splits at it), lone surrogates."""
_BORDERS = "a\x20\x2b\x2d\x7e\xa0\ud7ff\ue000\U0010ffff"
"""An ordinary character, and those at the ends of what is forbidden."""
_ANYTHING = "\0"
"""Stands for any text, also none; no name has it."""


def is_pattern(name: str) -> bool:
    """Whether a rule's name has wildcards."""
    return any(_is_wild(token) for token in _TOKEN.findall(name))


def matches(pattern: str, name: str) -> bool:
    """Whether the whole name is matched."""
    return fnmatchcase(name, pattern)


def precedence(name: str) -> tuple[bool, int, int, str]:
    """The order in which rules are asked: exact names, then the longer pattern, then fewer `*` and `?`, then the
    alphabet. "Longer" counts characters as written."""
    wildcards = sum(token[0] in "*?" for token in _TOKEN.findall(name))
    return (is_pattern(name), -len(name), wildcards, name)


def invalid_name(name: str) -> str | None:
    """Why no queue can have this name (or no name fits this pattern's text), or None."""
    if not name:
        return "it is empty"
    if name != name.strip():
        return "it begins or ends with white space"
    bad = _FORBIDDEN.search(name)
    if bad is not None:
        return f"no queue name can have the character {bad.group()!a}"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    return None


def unreachable(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The rules of these names that certainly decide no queue, and why."""
    above: list[str] = []
    for name in sorted(names, key=precedence):
        if is_pattern(name) and matches_nothing(name):
            yield name, f"{NEVER}: no queue name fits the pattern; remove it"
        elif is_pattern(name) and is_shadowed(name, above):
            # One rule that does it alone is a better word for people than all that are asked before.
            alone = next(([one] for one in above if is_shadowed(name, [one])), above)
            by = ", ".join(map(repr, alone))
            yield name, f"{NEVER}: {by} is asked first and matches all that it does; remove one of them"
        above.append(name)


def matches_nothing(pattern: str) -> bool:
    """Whether no queue name fits: a class of the pattern has no character that a name may have."""
    return next(_spellings(pattern, _alphabet([pattern])), None) is None


def is_shadowed(pattern: str, above: Sequence[str]) -> bool:
    """Whether the rules above certainly match every queue name that the pattern matches.

    False says that a name was found which they leave to it, or that there were too many spellings to try.
    """
    spellings = _spellings(pattern, _alphabet([pattern, *above]))
    others = [_TOKEN.findall(one) if is_pattern(one) else list(one) for one in above]
    for spelling in islice(spellings, _MAX_SPELLINGS):
        if not any(_matches_spelling(tokens, spelling) for tokens in others):
            return False
    # Spellings that are left were not looked at: nothing is proved then.
    return next(spellings, None) is None


def _spellings(pattern: str, alphabet: Sequence[str]) -> Iterator[str]:
    """Spellings that together stand for every name that the pattern matches; a `*` is nothing, or a character and any
    text after it."""
    choices = [
        ("", *(f"{char}{_ANYTHING}" for char in alphabet))
        if token[0] == "*"
        else [char for char in alphabet if _has(token, char)]
        for token in _TOKEN.findall(pattern)
    ]
    return filter(None, map("".join, product(*choices)))


def _matches_spelling(tokens: Sequence[str], spelling: str) -> bool:
    """Whether tokens match a spelling. The latest `*` takes one more character after each failure, which is enough:
    what the ones before it took can stay."""
    at = place = 0
    star, resumed = -1, 0
    while place < len(spelling):
        if at < len(tokens) and tokens[at][0] == "*":
            star, resumed, at = at, place, at + 1
        elif at < len(tokens) and _has(tokens[at], spelling[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            resumed += 1
            at, place = star + 1, resumed
        else:
            return False
    return all(token[0] == "*" for token in tokens[at:])


def _has(token: str, char: str) -> bool:
    """Whether a token that is no `*` means this character."""
    return char != _ANYTHING and (fnmatchcase(char, token) if _is_wild(token) else char == token)


def _is_wild(token: str) -> bool:
    return token[0] in "*?" or len(token) > 1


def _alphabet(patterns: Sequence[str]) -> list[str]:
    """One character for each class of characters that no token tells apart."""
    near = {chr(code) for char in "".join(patterns) + _BORDERS for code in _around(ord(char))}
    tokens = sorted({token for one in patterns for token in _TOKEN.findall(one) if token[0] not in "*?"})
    classes: dict[tuple[bool, ...], str] = {}
    for char in sorted(near, key=lambda char: (not char.isalnum(), char)):
        if not _FORBIDDEN.match(char):
            classes.setdefault(tuple(_has(token, char) for token in tokens), char)
    return list(classes.values())


def _around(code: int) -> Iterator[int]:
    return (one for one in (code - 1, code, code + 1) if 0 <= one <= 0x10FFFF)
