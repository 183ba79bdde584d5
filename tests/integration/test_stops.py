"""A stop is bounded: each part ends by itself soon after SIGTERM, though what it speaks to stands still."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests import parts
from tests.integration.test_broker_refusals import PARTS, Doors

ENDED_S = 10.0
"""What the supervisor waits for (`standalone.layout.STOP_S`)."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("frozen", ["broker", "API server"])
def test_each_part_ends_by_itself_though_what_it_speaks_to_stands_still(
    tmp_path: Path, own_local_cluster: parts.LocalCluster, frozen: str
) -> None:
    """No kill is needed, and whoever had to be cut short said what it waited for."""
    server = parts.Valkey.start(tmp_path / "valkey")
    doors = Doors(tmp_path / "work", server, own_local_cluster)
    try:
        doors.start()
        still = server.process if frozen == "broker" else own_local_cluster.process
        assert still is not None
        os.kill(still.pid, signal.SIGSTOP)
        ours = {name: doors.processes[name] for name in PARTS}
        for process in ours.values():
            process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        codes = {name: process.wait(60) for name, process in ours.items()}
        seconds = time.monotonic() - began
        os.kill(still.pid, signal.SIGCONT)
    finally:
        doors.stop()
        server.stop()

    assert codes == dict.fromkeys(PARTS, 0)
    assert seconds < ENDED_S * parts.PATIENCE
