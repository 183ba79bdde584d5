"""The guardian: a tiny program that outlives the local cluster by a moment, to end what it left running.

Runs as `python -I -S guardian.py <mark>` with a pipe from the cluster as its input: `+<group>` and `-<group>` lines
name the process groups that are alive. When the pipe closes, however the cluster ended, it kills those groups and, on
Linux, every process of this user whose environment carries the mark. Standard library only, nothing of this package.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Reads until the cluster is gone, then cleans up."""
    # Ctrl-C in a terminal reaches all of its processes: the guardian has to outlive the others.
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        if line[:1] == b"+":
            groups.add(int(line[1:]))
        else:
            groups.discard(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    # Groups first; then what has left its group, by a mark in its environment that children inherit.
    sweep(sys.argv[1].encode())


def sweep(mark: bytes) -> int:
    """Kills every process whose environment carries `mark`; gives their number. Linux only, elsewhere 0."""
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes()
            if any(entry.startswith(mark) for entry in environment.split(b"\0")) and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)
                killed += 1
    return killed


if __name__ == "__main__":
    main()
