"""A DAG file: executed as a module, once per process and version of the file.

Both the child process that loads a file for the scheduler and the process that runs a task's body come through here, so
that they cannot disagree on what a file says.
"""

from __future__ import annotations

import os
import re
import sys
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

from routing.authoring import dag as dags
from routing.errors import InvalidDag

RECHECK_S = 1.0
"""How long a process may go on with a helper module that has changed on disk. The DAG file itself is always checked."""

_PREFIX = "podyard_dag_"
_OURS = frozenset({"__main__", "dispatcher", "routing"})

Signature = tuple[int, int]
"""Modification time in ns, and size: what distinguishes one version of a file from another."""


@dataclass(slots=True)
class DagFile:
    """What one version of a file holds."""

    dags: Mapping[str, dags.DAG]
    signature: Signature
    helpers: Mapping[Path, Signature]
    """Modules in the DAG folder that were imported when it was loaded."""
    checked_mono_s: float


_loaded: dict[tuple[str, str], DagFile] = {}


def load(folder: Path, file: str) -> DagFile:
    """The file at this path relative to the folder; executed only if it, or a helper module, is new or has changed.

    Raises what the file's code raises, OSError where it cannot be read, InvalidDag for a path outside of the folder
    or a dag_id that it defines twice.
    """
    key = (str(folder), file)
    known = _loaded.get(key)
    path = os.path.join(key[0], file)  # on the path of every task, and pathlib takes ten times as long
    if known is not None and known.signature == _signature(path) and _helpers_unchanged(known):
        return known
    _refuse_outside(file)
    if known is not None:
        forget_helpers(folder)
    _loaded.pop(key, None)
    _loaded[key] = found = _execute(Path(path), folder)
    return found


def forget_helpers(folder: Path) -> None:
    """Makes modules of the folder be imported again: one of them may have changed."""
    for name in [name for name, module in sys.modules.items() if _is_helper(name, module, folder)]:
        del sys.modules[name]


def _execute(path: Path, folder: Path) -> DagFile:
    signature = _signature(path)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # at the end: a helper named like an installed package must not replace it
    module = ModuleType(_module_name(path))
    module.__file__ = str(path)
    # Data classes and pickle look a class's module up there.
    sys.modules[module.__name__] = module
    # Compiled here and not by the import system: its cache distinguishes versions by whole seconds only.
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    with dags.collecting() as made:
        exec(code, module.__dict__)  # noqa: S102 - running the author's file is the purpose
    found: dict[str, dags.DAG] = {}
    for dag in made:
        if dag.file != str(path):
            continue  # it belongs to a module that this file imports
        if dag.dag_id in found:
            raise InvalidDag(f"the file defines DAG {dag.dag_id!r} twice; rename one", line=dag.line)
        found[dag.dag_id] = dag
    return DagFile(found, signature, helpers(folder, path), time.monotonic())


def helpers(folder: Path, path: Path) -> dict[Path, Signature]:
    modules = list(sys.modules.items())
    inside = [Path(str(module.__file__)) for name, module in modules if _is_helper(name, module, folder)]
    return {helper: _signature(helper) for helper in inside if helper != path and helper.exists()}


def _helpers_unchanged(known: DagFile) -> bool:
    if not known.helpers or time.monotonic() - known.checked_mono_s < RECHECK_S:
        return True
    known.checked_mono_s = time.monotonic()
    try:
        return all(_signature(path) == signature for path, signature in known.helpers.items())
    except OSError:
        return False


def _is_helper(name: str, module: object, folder: Path) -> bool:
    """Whether it is an author's module in the folder. A virtual environment or a checkout of Podyard may lie there,
    too, and other DAG files are no helpers."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.startswith(f"{folder}{os.sep}") or not file.endswith(".py"):
        return False
    is_installed = "site-packages" in file or "dist-packages" in file
    return not is_installed and not name.startswith(_PREFIX) and name.partition(".")[0] not in _OURS


def _signature(path: Path | str) -> Signature:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def _refuse_outside(file: str) -> None:
    """A message says which file is executed: it must not reach beyond the DAG folder."""
    parts = PurePosixPath(file).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise InvalidDag(f"the path {file!r} does not lie in the DAG folder")


def _module_name(path: Path) -> str:
    readable = re.sub(r"\W", "_", path.stem)
    return f"{_PREFIX}{zlib.crc32(str(path).encode(errors='surrogateescape')):08x}_{readable}"
