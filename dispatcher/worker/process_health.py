"""Process health: what a process needs from outside, whether it has it, and whether its own loop still turns.

Each part (broker, database, …) is checked every few seconds, by a thread of its own, so that one that hangs keeps no
other from being checked. What was found stands in a small file, for health checks and for `podyard health`, and each
change in the log. A file because it needs no port, outlives no machine, and can be read while everything else is away.
Used by dispatchers, and by the workers and schedulers of `routing`.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger(__name__)

FRESH_S = 30.0
"""A file that is older was left by a process that is gone, or stands still."""
STALLED_S = 60.0
"""A loop that has not turned for so long hangs, unless a part is away that it waits for."""
FORGET_S = 3600.0
"""A file of another host that is older: that host, or container, is not expected back."""

_ENDED = ("Z", "X")
"""States of a process that has ended and that nobody has asked about yet."""


class PartCheck(Protocol):
    """How one part is checked; `health_checks` has those of a Celery application."""

    @property
    def part(self) -> str:
        """Its name, for people."""

    def run(self) -> object:
        """Returns if the part answers, else raises; it may block."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often is checked and written, in seconds."""

    every_s: float = 3.0
    hangs_s: float = 4.0
    """A part that has not answered for so long is away, though nothing failed yet."""
    write_s: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PartHealth:
    """What is known of one part. `since`: when it was first seen so."""

    name: str
    is_ok: bool
    since: datetime
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a process said of itself."""

    kind: str
    name: str
    host: str
    pid: int
    written_at: datetime
    turned_at: datetime | None
    """When its loop turned last; None before it did for the first time."""
    parts: tuple[PartHealth, ...]
    began: str | None = None
    """Tells the process from a later one of the same id, where the system knows: a container's processes get the same
    ids at each start."""
    ended: str | None = None
    """Why it ended by itself; None while it runs, and for one that did not come to say so."""

    @property
    def away(self) -> tuple[PartHealth, ...]:
        """The parts that it lacks."""
        return tuple(part for part in self.parts if not part.is_ok)

    def trouble(self, *, now: datetime) -> str | None:
        """Why it is not alive; None where it is. A part that is away is no reason."""
        if gone := self.gone(now=now):
            return gone
        silent_s = (now - self.written_at).total_seconds()
        if silent_s > FRESH_S:
            return f"it has reported nothing for {silent_s:.0f} s"
        if any(not part.is_ok or _lasted_s(part, now) < STALLED_S for part in self.parts if self.turned_at):
            return None  # it waits for a part, or did so a moment ago
        if self.turned_at is None:
            return None if self.away else "it has not begun to work yet"
        still_s = (now - self.turned_at).total_seconds()
        return f"its loop has not turned for {still_s:.0f} s" if still_s > STALLED_S else None

    def gone(self, *, now: datetime) -> str | None:
        """Why there is no such process any more; None where there is one, or on another host may be."""
        if self.ended is not None:
            return f"it ended by itself: {self.ended}"
        if self.host == socket.gethostname():
            return None if is_running(self.pid, began=self.began) else f"the process {self.pid} is gone"
        silent_s = (now - self.written_at).total_seconds()
        return f"it has reported nothing for {silent_s:.0f} s" if silent_s > FRESH_S else None


class HealthReporter:
    """Checks and writes until `stop`. Without a folder it only logs."""

    def __init__(
        self,
        *,
        kind: str,
        name: str,
        folder: Path | None,
        checks: Iterable[PartCheck],
        is_silent: bool = False,
        pace: Pace | None = None,
    ) -> None:
        """`is_silent`: somebody else logs what is away."""
        self._kind = kind
        self._name = name
        self._folder = folder
        self._pace = pace or Pace()
        self._stopped = threading.Event()
        self._checkers = [
            _PartChecker(check, stopped=self._stopped, is_silent=is_silent, pace=self._pace) for check in checks
        ]
        self._turned_at: datetime | None = None
        self._file: Path | None = None
        self._writing = threading.Lock()

    def start(self) -> None:
        """Begins, in threads that do not keep the process from ending."""
        for checker in self._checkers:
            threading.Thread(target=checker.run, name=f"check {checker.part}", daemon=True).start()
        threading.Thread(target=self._write_for_ever, name="health", daemon=True).start()

    def stop(self, *, why: str | None = None) -> None:
        """Ends, and takes the file away: who was asked to stop is not expected back.

        A process that ends by itself says `why`: its file stays until another of its name is started.
        """
        # A stop may come twice (`on_stop`, `on_terminate`): the first has said why.
        if self._stopped.is_set():
            return
        # Before the lock: a writer that waits for it then writes nothing more.
        self._stopped.set()
        # Behind a write that is under way, which would put the file back.
        with self._writing, contextlib.suppress(OSError):
            if why is not None:
                self._write(ended=why)
            elif self._file is not None:
                self._file.unlink(missing_ok=True)

    def turned(self) -> None:
        """The loop of this process turned. To be called every few seconds."""
        self._turned_at = datetime.now(UTC)

    def parts(self) -> tuple[PartHealth, ...]:
        """What is known now."""
        return tuple(checker.known() for checker in self._checkers)

    def away(self) -> dict[str, str]:
        """Part -> since when and why, of those that are away."""
        return {part.name: f"since {part.since:%H:%M:%S}Z: {part.why}" for part in self.parts() if not part.is_ok}

    def _write_for_ever(self) -> None:
        is_logged = False
        self._clean()
        while True:
            for checker in self._checkers:
                checker.log_change()
            try:
                with self._writing:
                    if not self._stopped.is_set():
                        self._write()
                is_logged = False
            except OSError as error:
                if not is_logged:
                    logger.warning(
                        "health cannot be written, set health.folder to a folder that is writable: %s", error
                    )
                is_logged = True
            if self._stopped.wait(self._pace.write_s):
                return

    def _write(self, *, ended: str | None = None) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        host, pid = socket.gethostname(), os.getpid()
        record = {
            "kind": self._kind,
            "name": self._name,
            "host": host,
            "pid": pid,
            "began": _began(pid),
            "ended": ended,
            "written_at": datetime.now(UTC).isoformat(),
            "turned_at": self._turned_at.isoformat() if self._turned_at else None,
            "parts": [
                {"name": part.name, "ok": part.is_ok, "since": part.since.isoformat(), "why": part.why}
                for part in self.parts()
            ],
        }
        # Host and pid: a folder may be shared by containers, in which pids are the same.
        file = self._folder / f"{self._kind}-{host}-{pid}.json"
        # Renamed into place: a reader never sees half a file.
        new = file.with_suffix(".new")
        new.write_text(json.dumps(record), encoding="utf-8")
        new.replace(file)
        self._file = file

    def _clean(self) -> None:
        """Takes away what is not expected back: files of predecessors, whose place this process takes, and old ones of
        other hosts."""
        if self._folder is None:
            return
        now, host = datetime.now(UTC), socket.gethostname()
        for file, one in _read(self._folder):
            is_predecessor = (one.kind, one.name, one.host) == (self._kind, self._name, host) and one.gone(now=now)
            if is_predecessor or _is_forgotten(one, now):
                with contextlib.suppress(OSError):
                    file.unlink()


def read(folder: Path) -> Iterator[Reading]:
    """What processes said of themselves, those of this host that are gone too."""
    now = datetime.now(UTC)
    return (one for _, one in _read(folder) if not _is_forgotten(one, now))


def current(readings: Iterable[Reading], *, now: datetime) -> list[Reading]:
    """Those that count: where processes of one name came after each other, the one that runs, else the last one."""
    found: dict[tuple[str, str, str], list[Reading]] = {}
    for one in sorted(readings, key=lambda one: one.written_at, reverse=True):
        found.setdefault((one.kind, one.name, one.host), []).append(one)
    return [
        one
        for key in sorted(found)
        for one in [each for each in found[key] if not each.gone(now=now)] or found[key][:1]
    ]


def failure(error: BaseException | None) -> str | None:
    """Why a process ends by itself, by what is being raised; None where somebody asked it to."""
    if not isinstance(error, Exception):
        return None
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0].rstrip(": ")


def is_running(pid: int, *, began: str | None = None) -> bool:
    """Whether this process is there; with `began`, whether it is the one that began then and no later one."""
    try:
        # Signal 0 is not sent: it only asks. EPERM says that there is such a process, of another user.
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    facts = _facts(pid)
    return facts is None or (facts[0] not in _ENDED and began in (None, facts[1]))


class _PartChecker:
    """Checks one part, again and again."""

    def __init__(self, check: PartCheck, *, stopped: threading.Event, is_silent: bool, pace: Pace) -> None:
        self._pace = pace
        self._check = check
        self.part = check.part
        self._stopped = stopped
        self._is_silent = is_silent
        self._why: str | None = None
        self._since = datetime.now(UTC)
        self._asked_mono_s: float | None = None
        self._asked_at = self._since
        self._is_logged_away = False

    def run(self) -> None:
        """Checks until stopped."""
        while not self._stopped.is_set():
            self._asked_at, self._asked_mono_s = datetime.now(UTC), time.monotonic()
            why = None
            try:
                self._check.run()
            except Exception as error:  # whatever a client raises: the part cannot be used
                why = str(error).strip().partition("\n")[0] or type(error).__name__
            asked_at, self._asked_mono_s = self._asked_at, None
            if (why is None) != (self._why is None):
                # Away since the check began that failed, which may have hung for its whole time-out.
                self._since = asked_at if why else datetime.now(UTC)
            self._why = why
            self.log_change()
            self._stopped.wait(self._pace.every_s)

    def known(self) -> PartHealth:
        """What is known; a check that does not end is an answer, too."""
        # A copy: the thread that checks may set it to None in between.
        asked_mono_s = self._asked_mono_s
        if self._why is None and asked_mono_s is not None and time.monotonic() - asked_mono_s > self._pace.hangs_s:
            return PartHealth(name=self.part, is_ok=False, since=self._asked_at, why="it does not answer")
        return PartHealth(name=self.part, is_ok=self._why is None, since=self._since, why=self._why)

    def log_change(self) -> None:
        """Logs a change, once."""
        known = self.known()
        if known.is_ok == (not self._is_logged_away) or self._stopped.is_set():
            return
        self._is_logged_away = not known.is_ok
        if self._is_silent:
            return
        if known.is_ok:
            logger.warning("the %s is back", self.part)
        else:
            logger.warning("the %s is away: %s", self.part, known.why)


def _reading(record: Mapping[str, Any]) -> Reading:
    turned_at = record["turned_at"]
    return Reading(
        kind=record["kind"],
        name=record["name"],
        host=record["host"],
        pid=int(record["pid"]),
        written_at=datetime.fromisoformat(record["written_at"]),
        turned_at=datetime.fromisoformat(turned_at) if turned_at else None,
        parts=tuple(
            PartHealth(name=one["name"], is_ok=one["ok"], since=datetime.fromisoformat(one["since"]), why=one["why"])
            for one in record["parts"]
        ),
        began=record.get("began"),
        ended=record.get("ended"),
    )


def _lasted_s(part: PartHealth, now: datetime) -> float:
    return (now - part.since).total_seconds()


def _read(folder: Path) -> Iterator[tuple[Path, Reading]]:
    for file in sorted(folder.glob("*-*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # half written, or another program's
            yield file, _reading(json.loads(file.read_text(encoding="utf-8")))


def _is_forgotten(one: Reading, now: datetime) -> bool:
    return one.host != socket.gethostname() and (now - one.written_at).total_seconds() > FORGET_S


def _began(pid: int) -> str | None:
    facts = _facts(pid)
    return facts[1] if facts else None


def _facts(pid: int) -> tuple[str, str] | None:
    """State and start of a process, by the clock of the machine; None where the system does not tell (macOS)."""
    try:
        # Behind the last bracket: the name of a process may hold spaces and brackets itself (proc_pid_stat(5)).
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return None
    words = after_name.split()
    return words[0], words[19]  # state and starttime of proc_pid_stat(5)
