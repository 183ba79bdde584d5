"""Pod templates: reads one, or says exactly what is wrong with it.

A template is a YAML file with one Pod: a container named `base` that has an image, and a `metadata.name`, which is
replaced at launch. `Templates` is for the dispatcher: it reads each file once, and again when it changes. Never merges
and never fills anything in.
"""

import functools
import importlib.resources
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dispatcher import errors, podfields, podmerge

_MAX_BYTES = 1_048_576  # the API server takes no larger object either
_MAX_DEPTH = 64  # a Pod is nested less than 20 deep
_MAX_VALUES = 20_000  # with aliases expanded
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def load_template(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The pod of the file at `path` as plain dicts and lists, checked; fields that are null are left out.

    Raises InvalidTemplate, which names the file, the field and what is wrong.
    """
    try:
        return _checked(_document(_text(path)))
    except _Wrong as wrong:
        raise errors.InvalidTemplate(f"pod template {os.fspath(path)}: {wrong}") from None


def resolve(template: str, *, folder: Path | None = None) -> Path:
    """The file of a template as settings name it: the name of a shipped one, or a path.

    A word of letters, digits, `-` and `_` is a name in `folder` (default: the shipped templates); everything else is a
    path, relative to the current folder. Raises InvalidTemplate if there is no template of that name; whether a path
    exists is seen when it is read.
    """
    if not _NAME.fullmatch(template):
        return Path(template)
    shelf = folder or _shipped_folder()
    path = shelf / f"{template}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in shelf.glob("*.yaml"))) or "(none)"
        raise errors.InvalidTemplate(
            f"pod template {template!r}: no template of that name; there are {known}; "
            f"to name a file, give a path such as ./{template}.yaml"
        )
    return path


class Templates:
    """Templates by name or path, each file read once and again when it has changed.

    Good for one thread at a time per instance, or for several: the worst that a race costs is a second reading.
    """

    def __init__(self, *, folder: Path | None = None) -> None:
        self._folder = folder
        self._read: dict[Path, _Reading] = {}

    def get(self, template: str) -> Mapping[str, Any]:
        """The checked pod of a template; shared between callers, who must not change it. Raises InvalidTemplate."""
        path = resolve(template, folder=self._folder)
        stamp = _stamp(path)
        known = self._read.get(path)
        if known is None or known.stamp != stamp or stamp is None:
            known = _Reading.of(path, stamp)
            self._read[path] = known
        if isinstance(known.outcome, errors.InvalidTemplate):
            raise errors.InvalidTemplate(str(known.outcome))
        return known.outcome


@dataclass(frozen=True)
class _Reading:
    """What one reading of a file gave; a broken file is not read for every message either."""

    stamp: tuple[int, ...] | None
    outcome: Mapping[str, Any] | errors.InvalidTemplate

    @classmethod
    def of(cls, path: Path, stamp: tuple[int, ...] | None) -> "_Reading":
        try:
            return cls(stamp, load_template(path))
        except errors.InvalidTemplate as wrong:
            return cls(stamp, wrong)


class _Wrong(Exception):  # noqa: N818 - says what is wrong, without the file
    """What is wrong with a file."""


@functools.cache
def _shipped_folder() -> Path:
    return Path(str(importlib.resources.files("podyard_templates")))


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when a file changes; a mounted ConfigMap changes its inode. None if it cannot be seen."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def _text(path: str | os.PathLike[str]) -> str:
    """The text of a regular file of bearable size."""
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise _Wrong("is a folder; name a file in it")
        if not stat.S_ISREG(mode):
            raise _Wrong("is not a regular file")
        with Path(path).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise _Wrong("the file does not exist") from None
    except OSError as error:
        raise _Wrong(f"the file cannot be read: {error.strerror}") from None
    except ValueError as error:  # a path with a NUL in it
        raise _Wrong(f"is no path: {error}") from None
    if len(content) > _MAX_BYTES:
        raise _Wrong(f"is larger than {_MAX_BYTES} bytes")
    return _decoded(content)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Wrong(f"line {line}: is not UTF-8 (byte 0x{content[error.start]:02x})") from None


class _Loader(yaml.SafeLoader):
    """YAML as the Kubernetes tools read it: a bare date is a text."""


_TEXT_AFTER_ALL = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TEXT_AFTER_ALL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}


def _document(text: str) -> Any:
    """The one document of a YAML text; refuses what would take long before it takes long."""
    try:
        _check_size(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Expansion().of(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _Wrong(f"{where}is not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise _Wrong(f"is not valid YAML: the character {error.character!r} is not allowed") from None
    except (ValueError, KeyError) as error:  # `!!int x`, `!!bool x`
        raise _Wrong(f"is not valid YAML: {error}") from None


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
            raise _Wrong(f"line {line}: a second document starts; a template is one Pod")
        if depth > _MAX_DEPTH:
            raise _Wrong(f"line {line}: is nested more than {_MAX_DEPTH} deep")
        if count > _MAX_VALUES:
            raise _Wrong(f"line {line}: holds more than {_MAX_VALUES} values")


class _Expansion:
    """Counts what a graph of YAML nodes becomes once its aliases are expanded, visiting each node once."""

    def __init__(self) -> None:
        self._known: dict[yaml.Node, tuple[int, int] | None] = {}

    def of(self, node: yaml.Node) -> tuple[int, int]:
        """Values and depth below `node`."""
        if node in self._known:
            known = self._known[node]
            if known is None:
                raise _Wrong(f"line {node.start_mark.line + 1}: an alias stands inside of what it stands for")
            return known
        self._known[node] = None
        if node.tag not in _TAGS:
            raise _Wrong(f"line {node.start_mark.line + 1}: the YAML tag {node.tag} has no meaning here")
        below = [self.of(child) for child in _children(node)]
        values = 1 + sum(count for count, _ in below)
        depth = 1 + max((deep for _, deep in below), default=0)
        if values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise _Wrong(f"line {node.start_mark.line + 1}: grows too large when its aliases are expanded")
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
        if (key.tag, key.value) in seen:
            raise _Wrong(f"line {key.start_mark.line + 1}: {key.value}: this key stands twice in one mapping")
        seen.add((key.tag, key.value))


def _checked(document: Any) -> dict[str, Any]:
    """The document as a Pod that can be launched once it has an identity."""
    if not isinstance(document, Mapping):
        raise _Wrong("is empty" if document is None else "is not a mapping; a template is one Pod")
    try:
        pod = podfields.plain_pod(document, keep_nulls=False)
        podmerge.check_keys(pod)
    except podfields.WrongField as wrong:
        raise _Wrong(str(wrong)) from None
    _check_kind(pod)
    if not pod.get("metadata", {}).get("name", "").strip():
        raise _Wrong("metadata.name: is missing; any name will do, it is replaced at launch")
    _check_containers(pod.get("spec", {}))
    return pod


def _check_kind(pod: Mapping[str, Any]) -> None:
    for field, wanted in (("apiVersion", "v1"), ("kind", "Pod")):
        if pod.get(field, wanted) != wanted:
            raise _Wrong(f"{field}: must be {wanted}, not {pod[field]!r}; a template is one Pod")


def _check_containers(spec: Mapping[str, Any]) -> None:
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field, [])):
            if container["name"] in names:
                raise _Wrong(f"spec.{field}[{index}].name: a second container is named {container['name']!r}")
            names.add(container["name"])
    containers = spec.get("containers", [])
    base = next((index for index, container in enumerate(containers) if container["name"] == podmerge.BASE), None)
    if base is None:
        raise _Wrong(f"spec.containers: none is named {podmerge.BASE!r}, which is the one that runs the task")
    if not containers[base].get("image", "").strip():
        raise _Wrong(f"spec.containers[{base}].image: is missing; the container {podmerge.BASE!r} needs an image")
