"""Pod templates: reads one, or says exactly what is wrong with it.

A template is a YAML file with one Pod: a container named `base` that has an image, and a `metadata.name`, which is
replaced at launch. `Templates` is for the dispatcher: it reads each file once, and again when it changes. Never merges
and never fills anything in.
"""

import functools
import importlib.resources
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher import errors
from dispatcher.manifests import merge, pod_schema, safe_yaml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def load_template(path: str | os.PathLike[str], *, base: str | None = merge.BASE) -> dict[str, Any]:
    """The pod of the file at `path` as plain dicts and lists, checked; fields that are null are left out.

    `base` is the name of the container that must be there, with an image. None takes any partial Pod: the template of
    a pod whose arguments complete it.

    Raises InvalidTemplate, which names the file, the field and what is wrong.
    """
    try:
        return _checked(safe_yaml.read(path), base=base)
    except (safe_yaml.UnreadableFile, _Wrong) as wrong:
        raise errors.InvalidTemplate(f"pod template {os.fspath(path)}: {wrong}") from None


def resolve(template: str, *, folder: Path | None = None) -> Path:
    """The file of a template as settings name it: the name of a shipped one, or a path.

    A word of letters, digits, `-` and `_` is a name in `folder` (default: the shipped templates); everything else is a
    path, relative to the current folder. Raises InvalidTemplate if there is no template of that name; whether a path
    exists is seen when it is read.
    """
    # A dot or a slash makes it a path, so `./default` is a file though a shipped template has that name.
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
        self._read: dict[tuple[Path, str | None], _Reading] = {}

    def get(self, template: str, *, base: str | None = merge.BASE) -> Mapping[str, Any]:
        """The checked pod of a template; shared between callers, who must not change it. Raises InvalidTemplate.

        `base` as for `load_template`.
        """
        path = resolve(template, folder=self._folder)
        stamp = _stamp(path)
        known = self._read.get((path, base))
        # Without a stamp (the file cannot be seen) it is read each time, so that the error is the one of now.
        if known is None or known.stamp != stamp or stamp is None:
            known = _Reading.of(path, stamp, base=base)
            self._read[path, base] = known
        if isinstance(known.outcome, errors.InvalidTemplate):
            # A new one: an exception that is raised again and again grows a traceback, and is shared between threads.
            raise errors.InvalidTemplate(str(known.outcome))
        return known.outcome


@dataclass(frozen=True)
class _Reading:
    """What one reading of a file gave; a broken file is not read for every message either."""

    stamp: tuple[int, ...] | None
    outcome: Mapping[str, Any] | errors.InvalidTemplate

    @classmethod
    def of(cls, path: Path, stamp: tuple[int, ...] | None, *, base: str | None) -> "_Reading":
        try:
            return cls(stamp, load_template(path, base=base))
        except errors.InvalidTemplate as wrong:
            return cls(stamp, wrong)


class _Wrong(Exception):
    """What is wrong with a pod."""


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


def _checked(document: Any, *, base: str | None) -> dict[str, Any]:
    """The document as a Pod that can be launched once it has an identity, or (without `base`) once it is completed."""
    if not isinstance(document, Mapping):
        raise _Wrong("is empty" if document is None else "is not a mapping; a template is one Pod")
    # A Deployment, say, would be told that `spec.replicas` is an unknown field.
    _check_kind(document)  # first: the fields of another kind say nothing about what is wrong
    try:
        pod = pod_schema.plain_pod(document, keep_nulls=False)
        merge.check_keys(pod)
    except pod_schema.WrongField as wrong:
        raise _Wrong(str(wrong)) from None
    _check_names(pod.get("spec", {}))
    if base is None:
        return pod
    if not pod.get("metadata", {}).get("name", "").strip():
        raise _Wrong("metadata.name: is missing; any name will do, it is replaced at launch")
    _check_task_container(pod.get("spec", {}), base)
    return pod


def _check_kind(document: Mapping[str, Any]) -> None:
    for field, wanted in (("kind", "Pod"), ("apiVersion", "v1")):
        if document.get(field) not in (None, wanted):
            raise _Wrong(f"{field}: must be {wanted}, not {document[field]!r}; a template is one Pod")


def _check_names(spec: Mapping[str, Any]) -> None:
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field, [])):
            if container["name"] in names:
                raise _Wrong(f"spec.{field}[{index}].name: a second container is named {container['name']!r}")
            names.add(container["name"])


def _check_task_container(spec: Mapping[str, Any], base: str) -> None:
    containers = spec.get("containers", [])
    found = next((index for index, container in enumerate(containers) if container["name"] == base), None)
    if found is None:
        raise _Wrong(f"spec.containers: none is named {base!r}, which is the one that runs the task")
    if not containers[found].get("image", "").strip():
        raise _Wrong(f"spec.containers[{found}].image: is missing; the container {base!r} needs an image")
