"""Patterns of queue names: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`, matched as Python's `fnmatch.fnmatchcase` does.

`routing.router` asks two questions here: does a pattern match a name, and is there any queue name at all that a pattern
would decide, given the patterns that are asked before it. The second is answered exactly, not by guessing: patterns are
small automata, so "everything that it matches is matched above it" can be decided. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

MAX_NAME_BYTES = 255
"""AMQP's bound on a queue name, kept for every broker so that a name stays usable when the broker changes."""

_MAX_STEPS = 100_000
"""Moves of automata before the search for a deciding name gives up and trusts the author: under a second."""
_FORBIDDEN = ((0x00, 0x1F), (0x2C, 0x2C), (0x7F, 0x9F), (0xD800, 0xDFFF))
"""Control characters, the comma (Celery's `-Q` splits at it), lone surrogates."""


@dataclass(frozen=True)
class Chars:
    """One character of a name: any of the ranges, or any but them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def has(self, code: int) -> bool:
        """Whether the character with this code point is meant."""
        return any(low <= code <= high for low, high in self.ranges) != self.negated


ANY = Chars((), negated=True)
Token = Chars | None
"""None is `*`: any characters, also none."""


def is_pattern(name: str) -> bool:
    """Whether a rule's name has wildcards (an unclosed `[` is an ordinary character, as in a shell)."""
    at = 0
    while at < len(name):
        _, after = _token(name, at)
        if name[at] in "*?" or after > at + 1:
            return True
        at = after
    return False


def parse(pattern: str) -> tuple[Token, ...]:
    """The tokens of a pattern; several `*` in a row are one."""
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        token, at = _token(pattern, at)
        if not (token is None and tokens and tokens[-1] is None):
            tokens.append(token)
    return tuple(tokens)


def matches(tokens: Sequence[Token], name: str) -> bool:
    """Whether the whole name is matched; linear in the name, however many `*` there are."""
    states = _closure({0}, tokens)
    for char in name:
        states = _step(states, tokens, ord(char))
        if not states:
            return False
    return len(tokens) in states


def invalid_name(name: str) -> str | None:
    """Why no queue can have this name (or no name fits this pattern's text), or None."""
    if not name:
        return "it is empty"
    if name != name.strip():
        return "it begins or ends with white space"
    bad = next((char for char in name if _forbidden(ord(char))), None)
    if bad is not None:
        return f"no queue name can have the character {bad!a}"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    return None


def find_decided(pattern: Sequence[Token], above: Sequence[Sequence[Token]]) -> str | None:
    """A queue name that the pattern matches and no pattern above it does; None if there is none.

    Where the search grows too large (many `*` in many patterns), "" is returned: nothing was proved.
    """
    machines = (pattern, *above)
    alphabet = _alphabet(machines)
    guess = next((name for name in _guesses(pattern, alphabet) if not any(matches(one, name) for one in above)), None)
    return guess or _search(machines, alphabet)


def _guesses(pattern: Sequence[Token], alphabet: Sequence[int]) -> Iterator[str]:
    """Names that the pattern matches, each wildcard filled with one same character: nearly always enough."""
    for filler in alphabet:
        codes = [
            filler if token is None or token.has(filler) else next(filter(token.has, alphabet), None)
            for token in pattern
        ]
        if None not in codes:
            yield "".join(chr(code) for code in codes if code is not None)


def _search(machines: Sequence[Sequence[Token]], alphabet: Sequence[int]) -> str | None:
    """Breadth first through the product of the automata, so every state is seen once and the answer is a proof."""
    start = tuple(_closure({0}, tokens) for tokens in machines)
    seen = {start}
    front = [("", start)]
    steps = 0
    for _ in range(MAX_NAME_BYTES):
        following = []
        for (prefix, states), code in product(front, alphabet):
            steps += len(machines)
            after = tuple(_step(one, tokens, code) for one, tokens in zip(states, machines, strict=True))
            if not after[0] or after in seen:
                continue
            if _decides(after, machines):
                return prefix + chr(code)
            seen.add(after)
            following.append((prefix + chr(code), after))
            if steps > _MAX_STEPS:
                return ""
        front = following
    return None


def _decides(states: Sequence[frozenset[int]], machines: Sequence[Sequence[Token]]) -> bool:
    accepts = [len(tokens) in one for one, tokens in zip(states, machines, strict=True)]
    return accepts[0] and not any(accepts[1:])


def _token(pattern: str, at: int) -> tuple[Token, int]:
    char = pattern[at]
    if char == "*":
        return None, at + 1
    if char == "?":
        return ANY, at + 1
    if char == "[":
        # As in fnmatch, a "]" directly after "[" or "[!" is an ordinary member of the class.
        first = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
        end = pattern.find("]", first + 1)
        if end != -1:
            return Chars(_ranges(pattern[first:end]), negated=first == at + 2), end + 1
    return Chars(((ord(char), ord(char)),)), at + 1


def _ranges(body: str) -> tuple[tuple[int, int], ...]:
    """`a-cx` -> a to c, and x; a range written backwards has no members."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            low, high = ord(body[at]), ord(body[at + 2])
            found += [(low, high)] if low <= high else []
            at += 3
        else:
            found.append((ord(body[at]), ord(body[at])))
            at += 1
    return tuple(found)


def _closure(states: set[int], tokens: Sequence[Token]) -> frozenset[int]:
    """The states reached without reading: past each `*`."""
    reached = set(states)
    for state in sorted(states):
        after = state
        while after < len(tokens) and tokens[after] is None:
            after += 1
            reached.add(after)
    return frozenset(reached)


def _step(states: frozenset[int], tokens: Sequence[Token], code: int) -> frozenset[int]:
    following: set[int] = set()
    for state in states:
        if state < len(tokens):
            token = tokens[state]
            if token is None:
                following.add(state)
            elif token.has(code):
                following.add(state + 1)
    return _closure(following, tokens)


def _forbidden(code: int) -> bool:
    return any(low <= code <= high for low, high in _FORBIDDEN)


def _alphabet(machines: Sequence[Sequence[Token]]) -> list[int]:
    """One character for each stretch of code points between which no token tells a difference."""
    ranges = [
        *_FORBIDDEN,
        *(pair for tokens in machines for token in tokens if token is not None for pair in token.ranges),
    ]
    borders = {0x21, *(low for low, _ in ranges), *(high + 1 for _, high in ranges)}
    return [code for code in sorted(borders) if code <= 0x10FFFF and not _forbidden(code)]
