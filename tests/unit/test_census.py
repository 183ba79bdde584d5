"""The census example tells the truth: its figures are computed here another way."""

import io
import os
import shutil
import sysconfig
import tokenize
from pathlib import Path
from typing import Any

import pytest

from routing.authoring import loading
from routing.worker import run

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "stdlib_census.py"
FIGURES = ("modules", "lines", "functions", "classes")
PACKAGES = ("asyncio", "concurrent", "email", "importlib", "json", "xml")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the standard library (the demo counts the whole), with all that the census must know or leave out."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    folder = tmp_path_factory.mktemp("library")
    for package in PACKAGES:
        shutil.copytree(stdlib / package, folder / package)
    for module in [path for path in sorted(stdlib.glob("*.py")) if path.is_file()][::3]:
        shutil.copy(module, folder)
    (folder / "latin.py").write_bytes("# coding: latin-1\nname = 'ä'\ndef last(): pass".encode("latin-1"))
    (folder / "link.py").symlink_to(folder / "latin.py")
    for left_out in ("test", "site-packages", "json/tests"):
        (folder / left_out).mkdir()
        shutil.copy(stdlib / "ast.py", folder / left_out)
    return folder


def test_the_figures_of_the_census_are_right(tmp_path: Path, library: Path) -> None:
    """Every task is run in its order; the reference counts words of the token stream and never parses."""
    text = EXAMPLE.read_text()
    assert text.count('STDLIB = sysconfig.get_path("stdlib")') == 1
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / EXAMPLE.name).write_text(text.replace('sysconfig.get_path("stdlib")', repr(str(library))))
    loaded = loading.load_folder(folder, timeout_s=30.0)
    assert loaded.errors == ()
    dag = next(dag for dag in loaded.dags if dag.dag_id == "stdlib_census")
    tasks = {task.task_id: task for task in dag.tasks}
    counts = [task for task in dag.tasks if task.task_id.startswith("count_")]
    assert [task.queue for task in counts].count("kubernetes") == len(counts) / 2 == 6
    assert {"bash", "pod"} < {task.operator for task in dag.tasks}

    # When every task has run once, with the results of those before it
    results: dict[str, Any] = {}
    while len(results) < len(tasks):
        ready = next(one for name, one in tasks.items() if name not in results and set(one.upstream) <= set(results))
        message = {
            "dag_file": dag.file,
            "dag_id": dag.dag_id,
            "task_id": ready.task_id,
            "conf": {"report": str(tmp_path / "report.txt")},
            "inputs": {name: results[name] for name in ready.inputs},
        }
        results[ready.task_id] = None if ready.operator == "pod" else run.execute(message, folder=folder)

    # Then its sum is what the tokens say, and the report's last line says it, too
    expected = _by_tokens(library)
    assert {figure: results["report"][figure] for figure in FIGURES} == expected
    report = Path(results["report"]["report"]).read_text()
    assert report.splitlines()[-1].split() == ["all", *(str(expected[figure]) for figure in FIGURES)]


def _by_tokens(stdlib: Path) -> dict[str, int]:
    """`def` and `class` are reserved words: each one in the token stream is one definition."""
    skipped = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    found = dict.fromkeys(FIGURES, 0)
    for root, folders, files in os.walk(stdlib):
        folders[:] = [name for name in folders if name not in skipped]
        for path in (Path(root, name) for name in files if name.endswith(".py") and not Path(root, name).is_symlink()):
            source = path.read_bytes()
            words = [
                token.string for token in tokenize.tokenize(io.BytesIO(source).readline) if token.type == tokenize.NAME
            ]
            found["modules"] += 1
            found["lines"] += len(source.splitlines())
            found["functions"] += words.count("def")
            found["classes"] += words.count("class")
    return found
