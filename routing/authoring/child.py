"""The child process that loads one DAG file.

`python -m routing.authoring.child FOLDER FILE TIMEOUT_S RESULT_FD TRACE_FD`, started by `loading`. The author's code
may print, loop, exit or crash here; only what is written to the result descriptor counts. A dump of the stack goes to
the trace descriptor when the time is up or the interpreter crashes, so that the line can be reported.
"""

import contextlib
import faulthandler
import json
import math
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from routing.authoring import dagfile
from routing.errors import InvalidDag

MEMORY_LIMIT_BYTES = 2 * 1024**3
MAX_TASKS = 20_000
"""In the DAGs of one file: each run records every task of its DAG, and each version of the file all of them."""


def main(arguments: list[str]) -> int:
    """Loads the file and writes what it found as JSON. Returns the exit code."""
    folder, file, timeout_s, result_fd, trace_fd = arguments
    _limit(float(timeout_s), trace_fd=int(trace_fd))
    found = describe(Path(folder), file)
    faulthandler.cancel_dump_traceback_later()
    with open(int(result_fd), "w", encoding="utf-8") as result:  # a descriptor has no path
        json.dump(found, result)
    return 0


def describe(folder: Path, file: str) -> dict[str, Any]:
    """The DAGs of a file as plain values, the helper modules it imports, or the error that stopped it."""
    try:
        loaded = dagfile.load(folder, file)
        _refuse_too_many(loaded)
        found = [{"spec": dag.spec(file).to_json(), "line": dag.line} for dag in loaded.dags.values()]
        return {"dags": found, "helpers": [str(path) for path in loaded.helpers], "error": None}
    except BaseException as error:  # author's code may raise anything, and it becomes data here
        return {"dags": [], "helpers": _helpers(folder, file), "error": _explain(error, folder / file, folder)}


def _refuse_too_many(loaded: dagfile.DagFile) -> None:
    count = sum(len(dag.tasks) for dag in loaded.dags.values())
    if count > MAX_TASKS:
        largest = max(loaded.dags.values(), key=lambda dag: len(dag.tasks))
        raise InvalidDag(
            f"the file has {count:,} tasks, more than the limit of {MAX_TASKS:,}; let one task do more, or split the"
            f" DAG {largest.dag_id!r} into several files",
            line=largest.line,
        )


def _explain(error: BaseException, path: Path, folder: Path) -> dict[str, Any]:
    # The traceback of a syntax error ends in our compile(), not in the file.
    if isinstance(error, SyntaxError) and error.filename == str(path):
        text = (error.text or "").strip()
        return {"line": error.lineno, "message": f"{type(error).__name__}: {error.msg}" + (f": {text}" if text else "")}
    line = _line(error, path)
    if isinstance(error, InvalidDag):
        return {"line": line or error.line, "message": str(error)}
    message = f"the file calls sys.exit({error.code!r})" if isinstance(error, SystemExit) else _message(error)
    place = _helper_line(error, path, folder)
    return {"line": line, "message": f"{place}: {message}" if place else message}


def _message(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _line(error: BaseException, path: Path) -> int | None:
    """The last line of the file itself on the way to the error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None


def _helper_line(error: BaseException, path: Path, folder: Path) -> str | None:
    """Where in a helper module of the folder it happened, if it did."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(f"{folder}{os.sep}")
    ]
    if not frames or frames[-1].filename == str(path):
        return None
    return f"{Path(frames[-1].filename).relative_to(folder)}, line {frames[-1].lineno}"


def _helpers(folder: Path, file: str) -> list[str]:
    return [str(path) for path in dagfile.helpers(folder, folder / file)]


def _limit(timeout_s: float, *, trace_fd: int) -> None:
    """A stack dump and the end when the time is up; the kernel's limits behind that."""
    faulthandler.enable(trace_fd)
    # A thread of C: it ends a loop that never gives up the interpreter's lock, which no signal handler of Python's can.
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=trace_fd)
    cpu_s = math.ceil(timeout_s) + 2
    for kind, wanted in (
        (resource.RLIMIT_CPU, cpu_s),
        # Not RLIMIT_AS, which counts address space that libraries reserve and never use.
        (resource.RLIMIT_DATA, MEMORY_LIMIT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a lower limit is set already, or the system has none
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
