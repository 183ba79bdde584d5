"""Lease holder: the name under which a scheduler has its role, and whether the process behind a name is gone."""

import os
import socket
from uuid import uuid4

from dispatcher.worker import process_health

ROLE = "scheduler"


def name() -> str:
    """A name for this process that no other one has."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


def is_dead_here(holder: str) -> bool:
    """Whether the holder was a process of this machine that is gone: then nobody need wait for the lease's end."""
    host, _, rest = holder.partition(":")
    pid = rest.partition(":")[0]
    # Our own pid says nothing: containers may share a host name, and each has a PID 1.
    if host != socket.gethostname() or not pid.isdecimal() or int(pid) == os.getpid():
        return False
    return not process_health.is_running(int(pid))
