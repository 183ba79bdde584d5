"""Keeps the parts of one machine running: start order, readiness, restart with back-off, an ordered stop.

One thread, no callbacks: the caller calls `tick` a few times per second and does what it likes between. Every part is a
process group of its own, so that what a part left behind ends with it; `guard` ends all groups should this process
die without stopping them. One event, one line, through `say`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from routing.standalone import guard, part, part_errors

TICK_S = 0.1
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a part that died is started again; the last one repeats."""
STEADY_S = 60.0
"""A part that ran this long starts again from the shortest pause."""
LOG_KEEP_BYTES = 5_000_000

State = Literal["waiting", "starting", "ready", "paused", "stopped"]


@dataclass(kw_only=True)
class _Child:
    """A part and the process that runs it now."""

    part: part.Part
    state: State = "waiting"
    process: "subprocess.Popen[bytes] | None" = None
    since_mono_s: float = 0.0
    """When `state` was entered; of `paused`: when it ends."""
    failures: int = 0
    was_ready: bool = False


class Supervisor:
    """Runs parts; a context manager, whose exit stops them all."""

    def __init__(
        self, parts: Sequence[part.Part], *, say: Callable[[str], None], guarded_files: Sequence[int] = ()
    ) -> None:
        """Take the parts in the order of their listing; `guarded_files` stay open until the last process is gone."""
        self._children = {each.name: _Child(part=each) for each in parts}
        self._say = say
        self._guarded_files = tuple(guarded_files)
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._start_guard()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_ready(self) -> bool:
        """Whether every part is ready now."""
        return all(child.state == "ready" for child in self._children.values())

    def pids(self) -> Mapping[str, int]:
        """Name -> process id, of the parts that run now."""
        return {name: child.process.pid for name, child in self._children.items() if child.process}

    def tick(self) -> None:
        """Look at every part once and close the gap between what is and what should be.

        Raises EmbeddedError for a part that cannot be started the first time; a part that was ready once is restarted.
        """
        if self._guard is None or self._guard.poll() is not None:
            self._start_guard()
        now_mono_s = time.monotonic()
        for child in self._children.values():
            _MOVES[child.state](self, child, now_mono_s)

    def stop(self) -> None:
        """Stop all parts, those first that no other needs; bounded by the sum of the stop times along the order."""
        for child in self._children.values():
            if child.process is None:
                child.state = "stopped"
        while running := [child for child in self._children.values() if child.state != "stopped"]:
            needed = {name for child in running for name in child.part.after}
            # `or running`: where a circle of needs leaves none, they stop all at once instead of never.
            self._stop_together([child for child in running if child.part.name not in needed] or running)
        self._close_guard()

    # What a tick does in each state.

    def _wait(self, child: _Child, now_mono_s: float) -> None:
        if all(self._children[name].state == "ready" for name in child.part.after if name in self._children):
            self._spawn(child, now_mono_s)

    def _start(self, child: _Child, now_mono_s: float) -> None:
        if (end := _end_of(child)) is not None:
            self._failed(child, now_mono_s, f"ended while it started ({end})")
        elif child.part.is_ready():
            self._say(f"{child.part.name} is ready (pid {_pid(child)}, {now_mono_s - child.since_mono_s:.1f} s)")
            child.state, child.since_mono_s, child.was_ready = "ready", now_mono_s, True
        elif now_mono_s - child.since_mono_s > child.part.start_timeout_s:
            self._failed(child, now_mono_s, f"is not ready after {child.part.start_timeout_s:g} s")

    def _keep(self, child: _Child, now_mono_s: float) -> None:
        if (end := _end_of(child)) is not None:
            if now_mono_s - child.since_mono_s > STEADY_S:
                child.failures = 0
            self._failed(child, now_mono_s, f"ended ({end})")

    def _pause(self, child: _Child, now_mono_s: float) -> None:
        if now_mono_s >= child.since_mono_s:
            child.state = "waiting"

    def _failed(self, child: _Child, now_mono_s: float, what: str) -> None:
        self._end_group(child)
        # A part that never worked has wrong settings or a port that is taken, and would not work the tenth time either.
        if not child.was_ready:
            child.state = "stopped"
            raise part_errors.EmbeddedError(f"{child.part.name} {what}: {_last_words(child.part.log)}")
        pause_s = BACKOFF_S[min(child.failures, len(BACKOFF_S) - 1)]
        child.failures += 1
        child.state, child.since_mono_s = "paused", now_mono_s + pause_s
        self._say(f"{child.part.name} {what}; it starts again in {pause_s:g} s; its log is {child.part.log}")

    # Processes.

    def _spawn(self, child: _Child, now_mono_s: float) -> None:
        child.part.log.parent.mkdir(parents=True, exist_ok=True)
        _keep_log_short(child.part.log)
        with child.part.log.open("ab") as log:
            try:
                child.process = subprocess.Popen(
                    child.part.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **child.part.env},
                    cwd=child.part.cwd,
                    # Ctrl-C at the terminal goes to the foreground group: the supervisor
                    # alone gets it, and stops the parts in order.
                    process_group=0,
                )
            except OSError as error:
                raise part_errors.EmbeddedError(f"{child.part.name} cannot be started: {error}") from error
        # A supervisor that is killed in this moment leaves one part unlisted: nobody knows a pid before there is one.
        self._tell_guard(f"+{child.process.pid}\n")
        child.state, child.since_mono_s = "starting", now_mono_s

    def _stop_together(self, children: Sequence[_Child]) -> None:
        begun_mono_s = time.monotonic()
        for child in children:
            if child.process is not None:
                # The part alone and not its group: a worker ends its children by itself, after their bodies.
                child.process.terminate()
        waiting, unhurried = list(children), [child for child in children if child.part.hurry_after_s is not None]
        while waiting:
            now_mono_s = time.monotonic()
            for child in list(unhurried):
                if now_mono_s - begun_mono_s > (child.part.hurry_after_s or 0.0):
                    unhurried.remove(child)
                    if child in waiting and child.process is not None:
                        child.process.send_signal(signal.SIGQUIT)
            for child in list(waiting):
                is_late = now_mono_s - begun_mono_s > child.part.stop_timeout_s
                if child.process is None or child.process.poll() is not None or is_late:
                    how = f"killed after {child.part.stop_timeout_s:g} s" if is_late else "stopped"
                    self._end_group(child)
                    self._say(f"{child.part.name} {how}")
                    child.state = "stopped"
                    waiting.remove(child)
            time.sleep(0.02 if waiting else 0)

    def _end_group(self, child: _Child) -> None:
        """End what is left of a part: itself if it still runs, and whatever it started."""
        if child.process is None:
            return
        # The group may outlive its leader: a worker's children, the command of a bash task.
        guard.send([child.process.pid], signal.SIGKILL)
        child.process.wait()
        self._tell_guard(f"-{child.process.pid}\n")
        child.process = None

    # The guard.

    def _start_guard(self) -> None:
        self._guard = subprocess.Popen(
            # Isolated and without site-packages: it starts at once, needs 10 MiB, and
            # no variable of the user's gets in its way.
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # It may live for some seconds after us, and must not keep a file system from being unmounted.
            cwd="/",
            start_new_session=True,
            # With the lock's descriptor the folder stays locked until the guard has ended what is left (ADR 2).
            pass_fds=self._guarded_files,
        )
        for child in self._children.values():
            if child.process is not None:
                self._tell_guard(f"+{child.process.pid}\n")

    def _tell_guard(self, line: str) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(
                BrokenPipeError
            ):  # it was killed: the next tick starts another with the whole list
                self._guard.stdin.write(line.encode())
                self._guard.stdin.flush()

    def _close_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait(guard.GRACE_S + 2)
            self._guard = None


_MOVES: Mapping[State, Callable[[Supervisor, _Child, float], None]] = {
    "waiting": Supervisor._wait,
    "starting": Supervisor._start,
    "ready": Supervisor._keep,
    "paused": Supervisor._pause,
    "stopped": lambda supervisor, child, now_mono_s: None,
}


def _pid(child: _Child) -> int:
    return child.process.pid if child.process else 0


def _end_of(child: _Child) -> str | None:
    """How a process ended, in words; None while it runs."""
    code = child.process.poll() if child.process else 0
    if code is None:
        return None
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _last_words(log: Path, *, lines: int = 5) -> str:
    """The end of a log, for an error message."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        words = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        if words:
            return f"{' | '.join(words[-lines:])} (whole log: {log})"
    return f"its log is empty: {log}"


def _keep_log_short(log: Path) -> None:
    """Put a log that has grown long aside, as `<name>.1`."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_KEEP_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
