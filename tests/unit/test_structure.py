"""The structure of `dispatcher/` keeps within its bars; `tests/structure.py` counts."""

import re
from pathlib import Path

from tests import structure


def test_no_constructor_takes_many_parameters() -> None:
    """What needs more is two things, or a record of options."""
    assert structure.large_constructors() == []


def test_callables_are_passed_seldom() -> None:
    """Values travel; a callable is for a loop that repeats, for Celery's own, and for a clock."""
    found = structure.callable_parameters()
    assert len(found) <= structure.MOST_CALLABLES, "\n".join(map(str, found))


def test_no_more_than_two_objects_reach_each_other() -> None:
    """In a dispatcher that is wired as in production: what is below holds nothing that leads back up."""
    reaches = structure.graph(structure.wired())
    names = {type(one).__name__ for one, _ in reaches.values()}
    assert {"Controller", "Deliveries", "Bridge", "Reconciler", "Launcher", "Watcher", "LostPods"} <= names
    assert [cycle for cycle in structure.cycles(reaches) if len(cycle) > structure.MOST_IN_A_CYCLE] == []


def test_a_cycle_would_be_found() -> None:
    """Through bound methods, closures and records."""

    class Node:
        def __init__(self) -> None:
            self.held: list[object] = []

        def call(self) -> None: ...

    first, second, third = Node(), Node(), Node()
    first.held.append(second.call)
    second.held.append(lambda: third)
    assert structure.cycles(structure.graph([first])) == []
    third.held.append({"back": (first,)})
    assert structure.cycles(structure.graph([first])) == [["Node", "Node", "Node"]]


def test_every_module_of_the_flow_has_unit_tests() -> None:
    """Of attempts, admission, launching, watching and finishing; in the file of its name, and without a process."""
    assert structure.untested_modules() == []


def test_a_module_without_unit_tests_would_be_found(tmp_path: Path) -> None:
    """Whether the file is missing, is empty, is about something else, or starts processes."""
    modules, tests = tmp_path / "dispatcher" / "watching", tmp_path / "tests" / "watching"
    tests.mkdir(parents=True)
    modules.mkdir(parents=True)
    for name in ("__init__", "bare", "empty", "other", "process", "good", "goods", "named", "wired"):
        (modules / f"{name}.py").touch()
    test = "def test_it() -> None: ...\n"
    files = {
        "empty": "from dispatcher.watching import empty\n",
        "other": "from dispatcher.watching import good\n" + test,
        "process": "import subprocess\nfrom dispatcher.watching import process\n" + test,
        "good": "from dispatcher.watching import good\n" + test,
        "goods": "from dispatcher.watching import good\n" + test,
        "named": "from dispatcher.watching.named import One\n" + test,
        "wired": test + "side.parts._wired.run()\n",
    }
    for name, text in files.items():
        (tests / f"test_{name}.py").write_text(text)
    assert structure.untested_modules(root=tmp_path / "dispatcher", tests=tmp_path / "tests") == [
        "watching/bare.py: there is no watching/test_bare.py",
        "watching/empty.py: test_empty.py holds no test",
        "watching/goods.py: test_goods.py does not use it",
        "watching/other.py: test_other.py does not use it",
        "watching/process.py: test_process.py starts processes: it uses subprocess",
    ]


def test_the_architecture_page_shows_these_figures() -> None:
    """None is better there than in the code: write what `python -m tests.structure` prints into the table."""
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    shown = {name: int(figure) for name, figure in re.findall(r"^\| ([^|]+?) \| (\d+) \|", page, re.MULTILINE)}
    figures = structure.figures()
    assert figures.keys() <= shown.keys()
    assert {name: figure for name, figure in figures.items() if figure > shown[name] and "wired" not in name} == {}
