"""The result backend away while pods end (row B12): outcomes are kept, and the dispatcher serves everything else."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import parts
from tests.integration.yard_parts import Yard

PATIENT = {"YARD_PATIENT": "1"}
"""The app is set to store for ever and to wait two minutes for a socket, as some are."""


@contextlib.contextmanager
def away(server: parts.Valkey, how: str) -> Iterator[None]:
    """Killed and restarted with its data, or standing still."""
    if how == "refuses":
        server.kill()
    else:
        os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if how == "refuses":
            server.restart()
        else:
            os.kill(server.process.pid, signal.SIGCONT)


@pytest.fixture
def yard(
    tmp_path: Path,
    valkey: parts.ValkeyDatabase,
    own_valkey: parts.Valkey,
    local_cluster: parts.LocalCluster,
    deployment: str,
) -> Iterator[Yard]:
    """A dispatcher whose result backend is a server of its own."""
    yard = Yard(
        folder=tmp_path,
        broker=valkey.url,
        results=own_valkey.fresh().url,
        kubeconfig=local_cluster.kubeconfig,
        deployment=deployment,
    )
    yard.dispatcher(**PATIENT)
    yield yard
    yard.stop()


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_B12_outcomes_are_kept_while_the_result_backend_is_away(yard: Yard, own_valkey: parts.Valkey, how: str) -> None:
    """Eight pods end meanwhile; the dispatcher answers its broker all the time, and each body runs once."""
    naps = [yard.send("nap", 1.0) for _ in range(8)]
    parts.eventually(lambda: yard.trace.exists() and len(yard.trace.read_text().splitlines()) == 8, 30)
    node, log = f"dispatcher@{yard.deployment}", yard.folder / "dispatcher.log"
    with away(own_valkey, how):
        parts.eventually(lambda: "outcomes cannot be stored" in log.read_text(), 20)
        for _ in range(5):
            assert yard.client.control.inspect([node], timeout=2).ping(), "the hub is blocked"
        kept = yard.client.control.inspect([node], timeout=2).stats()[node]["pool"]["ended-not-stored"]
        assert kept >= 1
    assert [nap.get(timeout=30) for nap in naps] == ["slept"] * 8
    ran = [line.split()[0] for line in yard.trace.read_text().splitlines()]
    assert sorted(ran) == sorted(nap.id for nap in naps)
    assert log.read_text().count("raised unexpected") <= 2, "each outcome was tried for itself"
