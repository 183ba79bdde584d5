"""The small pure rules: paths, variables, images' defaults, phases, ages."""

from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.localcluster.apiserver import tables
from dispatcher.localcluster.kubelet import environment, mount_paths, pod_status
from dispatcher.localcluster.objects import manifest, times
from dispatcher.localcluster.registry import pod_defaults

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", "/real"),
        ("/data/file", "/real/file"),
        ("--out=/data/x", "--out=/real/x"),
        ("/data:/data/sub:/database", "/real:/other:/database"),
        ("cat /data;ls '/data/sub/y'", "cat /real;ls '/other/y'"),
        ("http://host/data", "http://host/data"),
        ("/my/data", "/my/data"),
        ("/data-1 /data.txt", "/data-1 /data.txt"),
        ("data", "data"),
    ],
)
def test_whole_paths_are_rewritten(text: str, expected: str) -> None:
    """Longest first, once, and only where the path stands alone."""
    assert mount_paths.rewrite(text, {"/data": "/real", "/data/sub": "/other"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "1$(B)"),
        ("$$(A)", "$(A)"),
        ("$$", "$"),
        ("$A ${A} $(", "$A ${A} $("),
        ("$(NONE)", "$(NONE)"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    """`$(NAME)` only; a doubled dollar is one."""
    assert environment.expand(text, {"A": "1", "B": "$(B)"}) == expected


@pytest.mark.parametrize(
    ("limits", "requests", "expected"),
    [
        ({}, {}, "BestEffort"),
        ({"nvidia.com/gpu": "1"}, {}, "BestEffort"),
        ({"cpu": "1"}, {}, "Burstable"),
        ({}, {"memory": "1Gi"}, "Burstable"),
        ({"cpu": "1", "memory": "1Gi"}, {}, "Guaranteed"),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "500m"}, "Burstable"),
    ],
)
def test_quality_of_service(limits: dict[str, str], requests: dict[str, str], expected: str) -> None:
    """By cpu and memory alone."""
    container = {"resources": {"limits": limits, "requests": requests}}
    assert pod_defaults.qos_class({"containers": [container]}) == expected


def _ended(code: int) -> pod_status.Terminated:
    return pod_status.Terminated(exit_code=code, reason="", started_at=NOW, finished_at=NOW)


_RUNS = pod_status.Running(started_at=NOW)
_WAITS = pod_status.Waiting(reason="ContainerCreating")


@pytest.mark.parametrize(
    ("init", "main", "reason", "expected"),
    [
        ([], [_WAITS], "", "Pending"),
        ([], [_RUNS], "", "Running"),
        ([], [_RUNS, _WAITS], "", "Pending"),
        ([], [_ended(0), _RUNS], "", "Running"),
        ([], [_ended(1), _RUNS], "", "Running"),
        ([], [_ended(0), _ended(0)], "", "Succeeded"),
        ([], [_ended(0), _ended(1)], "", "Failed"),
        ([_RUNS], [_WAITS], "", "Pending"),
        ([_ended(0)], [_WAITS], "", "Pending"),
        ([_ended(2)], [_WAITS], "", "Failed"),
        ([], [_RUNS], "DeadlineExceeded", "Running"),
        ([], [_ended(0)], "DeadlineExceeded", "Failed"),
        ([], [_WAITS], "DeadlineExceeded", "Failed"),
    ],
)
def test_phases(init: list[pod_status.State], main: list[pod_status.State], reason: str, expected: str) -> None:
    """The kubelet's rules for restartPolicy Never."""
    container = manifest.Container(name="x")
    situation = pod_status.Situation(
        init=[(container, state) for state in init], main=[(container, state) for state in main], reason=reason
    )
    assert pod_status.phase(situation) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (3599, "59m"),
        (10_800, "3h"),
        (90_000, "25h"),
        (200_000, "2d"),
    ],
)
def test_ages(seconds: int, expected: str) -> None:
    """As kubectl writes them."""
    assert tables.age(times.write(NOW - timedelta(seconds=seconds)), NOW) == expected
