"""Whose logs are saved: what the sender asked for, and always that of the container that failed the pod."""

import pytest

from dispatcher.finishing import pod_log
from dispatcher.manifests.container_pod_options import Logs

POD = {
    "spec": {
        "initContainers": [{"name": "fetch"}, {"name": "sidecar", "restartPolicy": "Always"}],
        "containers": [{"name": "base"}, {"name": "beside"}],
    }
}


@pytest.mark.parametrize(
    ("logs", "failed", "expected"),
    [
        (Logs(), None, ["base"]),
        (Logs(), "base", ["base"]),
        (Logs(), "fetch", ["fetch"]),
        (Logs(containers=("beside",)), "fetch", ["fetch", "beside"]),
        (Logs(is_all=True, is_all_inits=True), "fetch", ["fetch", "base", "beside"]),
        (Logs(containers=()), "fetch", []),
        (Logs(containers=()), None, []),
    ],
)
def test_the_container_that_failed_is_among_them(logs: Logs, failed: str | None, expected: list[str]) -> None:
    """A task container that never started has no log; who wants no logs gets none."""
    assert pod_log.containers(POD, logs, base="base", failed=failed) == expected
