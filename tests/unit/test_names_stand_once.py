"""A file's name and a class's name stand for one noun: what stands twice is listed here, with the noun or as known."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROLES = frozenset({"__init__.py", "__main__.py"})
"""Python's own names, which every package may have."""

SAME_FILES = {
    "cleanup.py": "the clean-up of pods that ended, and its command",
    "errors.py": "one error tree for each of the two packages",
    "failure.py": "why a command or an Airflow task failed, as people read it",
    "health.py": "health of the running parts, and its command",
    "names.py": "names that people and Kubernetes give",
    "options.py": "options as people write them",
    "pool.py": "Celery's pool: `dispatcher.pool` is the address that users write, `dispatcher.worker.pool` its code",
    "runs.py": "runs of DAGs, and their command",
    "sections.py": "sections of the settings: routing's extend the dispatcher's",
    "states.py": "one table of states and moves for each thing that has some",
    "workload.py": "Airflow's workload: read for a pod, and sent by the executor",
}
SAME_CLASSES = {
    "Attempt": "an attempt: in the dispatcher's memory, and its row",
    "Bounds": "how long a call may last, how many may run",
    "Context": "what surrounds a piece of work",
    "Dag": "a DAG, and its row",
    "Database": "the database: its settings, and the connection",
    "Explanation": "why something is as it is",
    "Failure": "how something failed, as data",
    "Finding": "one line of what a check found",
    "Graph": "the graph of a DAG",
    "Limits": "limits of an attempt: as asked for, and as kept inside the pod",
    "LoadError": "what the catalogue asks of the loader's error",
    "Loaded": "what the catalogue asks of what was loaded",
    "Logs": "settings of logs",
    "Node": "a node of the graph of a DAG",
    "Pace": "how often a loop does its rounds",
    "Problem": "what is wrong with settings",
    "Results": "the section of the settings: routing's extends the dispatcher's",
    "Scheduler": "the scheduler: its settings, and itself",
    "Top": "the top level of the settings: routing's extends the dispatcher's",
    "Waiting": "an attempt that waits",
    "Worker": "a Celery worker: its settings, and as a check sees it",
}


def _modules() -> Iterator[Path]:
    """Every module of ours, but the local cluster's, which models another program with that program's nouns."""
    for package in ("dispatcher", "routing"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "localcluster" not in path.parts and "migrations" not in path.parts:
                yield path


def _twice(names: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    places: dict[str, set[str]] = {}
    for name, path in names:
        places.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return {name: sorted(paths) for name, paths in places.items() if len(paths) > 1}


def _classes() -> Iterator[tuple[str, Path]]:
    for path in _modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                yield node.name, path


def test_no_file_name_stands_twice_for_two_nouns() -> None:
    """A name in an error message or a search leads to one file; a list that names too much is out of date."""
    twice = _twice((path.name, path) for path in _modules() if path.name not in ROLES)
    known = {*SAME_FILES}
    assert {name: paths for name, paths in twice.items() if name not in known} == {}
    assert known - set(twice) == set()


def test_no_class_name_stands_twice_for_two_nouns() -> None:
    """The same of classes at the top of a module."""
    twice = _twice(_classes())
    known = {*SAME_CLASSES}
    assert {name: paths for name, paths in twice.items() if name not in known} == {}
    assert known - set(twice) == set()
