"""The pytest plugin, as authors have it: by the example of its own documentation."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dispatcher.localcluster import child
from tests import parts

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"


def _pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_documented_example_works(tmp_path: Path) -> None:
    """Its tests pass, with nothing but the installed package."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "test_example.py").write_text(example)
    done = _pytest(tmp_path, "test_example.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    parts.eventually(lambda: not parts.working_in(tmp_path), 10)


def test_a_test_leaves_no_fault_and_no_pod_to_the_next(tmp_path: Path) -> None:
    """Each begins in a namespace of its own."""
    (tmp_path / "test_two.py").write_text(
        "def test_first(podyard_cluster, podyard_faults):\n"
        "    podyard_faults.fail('list', 500)\n"
        "    podyard_faults.lose_node()\n"
        "def test_second(podyard_cluster):\n"
        "    assert podyard_cluster.namespace == 'test-2'\n"
        "    assert podyard_cluster.pods() == []\n"
        "    assert podyard_cluster.api.call('GET', '/podyard/faults')['faults'] == []\n"
    )
    done = _pytest(tmp_path, "test_two.py")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_loading_the_plugin_is_cheap() -> None:
    """No web server, no Celery, no YAML before a fixture is used: every pytest of the environment pays for it."""
    script = (
        "import sys; import pytest; before = set(sys.modules); import dispatcher.localcluster.fixtures;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout.strip() == "['dispatcher']"


def test_the_cluster_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    """Also when that is killed."""
    script = (
        "import sys, time; from pathlib import Path; from dispatcher.localcluster import child;"
        f"made = child.Child.start(Path({str(tmp_path / 'home')!r}), '--hold');"
        "print(made.process.pid, flush=True); time.sleep(60)"
    )
    program = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    program.send_signal(signal.SIGKILL)
    program.wait(10)
    program.stdout.close()
    parts.eventually(lambda: not psutil.pid_exists(pid) or _is_dead(pid), 10)


def _is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    """With the cluster's own words."""
    file = tmp_path / "faults.json"
    file.write_text('[{"kind": "explode"}]')
    with pytest.raises(child.StartError, match="explode"):
        child.Child.start(tmp_path / "home", "--faults-file", str(file))
