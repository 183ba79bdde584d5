"""Loading a folder of DAG files: every new or changed file in a child process of its own, never in this one.

A file that is broken, endless or deadly is an error of that file; the others load. Called by the scheduler on a timer,
and by commands that look at DAGs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from routing.authoring.dagfile import Signature
from routing.authoring.spec import DagSpec

CHILDREN = 4
"""Files that are loaded at once."""
PATIENCE_S = 5.0
"""After so long a refresh returns without the files that still load; a later one has them."""
ROUNDS = 4
"""`load_folder` takes so many time limits of a single file at most."""
RETRY_S = 60.0
MAX_RETRY_S = 960.0
"""A broken file is tried again after `RETRY_S` even if it did not change (what it lacked may be there now), then after
twice as long each time, up to `MAX_RETRY_S`."""
MAX_FILE_BYTES = 4 * 1024 * 1024
"""A larger file is not loaded: it is data and no code, and its parser would take gigabytes."""
# The child ends itself when its time is up and says where it stood; one that cannot is killed so much later.
_KILL_AFTER_S = 2.0
_READ_LIMIT_BYTES = 64 * 1024 * 1024
# What an author's file does while it is loaded needs no broker, result backend or database.
_SECRET = re.compile(r"PODYARD_(BROKER|RESULTS|DATABASE|FLOWER)__")


@dataclass(frozen=True, slots=True)
class LoadError:
    """Why a file, or one DAG of it, cannot be used. `file` is relative to the folder; "" is the folder itself."""

    file: str
    line: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder holds now."""

    dags: tuple[DagSpec, ...]
    errors: tuple[LoadError, ...]


@dataclass(frozen=True, slots=True)
class _Version:
    """What is known of one file: its newest version, and the DAGs of its last version that could be used."""

    signatures: Mapping[str, Signature | None]
    """Of the file itself and the helper modules that it imports."""
    dags: tuple[tuple[DagSpec, int | None], ...] = ()
    error: LoadError | None = None
    failures: int = 0
    """How often in a row it could not be loaded."""
    loaded_mono_s: float = 0.0

    def is_worth_another_try(self, now_mono_s: float) -> bool:
        """Whether a broken file should be loaded again although nothing has changed."""
        return bool(self.failures) and now_mono_s - self.loaded_mono_s >= min(
            RETRY_S * 2 ** (self.failures - 1), MAX_RETRY_S
        )


class FolderLoader:
    """Keeps what is known of a folder's files, so that a refresh costs one look at each that did not change.

    A file that breaks keeps serving the DAGs of its last good version, as long as this object lives.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self.folder = folder
        self.timeout_s = timeout_s
        self._versions: dict[str, _Version] = {}
        self._pending: dict[str, Future[_Version]] = {}
        # Threads, which only wait: the file is executed in a child of its own.
        self._pool = ThreadPoolExecutor(CHILDREN, thread_name_prefix="load")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def refresh(self, *, patience_s: float = PATIENCE_S) -> Loaded:
        """Loads what is new or has changed and returns the whole. Never raises for what is in the folder.

        Files that take longer than `patience_s` go on loading; until a later refresh has them, their last version
        counts.
        """
        folder = self.folder.absolute()
        try:
            files, errors = _files(folder)
        except OSError as error:
            return Loaded((), (LoadError("", None, _folder_message(folder, error)),))
        self._start(files, folder)
        wait(self._pending.values(), patience_s)
        for file in [file for file, future in self._pending.items() if future.done()]:
            self._versions[file] = self._pending.pop(file).result()
        self._versions = {file: self._versions[file] for file in files if file in self._versions}
        return _gather(self._versions, errors)

    def loading(self) -> tuple[str, ...]:
        """The files that the last refresh did not wait for."""
        return tuple(sorted(self._pending))

    def close(self) -> None:
        """Ends children that are still running; a refresh in another thread then returns soon."""
        self._closed = True
        self._pool.shutdown(wait=False)
        for process in list(self._running):
            _kill(process)

    def _start(self, files: Iterable[str], folder: Path) -> None:
        if self._closed:
            return
        now_mono_s = time.monotonic()
        stale = [file for file in files if file not in self._pending and self._is_stale(file, folder, now_mono_s)]
        # Those that broke last time go last: an endless file must not keep the others waiting.
        for file in sorted(stale, key=lambda file: file in self._versions and self._versions[file].failures):
            with contextlib.suppress(RuntimeError):  # closed by another thread in this moment
                self._pending[file] = self._pool.submit(self._load, file, folder)

    def _is_stale(self, file: str, folder: Path, now_mono_s: float) -> bool:
        known = self._versions.get(file)
        if known is None or known.is_worth_another_try(now_mono_s):
            return True
        return any(_signature(folder / path) != signature for path, signature in known.signatures.items())

    def _load(self, file: str, folder: Path) -> _Version:
        """The file's version now."""
        before = self._versions.get(file, _Version({}))
        if self._closed:
            return before
        # Before it is read: a file that is changed while it loads is stale again at the next look.
        signature = _signature(folder / file)
        try:
            found = _too_large(signature) or self._run_child(file, folder)
        except OSError as failure:
            found = _error(f"it could not be loaded: no process could be started for it: {failure}")
        helpers = {str(helper): _signature(Path(helper)) for helper in found["helpers"]}
        version = _Version({file: signature, **helpers}, loaded_mono_s=time.monotonic())
        if found["error"] is None:
            return replace(version, dags=tuple((DagSpec.from_json(one["spec"]), one["line"]) for one in found["dags"]))
        # A child that died could not say what it had imported; the helpers of before may be what broke it.
        if not found["helpers"]:
            version = replace(version, signatures={**before.signatures, file: signature})
        error = LoadError(file, found["error"]["line"], found["error"]["message"])
        return replace(version, error=error, dags=before.dags, failures=before.failures + 1)

    def _run_child(self, file: str, folder: Path) -> dict[str, Any]:
        # Files and no pipes: a pipe that is full blocks the child, and one that
        # a leftover program holds open never ends.
        with tempfile.TemporaryFile() as result, tempfile.TemporaryFile() as trace:
            command = [sys.executable, "-P", "-m", "routing.authoring.child", str(folder), file, str(self.timeout_s)]
            process = subprocess.Popen(
                [*command, str(result.fileno()), str(trace.fileno())],
                env={**child_environment(), "PODYARD_DAGS__FOLDER": str(folder)},
                stdin=subprocess.DEVNULL,
                # What a file prints would come again at each load, in the scheduler's log.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(result.fileno(), trace.fileno()),
                # A group of its own, so that what the file has started can be ended with it.
                start_new_session=True,
            )
            with self._running_child(process):
                try:
                    code = process.wait(self.timeout_s + _KILL_AFTER_S)
                except subprocess.TimeoutExpired:
                    _kill(process)
                    code = None
            return _read(result) or _died(code, _text(trace), folder / file, timeout_s=self.timeout_s)

    @contextlib.contextmanager
    def _running_child(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        self._running.add(process)
        try:
            if self._closed:
                _kill(process)
            yield
        finally:
            _kill(process)  # with whatever the author's code has started
            self._running.discard(process)


def child_environment() -> dict[str, str]:
    """This process's environment for author's code, without what the scheduler alone needs to know."""
    return {name: value for name, value in os.environ.items() if not _SECRET.match(name)}


def load_folder(folder: Path, *, timeout_s: float) -> Loaded:
    """Loads all DAG files of a folder once; each may take `timeout_s` seconds, all together `ROUNDS` times that."""
    loader = FolderLoader(folder, timeout_s)
    try:
        loaded = loader.refresh(patience_s=ROUNDS * timeout_s + _KILL_AFTER_S)
    finally:
        loader.close()
    late = (LoadError(file, None, "not loaded: other files took all the time") for file in loader.loading())
    return replace(loaded, errors=(*loaded.errors, *late))


def _files(folder: Path) -> tuple[list[str], list[LoadError]]:
    """Paths of the Python files in the folder, relative to it and sorted, and errors of links that lead nowhere.

    Hidden files and folders are left out (a mounted ConfigMap and git-sync keep copies in some), and virtual
    environments. Links are followed; what was seen under one path is not taken again under another.
    """
    files: list[str] = []
    errors: list[LoadError] = []
    seen: set[tuple[int, int]] = set()
    if not folder.is_dir():
        raise NotADirectoryError if folder.exists() else FileNotFoundError
    for root, names, entries in os.walk(folder, followlinks=True, onerror=_raise_for(folder)):
        names[:] = sorted(name for name in names if name[0] != "." and name != "__pycache__")
        names[:] = [name for name in names if not Path(root, name, "pyvenv.cfg").exists()]
        names[:] = [name for name in names if _first_time(Path(root, name), seen)]
        for path in sorted(Path(root, entry) for entry in entries if entry.endswith(".py") and entry[0] != "."):
            relative = path.relative_to(folder).as_posix()
            if not path.exists():
                errors.append(LoadError(relative, None, "the link leads nowhere; remove it, or restore its target"))
            elif path.is_file() and _first_time(path, seen):
                files.append(relative)
    return sorted(files), errors


def _raise_for(folder: Path) -> Any:
    def raise_if_top(error: OSError) -> None:
        # A folder below that cannot be read must not hide the files of all others.
        if error.filename == str(folder):
            raise error

    return raise_if_top


def _first_time(path: Path, seen: set[tuple[int, int]]) -> bool:
    with contextlib.suppress(OSError):
        status = path.stat()
        # By inode: links may make a circle, and two paths may lead to one file.
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            return False
        seen.add(identity)
    return True


def _gather(versions: Mapping[str, _Version], errors: Iterable[LoadError]) -> Loaded:
    """All DAGs, by path of their file; a dag_id that was seen before is an error of the later file."""
    dags: dict[str, DagSpec] = {}
    found = list(errors)
    # In one order, so that of two files with the same DAG it is always the same one that counts.
    for file in sorted(versions):
        version = versions[file]
        if version.error:
            kept = f" (the last good version of the file stays in use: {_listed(version)})" if version.dags else ""
            found.append(replace(version.error, message=version.error.message + kept))
        for dag, line in version.dags:
            first = dags.setdefault(dag.dag_id, dag)
            if first is not dag:
                message = f"DAG {dag.dag_id!r} is defined in {first.file}, too, which stays in use; rename one of them"
                found.append(LoadError(file, line, message))
    return Loaded(tuple(dags.values()), tuple(sorted(found, key=lambda error: (error.file, error.line or 0))))


def _too_large(signature: Signature | None) -> dict[str, Any] | None:
    """What to say of a file that is too large to be looked into; None for others."""
    size = signature[1] if signature is not None else 0
    if size <= MAX_FILE_BYTES:
        return None
    return _error(
        f"the file has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}; keep data in a file of its own and"
        " read it in tasks"
    )


def _listed(version: _Version) -> str:
    return ", ".join(repr(dag.dag_id) for dag, _ in version.dags)


def _read(result: IO[bytes]) -> dict[str, Any] | None:
    """What the child wrote; None if it did not come to that."""
    result.seek(0)
    try:
        found = json.loads(result.read(_READ_LIMIT_BYTES))
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"dags", "helpers", "error"} <= found.keys() else None


def _text(trace: IO[bytes]) -> str:
    trace.seek(0)
    return trace.read(_READ_LIMIT_BYTES).decode(errors="replace")


def _died(code: int | None, trace: str, path: Path, *, timeout_s: float) -> dict[str, Any]:
    """What to say of a child that left no result: by its exit code and the stack that it dumped."""
    if code is None or trace.startswith("Timeout"):
        message = f"loading it took longer than {timeout_s:g} s; do the work in tasks, not while the file is loaded"
    elif code in (-signal.SIGXCPU, -signal.SIGKILL):
        message = f"loading it was ended by {signal.Signals(-code).name}: it used too much time or memory"
    elif code < 0:
        message = f"loading it crashed the interpreter ({_signal_name(-code)})"
    else:
        message = f"it ended the interpreter (exit code {code}) while it was loaded"
    return _error(message, line=_line(trace, path))


def _error(message: str, *, line: int | None = None) -> dict[str, Any]:
    return {"dags": [], "helpers": [], "error": {"line": line, "message": message}}


def _line(trace: str, path: Path) -> int | None:
    """The innermost line of the file in a stack dump of faulthandler, which begins with the innermost frame."""
    found = re.search(rf'File "{re.escape(str(path))}", line (\d+)', trace)
    return int(found[1]) if found else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # No SIGTERM before it: the author's code may ignore that, and owes us nothing but a result.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _folder_message(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the DAG folder {folder} does not exist; make it, or set dags.folder"
    if isinstance(error, NotADirectoryError):
        return f"the DAG folder {folder} is a file; set dags.folder to a folder"
    return f"the DAG folder {folder} cannot be read: {error.strerror}"
