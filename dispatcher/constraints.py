"""Constraints: what a value of a setting may be, as an annotation that both checks it and says it in words.

A key of a settings table is a field of a dataclass, annotated by one of the types below and `about(...)`. `Key.read`
checks a value as it stands in a file, `Key.parse` makes such a value of an environment variable's text; msgspec does
both. Docs, errors and readers take words and defaults from the same field, so a key is written once. No I/O.
"""

import difflib
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

_LARGEST = sys.float_info.max
"""msgspec has no "finite": infinity is more than this."""
_SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def about(description: str, *, allowed: str | None = None) -> Meta:
    """What a key does; `allowed` ends the sentence "must be …" where the type's own words do not fit."""
    return Meta(description=description, title=allowed)


def _by(check: str) -> Meta:
    return Meta(extra={"check": check})


Text = Annotated[str, Meta(min_length=1, title="a non-empty string")]
Texts = Annotated[tuple[Text, ...], Meta(title="a list of strings (in the environment separated by commas)")]
Flag = Annotated[bool, Meta(title="true or false")]
Natural = Annotated[int, Meta(ge=0, title="an integer, 0 or more")]
Count = Annotated[int, Meta(ge=1, title="an integer of at least 1")]
Number = Annotated[float, Meta(ge=0, le=_LARGEST, title="a number, 0 or more")]
Delay = Annotated[float, Meta(ge=0, le=_LARGEST, title="a number of seconds, 0 or more")]
Seconds = Annotated[float, Meta(gt=0, le=_LARGEST, title="a number of seconds above 0")]
Port = Annotated[int, Meta(ge=0, le=65_535, title="a port number, 0 to 65535")]
Growth = Annotated[float, Meta(gt=1, le=10, title="a number above 1, at most 10, such as 1.5")]
File = Annotated[Path, Meta(title="the path of a file")]
Folder = Annotated[Path, Meta(title="the path of a folder")]
Namespace = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z",
        title="a namespace's name: 1 to 63 lower-case letters, digits and dashes, no dash at either end",
    ),
]
Reference = Annotated[str, Meta(pattern=r"\A[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z", title="module:attribute")]
Environment = Annotated[
    dict[Annotated[str, Meta(pattern=r"\A[^=\0]+\Z")], str],
    Meta(title='a table of names and strings, such as { LANG = "C.UTF-8" } (in the environment as JSON)'),
]
NamespaceCounts = Annotated[
    dict[Namespace, Count],
    Meta(title="a table of namespaces and integers of at least 1 (in the environment as JSON)"),
]
Memory = Annotated[str, _by("memory"), Meta(title='an amount of memory such as "8Gi"')]
Waits = Annotated[
    dict[str, str],
    _by("waits"),
    Meta(title='a table of waits, such as { image = "fail after 10m" } (in the environment as JSON)'),
]
Template = Annotated[Text, _by("template"), Meta(title="the name of a shipped template, or the path of one")]


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a table of settings."""

    name: str
    annotation: Any
    default: Any
    """A new value each time would be too much: tables are read, never changed."""
    allowed: str
    """Ends the sentence "must be …"."""
    description: str
    kind: type
    """The plain type of its values: str, int, float, bool, dict, tuple or Path."""
    check: str | None
    """The name of a check that no annotation can spell (`dispatcher.settings.reading` has them)."""

    def read(self, raw: object) -> Any:
        """The value that stands in a file. Raises ValueError whose text says what it must be instead."""
        # msgspec knows no paths.
        if self.kind is Path:
            if isinstance(raw, str) and raw:
                return Path(raw)
            if isinstance(raw, Path):
                return raw
        else:
            try:
                return msgspec.convert(dict(raw) if isinstance(raw, Mapping) else raw, self.annotation)
            except msgspec.ValidationError:
                pass
        raise ValueError(f"must be {self.allowed}{self._where(raw)}{nearest(raw, self.choices)}")

    def parse(self, text: str) -> Any:
        """What the text of an environment variable means, for `read`; the text itself where it means nothing."""
        try:
            if self.kind is dict:
                return json.loads(text)
            if self.kind is tuple:
                return [part.strip() for part in text.split(",") if part.strip()]
            if self.kind in (bool, int, float):
                text = _SWITCHES.get(text.lower(), text) if self.kind is bool else text
                # Not strict: "3" is a number here, since a variable knows
                # only text. The plain type, for `read` says what is allowed.
                return msgspec.convert(text, self.kind, strict=False)
        except ValueError:
            pass
        return text

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that a key may have, where it is a choice."""
        return tuple(word for part in _parts(self.annotation) if get_origin(part) is Literal for word in get_args(part))

    def _where(self, raw: object) -> str:
        """Which entry of a table is wrong; its value may be a secret."""
        if self.kind is not dict or not isinstance(raw, Mapping):
            return ""
        for name, value in raw.items():
            try:
                msgspec.convert({name: value}, self.annotation)
            except msgspec.ValidationError:
                return f"; the entry {name!r} is not"
        return ""


def keys_of(table: type[Any]) -> Mapping[str, Key]:
    """The keys of a table: a dataclass whose fields are annotated, in their order."""
    # Once for each table: every rule of every queue asks for them.
    if table not in _KEYS:
        _KEYS[table] = MappingProxyType(_read_keys(table))
    return _KEYS[table]


def _read_keys(table: type[Any]) -> dict[str, Key]:
    hints = get_type_hints(table, include_extras=True)
    return {one.name: _key(one.name, hints[one.name], _default(one)) for one in fields(table)}


_KEYS: dict[type[Any], Mapping[str, Key]] = {}


def nearest(word: object, known: Collection[str]) -> str:
    """A hint for a word that is none of these, or "" where none is like it."""
    near = difflib.get_close_matches(str(word), known, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _key(name: str, annotation: Any, default: Any) -> Key:
    """Of several words for one thing the outermost annotation's count."""
    choices = [word for part in _parts(annotation) if get_origin(part) is Literal for word in get_args(part)]
    # Outermost first: what a field says by `about` wins over what its type says.
    metas = [meta for part in _parts(annotation) for meta in reversed(getattr(part, "__metadata__", ()))]
    words = " or ".join(f'"{word}"' for word in choices)
    return Key(
        name=name,
        annotation=annotation,
        default=default,
        allowed=next((meta.title for meta in metas if meta.title), words),
        description=next((meta.description for meta in metas if meta.description), ""),
        kind=_kind(annotation),
        check=next((meta.extra["check"] for meta in metas if meta.extra), None),
    )


def _default(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default


def _kind(annotation: Any) -> type:
    plain = next(part for part in _parts(annotation) if part is not NoneType and get_origin(part) is not Annotated)
    if get_origin(plain) is Literal:
        return str
    return get_origin(plain) or plain  # type: ignore[no-any-return]


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and what it is made of, without what containers contain."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for one in get_args(annotation):
            yield from _parts(one)
        return
    yield annotation
    if origin is Annotated:
        yield from _parts(annotation.__origin__)
