"""YAML files: reads one document of a file, and refuses what would take long before it takes long.

A file comes from people, and one bad file must fail alone: not the process by its memory, its stack or its time. Knows
nothing of pods; `dispatcher.manifests.template` calls it.
"""

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

_MAX_BYTES = 1_048_576  # no object of the API server is larger either
_MAX_DEPTH = 64  # a Pod is nested less than 20 deep
_MAX_VALUES = 20_000  # with aliases expanded


class UnreadableFile(Exception):
    """What is wrong with a file, without its name."""


def read(path: str | os.PathLike[str]) -> Any:
    """The one document of the file at `path`: dicts, lists, texts, numbers, booleans and None; raises UnreadableFile.

    A bare date is a text, as for the Kubernetes tools. A key that stands twice in one mapping is a mistake.
    """
    return _document(_text(path))


def _text(path: str | os.PathLike[str]) -> str:
    """The text of a regular file of bearable size."""
    try:
        mode = Path(path).stat().st_mode
        # Before it is opened: opening a FIFO waits for a writer, and a device may never end.
        if stat.S_ISDIR(mode):
            raise UnreadableFile("is a folder; name a file in it")
        if not stat.S_ISREG(mode):
            raise UnreadableFile("is not a regular file")
        with Path(path).open("rb") as file:
            # One byte more says that there is more; a size that was asked for beforehand may be another by now.
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableFile("the file does not exist") from None
    except OSError as error:
        raise UnreadableFile(f"the file cannot be read: {error.strerror}") from None
    except ValueError as error:  # a path with a NUL in it
        raise UnreadableFile(f"is not a path: {error}") from None
    if len(content) > _MAX_BYTES:
        raise UnreadableFile(f"is larger than {_MAX_BYTES} bytes")
    return _decoded(content)


def _decoded(content: bytes) -> str:
    try:
        # Editors on Windows put a byte order mark first.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(f"line {line}: is not UTF-8 (byte 0x{content[error.start]:02x})") from None


class _Loader(yaml.SafeLoader):
    """YAML as the Kubernetes tools read it: a bare date is a text."""


# PyYAML makes a `date` of `2030-01-31`, which no label takes, and knows `=` as a tag of its own.
_TEXT_AFTER_ALL = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TEXT_AFTER_ALL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}


_EMPTY_END = re.compile(r"(^---[ \t]*(#.*)?\n(([ \t]*(#.*)?|\.\.\.[ \t]*)\n)*)+\Z", re.MULTILINE)
"""Marks of documents at the end of a text with nothing after them but comments: `helm template` and `kubectl` write
them, and they begin no second document."""


def _document(text: str) -> Any:
    """The one document of a YAML text; refuses what would take long before it takes long."""
    try:
        text = _EMPTY_END.sub("", text if text.endswith("\n") else f"{text}\n")
        # By events, before nodes are made: a file of a megabyte
        # can be nested deep enough to end the interpreter's stack.
        _check_size(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        # Then by nodes, before objects: nine levels of ten aliases each are a billion values (A19).
        _Expansion().of(node)
        # The loader is SafeLoader's: no tag can make an object of Python.
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UnreadableFile(f"{where}is not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise UnreadableFile(f"is not valid YAML: the character {error.character!r} is not allowed") from None
    except (ValueError, KeyError) as error:  # `!!int x`, `!!bool x`
        raise UnreadableFile(f"is not valid YAML: {error}") from None


def _check_size(text: str) -> None:
    """Counts nesting and values as they are written, without building anything."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        line = event.start_mark.line + 1 if event.start_mark else 0
        if documents > 1:
            raise UnreadableFile(f"line {line}: a second document starts; a template is one Pod")
        if depth > _MAX_DEPTH:
            raise UnreadableFile(f"line {line}: is nested more than {_MAX_DEPTH} deep")
        if count > _MAX_VALUES:
            raise UnreadableFile(f"line {line}: holds more than {_MAX_VALUES} values")


class _Expansion:
    """Counts what a graph of YAML nodes becomes once its aliases are expanded, visiting each node once."""

    def __init__(self) -> None:
        self._known: dict[yaml.Node, tuple[int, int] | None] = {}

    def of(self, node: yaml.Node) -> tuple[int, int]:
        """Values and depth below `node`."""
        if node in self._known:
            known = self._known[node]
            if known is None:
                raise UnreadableFile(f"line {node.start_mark.line + 1}: an alias stands inside of what it stands for")
            return known
        # Marked as open: whoever meets it again on the way down stands inside of it.
        self._known[node] = None
        if node.tag not in _TAGS:
            raise UnreadableFile(f"line {node.start_mark.line + 1}: the YAML tag {node.tag} has no meaning here")
        below = [self.of(child) for child in _children(node)]
        values = 1 + sum(count for count, _ in below)
        depth = 1 + max((deep for _, deep in below), default=0)
        if values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise UnreadableFile(f"line {node.start_mark.line + 1}: grows too large when its aliases are expanded")
        self._known[node] = values, depth
        return values, depth


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        _check_doubles(node)
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_doubles(node: yaml.MappingNode) -> None:
    """A key that stands twice: YAML readers take the last one in silence."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        # With the tag: `1` and `"1"` are two keys for YAML.
        if (key.tag, key.value) in seen:
            raise UnreadableFile(f"line {key.start_mark.line + 1}: {key.value}: this key stands twice in one mapping")
        seen.add((key.tag, key.value))
