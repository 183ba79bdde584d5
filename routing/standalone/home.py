"""The folder of one installation on one machine: private, locked by whoever runs there, holding `embedded.toml`.

`standalone` and `demo` open it; every part of them finds the same settings through `embedded.toml`.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from routing.standalone import guard, part_errors

LOCK_FILE = "standalone.lock"
SETTINGS_FILE = "embedded.toml"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Make the folder if need be and hold its lock; gives the lock's file descriptor.

    The lock belongs to the open file, so it is free as soon as the last process that inherited it is gone, however
    that ended. Raises EmbeddedError for a folder where we may not write, and where another process holds the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Not "w", which would empty what the holder has written before it is known whether it holds.
        lock = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        raise part_errors.EmbeddedError(
            f"cannot write in {folder} ({error.strerror}): run podyard where you may write, or choose another --home"
        ) from error
    with lock:
        _take(lock, folder)
        # Only once it is ours: until then it says who has it.
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock.fileno()


def write_settings(folder: Path, sections: Mapping[str, Any]) -> Path:
    """Write `embedded.toml` for this user alone; it holds the passwords of the embedded parts."""
    path = folder / SETTINGS_FILE
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    # Private from its first moment, since a chmod would come too late; whole when it gets its name, for parts read it.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(
            "# Written by podyard at each start of its embedded parts; your own settings belong in podyard.toml.\n"
        )
        file.write(to_toml(sections))
    draft.replace(path)
    return path


def to_toml(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Nested mappings of strings, numbers and booleans as TOML."""
    values = {key: value for key, value in tables.items() if not isinstance(value, Mapping)}
    lines = [f"{_quoted(key)} = {_quoted(value)}" for key, value in values.items()]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in tables.items():
        if isinstance(value, Mapping):
            name = f"{prefix}{_quoted(key)}"
            text += f"[{name}]\n{to_toml(value, f'{name}.')}"
    return text


def _quoted(value: object) -> str:
    """A JSON scalar; TOML's basic strings, integers and booleans are written alike, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _take(lock: IO[str], folder: Path) -> None:
    """Lock the file; where its holder is dead, wait for the guard that ends what the holder left running."""
    # The guard of a supervisor that was killed has the lock until it has ended what was left.
    deadline_mono_s = time.monotonic() + guard.GRACE_S + 2
    while not _is_taken(lock):
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
        if _is_alive(pid) or time.monotonic() > deadline_mono_s:
            raise part_errors.EmbeddedError(
                f"podyard runs in {folder} already (pid {pid}):"
                " use that one, stop it, or choose another folder with --home"
            )
        time.sleep(0.1)


def _is_taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    """Whether a process of this id exists; an id that cannot be read counts as alive."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        return True
    return True
