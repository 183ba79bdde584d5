"""`podyard local-cluster` and its options, from outside."""

import subprocess
import sys
from pathlib import Path

from dispatcher.localcluster.faults import client
from tests import parts

PODYARD = Path(sys.executable).parent / "podyard"


def test_it_pretends_and_goes_wrong_on_request(tmp_path: Path) -> None:
    """--hold starts no process, --max-pods bounds, the variable turns faults on."""
    process = parts.start(
        [PODYARD, "local-cluster", "--hold", "--max-pods", "1"],
        log=tmp_path / "log",
        env={"PODYARD_LOCAL_CLUSTER_FAULTS": "1"},
        cwd=tmp_path,
    )
    try:
        kubeconfig = tmp_path / ".podyard" / "cluster" / "kubeconfig"
        parts.eventually(lambda: parts.is_alive(process, tmp_path / "log") and kubeconfig.exists(), 20)
        faults = client.Faults.of(kubeconfig)
        number = faults.fail("create", 503, times=1)
        assert faults.hits(number) == 0
        (node,) = faults.cluster.call("GET", "/api/v1/nodes")["items"]
        assert node["status"]["capacity"]["pods"] == "1"
        assert "no process is started (hold)" in (tmp_path / "log").read_text()
    finally:
        parts.stop(process)


def test_faults_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    """The file, the field, and where the kinds are listed."""
    (tmp_path / "faults.json").write_text('[{"kind": "explode"}]')
    command = [PODYARD, "local-cluster", "--faults-file", "faults.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("podyard: faults.json: not a fault: Invalid value 'explode'")
