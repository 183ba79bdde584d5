"""A folder of DAG files loads whatever is in it; each mistake is told with its file and line."""

import os
import textwrap
import threading
import time
from pathlib import Path

import pytest

from routing.authoring import loading
from routing.authoring.loading import FolderLoader, LoadError, load_folder
from tests import parts

GOOD = """
    from routing import DAG, EmptyOperator
    with DAG("{dag_id}"):
        EmptyOperator(task_id="only")
"""


def write(folder: Path, name: str, text: str, **values: str) -> Path:
    """A file of the folder, dedented; its first line is line 1."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        textwrap.dedent(text).lstrip("\n").format(**values) if values else textwrap.dedent(text).lstrip("\n")
    )
    return path


def good(folder: Path, name: str, dag_id: str) -> Path:
    """A file with one DAG."""
    return write(folder, name, GOOD, dag_id=dag_id)


def ids(loaded: loading.Loaded) -> list[tuple[str, str]]:
    """(dag_id, file) of what was loaded."""
    return [(dag.dag_id, dag.file) for dag in loaded.dags]


def test_each_broken_file_is_told_with_its_line_and_stops_no_other(tmp_path: Path) -> None:
    """One folder with every kind of mistake that loading can meet, deadly ones among them."""
    good(tmp_path, "good.py", "good")
    write(tmp_path, "no_dag.py", "answer = 42\n")
    write(tmp_path, "syntax.py", "a = 1\ndef broken(:\n")
    write(tmp_path, "imports.py", "a = 1\nimport no_such_module\n")
    write(tmp_path, "raises.py", "import os\n\nraise ValueError('the reason')\n")
    write(tmp_path, "loops.py", "a = 1\nwhile True:\n    pass\n")
    write(tmp_path, "sleeps.py", "import time\ntime.sleep(60)\n")
    write(tmp_path, "leaves.py", "import os\nos._exit(3)\n")
    write(tmp_path, "exits.py", "import sys\nsys.exit('no')\n")
    write(tmp_path, "crashes.py", "import ctypes\n\nctypes.string_at(0)\n")
    write(tmp_path, "bytes.py", "").write_bytes(b"a = '\xff\xfe'\n")
    write(tmp_path, "helper.py", "def fail():\n    raise KeyError('inside')\n")
    write(tmp_path, "uses_helper.py", "a = 1\nimport helper\nhelper.fail()\n")
    write(
        tmp_path,
        "cycle.py",
        """
        from routing import DAG, EmptyOperator
        with DAG("round"):
            a, b = (EmptyOperator(task_id=name) for name in "ab")
            a >> b >> a
        """,
    )
    write(tmp_path, "twice.py", "from routing import DAG\nDAG('same')\nDAG('same')\n")
    write(tmp_path, "outside.py", "from routing import EmptyOperator\nEmptyOperator(task_id='x')\n")
    (tmp_path / "dangling.py").symlink_to("nowhere.py")

    loaded = load_folder(tmp_path, timeout_s=2.0)

    assert ids(loaded) == [("good", "good.py")]
    told = {error.file: (error.line, error.message) for error in loaded.errors}
    too_long = "loading it took longer than 2 s; do the work in tasks, not while the file is loaded"
    undecodable = told.pop("bytes.py")
    assert "codec can't decode byte 0xff" in undecodable[1]
    assert told == {
        "syntax.py": (2, "SyntaxError: invalid syntax: def broken(:"),
        "imports.py": (2, "ModuleNotFoundError: No module named 'no_such_module'"),
        "raises.py": (3, "ValueError: the reason"),
        "loops.py": (told["loops.py"][0], too_long),
        "sleeps.py": (2, too_long),
        "leaves.py": (None, "it ended the interpreter (exit code 3) while it was loaded"),
        "exits.py": (2, "the file calls sys.exit('no')"),
        "crashes.py": (3, "loading it crashed the interpreter (SIGSEGV)"),
        "uses_helper.py": (3, "helper.py, line 2: KeyError: 'inside'"),
        "cycle.py": (2, "DAG 'round' has a cycle: a >> b >> a; take one arrow out"),
        "twice.py": (3, "the file defines DAG 'same' twice; rename one"),
        "outside.py": (2, told["outside.py"][1]),
        "dangling.py": (None, "the link leads nowhere; remove it, or restore its target"),
    }
    assert told["loops.py"][0] in (2, 3)


def test_noise_and_stray_processes_do_not_matter(tmp_path: Path) -> None:
    """What the author's code prints is not the result, and what it starts does not outlive its loading."""
    marker = tmp_path / "pid"
    write(
        tmp_path,
        "noisy.py",
        f"""
        import subprocess, sys
        from routing import DAG
        print("noise " * 1_000_000)
        print("{{}}", file=sys.stderr)
        started = subprocess.Popen(["sleep", "60"])
        open({str(marker)!r}, "w").write(str(started.pid))
        DAG("noisy")
        """,
    )
    assert ids(load_folder(tmp_path, timeout_s=20.0)) == [("noisy", "noisy.py")]
    parts.eventually(lambda: _is_gone(int(marker.read_text())), 5, what="the stray process is gone")


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_a_dag_id_used_twice_stays_with_the_first_file(tmp_path: Path) -> None:
    """Both files are named; the order is that of their paths, so every process decides alike."""
    good(tmp_path, "b.py", "same")
    good(tmp_path, "sub/a.py", "same")
    loaded = load_folder(tmp_path, timeout_s=20.0)
    assert ids(loaded) == [("same", "b.py")]
    message = "DAG 'same' is defined in b.py, too, which stays in use; rename one of them"
    assert loaded.errors == (LoadError("sub/a.py", 2, message),)


def test_the_first_example_of_the_guide_works(tmp_path: Path) -> None:
    """What docs/dags.md shows is a DAG file as it stands."""
    guide = (Path(__file__).parents[3] / "docs" / "dags.md").read_text()
    (tmp_path / "first.py").write_text(guide.split("```python\n")[1].split("```")[0])
    loaded = load_folder(tmp_path, timeout_s=20.0)
    assert loaded.errors == ()
    assert [(task.task_id, task.queue, task.upstream) for task in loaded.dags[0].tasks] == [
        ("numbers", None, ()),
        ("add", "kubernetes", ("numbers",)),
        ("show", None, ("add",)),
    ]


def test_hidden_folders_and_links_to_what_was_seen_are_left_out(tmp_path: Path) -> None:
    """A mounted ConfigMap keeps its versions in hidden folders, and a link may point at its own parent."""
    good(tmp_path, "..2026/a.py", "a")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a.py").symlink_to("..data/a.py")
    (tmp_path / "again.py").symlink_to("a.py")
    (tmp_path / "loop").symlink_to(".")
    good(tmp_path, "__pycache__/x.py", "x")
    good(tmp_path, "venv/lib/x.py", "x")
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    loaded = load_folder(tmp_path, timeout_s=20.0)
    assert (ids(loaded), loaded.errors) == ([("a", "a.py")], ())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "does not exist; make it, or set dags.folder"),
        (Path.touch, "is a file; set dags.folder to a folder"),
    ],
)
def test_a_folder_that_cannot_be_used_is_an_error_not_an_exception(tmp_path: Path, make: object, message: str) -> None:
    """The scheduler goes on, and says why there are no DAGs."""
    folder = tmp_path / "dags"
    make(folder)  # type: ignore[operator]
    loaded = load_folder(folder, timeout_s=1.0)
    assert loaded.dags == ()
    assert [(error.file, error.line) for error in loaded.errors] == [("", None)]
    assert message in loaded.errors[0].message


def test_only_what_changed_is_loaded_again(tmp_path: Path) -> None:
    """A file, or a helper module that it imports; a file that breaks keeps its last good version."""
    count = tmp_path / "loads.txt"
    for name in "ab":
        write(
            tmp_path,
            f"{name}.py",
            f"""
            from routing import DAG
            import shared
            DAG("{name}" + shared.suffix)
            open({str(count)!r}, "a").write("{name}")
            """,
        )
    shared = write(tmp_path, "shared.py", "suffix = '1'\n")
    loader = FolderLoader(tmp_path, 20.0)

    def refreshed() -> tuple[list[str], str]:
        count.write_text("")
        return [dag.dag_id for dag in loader.refresh().dags], "".join(sorted(count.read_text()))

    assert refreshed() == (["a1", "b1"], "ab")
    assert refreshed() == (["a1", "b1"], "")
    write(tmp_path, "a.py", f"from routing import DAG\nDAG('a3')\nopen({str(count)!r}, 'a').write('a')\n")
    assert refreshed() == (["a3", "b1"], "a")
    shared.write_text("suffix = '22'\n")
    assert refreshed() == (["a3", "b22"], "b")
    write(tmp_path, "a.py", "broken(\n")
    assert refreshed() == (["a3", "b22"], "")
    assert [error.message for error in loader.refresh().errors] == [
        "SyntaxError: '(' was never closed: broken( (the last good version of the file stays in use: 'a3')"
    ]
    (tmp_path / "a.py").unlink()
    assert refreshed() == (["b22"], "")
    assert loader.refresh().errors == ()


def test_an_endless_file_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    """A refresh returns without it; a later one tells its error."""
    write(tmp_path, "endless.py", "while True:\n    pass\n")
    good(tmp_path, "good.py", "good")
    loader = FolderLoader(tmp_path, 3.0)
    first = loader.refresh(patience_s=1.0)
    assert (ids(first), first.errors, loader.loading()) == ([("good", "good.py")], (), ("endless.py",))
    good(tmp_path, "new.py", "new")
    assert ids(loader.refresh(patience_s=0.5)) == [("good", "good.py"), ("new", "new.py")]
    last = loader.refresh(patience_s=10.0)
    assert [(error.file, error.message[:32]) for error in last.errors] == [
        ("endless.py", "loading it took longer than 3 s;")
    ]
    loader.close()


def test_a_dag_belongs_to_the_file_that_is_loaded_not_to_who_imports_it(tmp_path: Path) -> None:
    """A DAG made by a helper's function belongs to the caller's file; one that is imported stays where it is."""
    write(tmp_path, "factory.py", "from routing import DAG\ndef make(name):\n    return DAG(name)\n")
    write(tmp_path, "made.py", "import factory\nfactory.make('made')\n")
    good(tmp_path, "original.py", "original")
    write(tmp_path, "importer.py", "import original\n")
    loaded = load_folder(tmp_path, timeout_s=20.0)
    assert (sorted(ids(loaded)), loaded.errors) == ([("made", "made.py"), ("original", "original.py")], ())


def test_author_code_does_not_see_the_addresses_of_the_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broker and database hold passwords; a DAG file needs neither."""
    for name in ("PODYARD_BROKER__URL", "PODYARD_DATABASE__URL", "PODYARD_RESULTS__URL"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OWN", "yes")
    write(
        tmp_path,
        "env.py",
        """
        import os
        from routing import DAG
        DAG(" ".join(sorted(v for k, v in os.environ.items() if k == "OWN" or v == "secret")))
        """,
    )
    assert ids(load_folder(tmp_path, timeout_s=20.0)) == [("yes", "env.py")]


def test_closing_ends_a_refresh_that_is_under_way(tmp_path: Path) -> None:
    """A scheduler that is told to stop does not wait for an endless file."""
    started = tmp_path / "started"
    write(tmp_path, "endless.py", f"open({str(started)!r}, 'w')\nwhile True:\n    pass\n")
    loader = FolderLoader(tmp_path, 60.0)
    thread = threading.Thread(target=loader.refresh)
    thread.start()
    deadline = time.monotonic() + 20
    while not started.exists() and time.monotonic() < deadline:
        os.sched_yield()
    loader.close()
    thread.join(10)
    assert not thread.is_alive()
