"""A part: one program that the supervisor keeps running. Pure values, and the check of one port."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from routing.standalone import part_errors


@dataclass(frozen=True, kw_only=True)
class Part:
    """What to run, when to call it ready, and how long it may take to start and to stop."""

    name: str
    command: tuple[str, ...]
    log: Path
    """Where its output goes, appended."""
    is_ready: Callable[[], bool]
    """Asked often while it starts; must answer within about half a second and may not raise."""
    after: tuple[str, ...] = ()
    """Names of parts that must be ready before this one starts, and that stop after it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the supervisor."""
    cwd: Path | None = None
    start_timeout_s: float = 30.0
    stop_timeout_s: float = 5.0
    """After that long it is killed, and whatever it started with it."""
    hurry_after_s: float | None = None
    """After that long it gets SIGQUIT: a Celery worker then ends the bodies that it waits for."""


def require_free_port(address: str, port: int, *, setting: str) -> None:
    """Raise EmbeddedError, naming the setting that changes it, where `address:port` cannot be listened on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        # Connections of the last run in TIME_WAIT keep no server from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise part_errors.EmbeddedError(
                f"cannot listen on {address}:{port} ({error.strerror}): choose another port with {setting}"
            ) from error
