"""How sidecars count in a pod's phase, and when they are started again."""

import itertools
from datetime import UTC, datetime

import pytest

from dispatcher.localcluster.kubelet import containers, pod_status
from dispatcher.localcluster.objects import manifest

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RUNS = pod_status.Running(started_at=NOW)
WAITS = pod_status.Waiting(reason="PodInitializing")


def _ended(code: int) -> pod_status.Terminated:
    return pod_status.Terminated(exit_code=code, reason="", started_at=NOW, finished_at=NOW)


CRASHES = pod_status.Waiting(reason="CrashLoopBackOff", last=_ended(1), restarts=1)


@pytest.mark.parametrize(
    ("sidecar", "main", "expected"),
    [
        (RUNS, WAITS, "Pending"),
        (RUNS, RUNS, "Running"),
        (CRASHES, RUNS, "Running"),
        (_ended(1), RUNS, "Running"),
        (RUNS, _ended(0), "Running"),
        (RUNS, _ended(1), "Running"),
        (_ended(1), _ended(0), "Succeeded"),
        (CRASHES, _ended(0), "Succeeded"),
        (_ended(0), _ended(1), "Failed"),
    ],
)
def test_phases_with_a_sidecar(sidecar: pod_status.State, main: pod_status.State, expected: str) -> None:
    """It holds the pod open while it runs, and never decides how the pod ended."""
    side, base = manifest.Container(name="side", restart_policy="Always"), manifest.Container(name="base")
    situation = pod_status.Situation(init=[(side, sidecar)], main=[(base, main)])
    assert pod_status.phase(situation) == expected


def test_restarts_come_later_each_time() -> None:
    """At once, then as a kubelet backs off."""
    assert list(itertools.islice(containers.restart_delays(), 8)) == [0, 10, 20, 40, 80, 160, 300, 300]


def test_the_next_run_remembers_the_last_one_only() -> None:
    """Restarts are counted; the ends before the last one are forgotten."""
    first = pod_status.next_run(WAITS)
    assert (first.restarts, first.last) == (0, None)
    again = pod_status.next_run(pod_status.next_run(_ended(1)))
    assert again.restarts == 2
    assert again.last == _ended(1)
