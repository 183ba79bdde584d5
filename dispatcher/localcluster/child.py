"""A local cluster as a child process: ready when started, gone with the program that started it, however that ends."""

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_STOP_S = 15.0


class StartError(Exception):
    """The local cluster did not start; the message has the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A running local cluster; a context manager that stops it."""

    home: Path
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, home: Path, *words: str) -> Self:
        """Starts one with its files in `home` (`words` as on its command line), once it accepts requests.

        Raises StartError.
        """
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = home.with_name(f"{home.name}.log")
        # `--until-eof`: when this program dies, whatever way, the pipe closes and the cluster with its pods ends.
        command = [sys.executable, "-m", "dispatcher.localcluster", "--home", str(home), "--until-eof", *words]
        with log.open("a", encoding="utf-8") as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        child = cls(home=home, process=process)
        # The one line that it prints says that it listens; an end of the output, that it never will.
        if process.stdout is None or not process.stdout.readline():
            child.stop()
            raise StartError(f"the local cluster did not start: {log.read_text(encoding='utf-8')[-2000:] or log}")
        return child

    @property
    def kubeconfig(self) -> Path:
        """Where it says how to reach it."""
        return self.home / "kubeconfig"

    def stop(self) -> None:
        """Ends it, and all of its pods."""
        # Closing the input is the stop: it works alike for a program that ends and for one that is killed.
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(_STOP_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
