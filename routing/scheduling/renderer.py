"""Renders templates for messages of pods, in a child process: what authors write never runs in the scheduler.

The child is started with the first template and lives on; one that takes too long or dies is replaced, and only the
task whose template it was fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from routing.authoring import loading
from routing.authoring.spec import Template
from routing.errors import TaskFailed

START_TIMEOUT_S = 10.0
TIMEOUT_S = 2.0
"""For the templates of one task; they take about a millisecond."""


class Renderer:
    """Called with the templates of one task and its message. Not for several threads at once."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self.spent_s = 0.0
        """How long all calls took together: who holds a transaction open meanwhile wants to know."""

    def __call__(self, templates: Sequence[Template], message: Mapping[str, Any]) -> list[str]:
        """The texts, in their order. Raises TaskFailed (reason TemplateError) that names the path."""
        begun_mono_s = time.monotonic()
        try:
            return self._ask(templates, message)
        finally:
            self.spent_s += time.monotonic() - begun_mono_s

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            # What it renders may ignore any politer signal, and it holds nothing that is worth saving.
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    # Closing flushes what the dead child has not read.
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _ask(self, templates: Sequence[Template], message: Mapping[str, Any]) -> list[str]:
        child = self._running()
        request = json.dumps({"templates": templates, "message": message})
        paths = ", ".join(template.path for template in templates)
        try:
            assert child.stdin is not None  # for the type checker: it was started with a pipe
            child.stdin.write(request.encode() + b"\n")
            child.stdin.flush()
            answer = _read(child, self._timeout_s)
        except TimeoutError:
            self.close()
            raise _failed(f"{paths}: rendering took longer than {self._timeout_s:g} s") from None
        except (OSError, EOFError, ValueError):
            self.close()
            raise _failed(f"{paths}: rendering ended its process: it needs too much memory, or crashed it") from None
        if "error" in answer:
            raise _failed(answer["error"])
        return list(answer["texts"])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        try:
            self._child = subprocess.Popen(
                # -P: the working folder is not on its path, where a file of the
                # author's could stand for a module of ours.
                [sys.executable, "-P", "-m", "routing.authoring.renderchild"],
                env=loading.child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C at the terminal is the scheduler's affair; the child ends when its input does.
                start_new_session=True,
            )
            # It says that it is ready, so that the import of Jinja is not charged to the first template.
            _read(self._child, START_TIMEOUT_S)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise TaskFailed(
                f"the process that renders templates cannot be started: {error or 'it ended at once'}",
                # The author's template is not to blame: no memory, no descriptors, a process that cannot start.
                {"reason": "RendererMissing", "cause": "infrastructure"},
            ) from error
        return self._child


def _read(child: subprocess.Popen[bytes], timeout_s: float) -> dict[str, Any]:
    """One line of the child as JSON. Raises TimeoutError, EOFError, ValueError."""
    assert child.stdout is not None  # for the type checker: it was started with a pipe
    end_mono_s = time.monotonic() + timeout_s
    received = b""
    while not received.endswith(b"\n"):
        left_s = end_mono_s - time.monotonic()
        # Neither readline nor json has a time limit, and what the child renders may loop.
        if left_s <= 0 or not select.select([child.stdout], [], [], left_s)[0]:
            raise TimeoutError
        piece = os.read(child.stdout.fileno(), 65536)
        if not piece:
            raise EOFError
        received += piece
    answer: dict[str, Any] = json.loads(received)
    return answer


def _failed(message: str) -> TaskFailed:
    return TaskFailed(message, {"reason": "TemplateError", "cause": "application"})
