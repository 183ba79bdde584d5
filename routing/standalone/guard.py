"""The last one out: ends the process groups of a supervisor that died without stopping them. Standard library only.

The supervisor starts this file as a program, holds the other end of its standard input, and writes `+PID` for each
group that it starts and `-PID` for each that is gone. The end of input means that the supervisor is gone, by whatever
signal; what is then still listed gets SIGTERM, and SIGKILL after a bound.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable

# The parts get no more where nobody is left to watch them (ADR 2); `home` waits so long for the lock.
GRACE_S = 3.0


def main() -> None:
    """Read the list until the supervisor is gone, then end what is left."""
    # Whatever ends all processes of this user, such as a logout, must not end the guard before those on its list.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, None] = {}
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            groups[pid] = None
        else:
            groups.pop(pid, None)
    end(list(groups))


def end(groups: list[int]) -> None:
    """SIGTERM to every group, SIGKILL to those that still exist after the grace time."""
    send(groups, signal.SIGTERM)
    deadline_mono_s = time.monotonic() + GRACE_S
    while any_exists(groups) and time.monotonic() < deadline_mono_s:
        time.sleep(0.05)
    send(groups, signal.SIGKILL)


def send(groups: Iterable[int], number: signal.Signals) -> None:
    """A signal to each group that exists."""
    for group in groups:
        try:
            os.killpg(group, number)
        # macOS answers EPERM for a group of which only zombies are left.
        except (ProcessLookupError, PermissionError):
            continue


def any_exists(groups: Iterable[int]) -> bool:
    """Whether a process of one of the groups is left (a zombie that nobody reaped counts as well)."""
    for group in groups:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            continue
        return True
    return False


if __name__ == "__main__":
    main()
