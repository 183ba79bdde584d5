"""A traceback shows the author's part alone, whatever kind of exception it is, on both sides alike."""

import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import pytest

from dispatcher.pod import failures
from dispatcher.protocol import tracebacks
from routing.worker import run
from tests.unit.worker.test_run import HEAD, message

BODIES = {
    "plain": "raise KeyError('key')",
    "from": """
        try:
            int('x')
        except ValueError as error:
            raise LookupError('outer') from error
        """,
    "while handling": """
        try:
            int('x')
        except ValueError:
            raise LookupError('outer')
        """,
    "from none": """
        try:
            int('x')
        except ValueError:
            raise LookupError('outer') from None
        """,
    "group": """
        errors = []
        for text in 'xy':
            try:
                int(text)
            except ValueError as error:
                errors.append(error)
        raise ExceptionGroup('two', [*errors, ExceptionGroup('inner', [KeyError('in it')])])
        """,
    "caught and raised again": """
        try:
            [].pop()
        except IndexError as error:
            error.add_note('a note')
            raise
        """,
    "in a thread": """
        from concurrent.futures import ThreadPoolExecutor
        ThreadPoolExecutor().submit(int, 'x').result()
        """,
    "exit": "sys.exit(3)",
    "a module with a mistake": "import mistaken",
    "a module that is not there": "import not_there_at_all",
    "by us, called by it": "DAG('d', bogus=1)",
    "result": "return {1, 2}",
}
OURS = ("dispatcher/", "routing/", "celery/", "billiard/", "<frozen importlib")


def raised(folder: Path, body: str) -> BaseException:
    """What a task's body raises that is run as on both sides."""
    (folder / "mistaken.py").write_text("def broken(:\n    pass\n")
    (folder / "f.py").write_text(f"{HEAD}@task\ndef t():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n")
    with (folder / "f.py").open("a") as file:
        file.write("with DAG('d'): t()\n")
    return failed(folder)


def failed(folder: Path) -> BaseException:
    """What the run of the DAG file raises, without the test's own line."""
    with pytest.raises(Exception) as found:
        run.execute(message("t"), folder=folder, attempt_id="a")
    assert found.value.__traceback__ is not None
    return found.value.with_traceback(found.value.__traceback__.tb_next)


def shown(text: str) -> list[str]:
    """The files of the frames."""
    return [line.split('"')[1] for line in text.splitlines() if line.strip(" |+-").startswith('File "')]


@pytest.mark.parametrize("kind", BODIES)
def test_only_the_authors_part_is_shown(tmp_path: Path, kind: str) -> None:
    """From the first line of the DAG file on; what that calls stays, and so does all that a chain or a group holds."""
    error = raised(tmp_path, BODIES[kind])
    assert any(part in file for file in shown("".join(traceback.format_exception(error))) for part in OURS)
    text = tracebacks.of_author(error)
    ours = [file for file in shown(text) if any(f"/{part}" in file or file.startswith(part) for part in OURS)]
    if kind == "by us, called by it":
        assert shown(text)[0].endswith("f.py"), text
    else:
        assert not ours, text
    assert failures.of(error).traceback == text or kind == "exit"


def test_what_a_chain_and_a_group_hold_stays(tmp_path: Path) -> None:
    """Causes, contexts, members and notes."""
    assert "direct cause" in tracebacks.of_author(raised(tmp_path, BODIES["from"]))
    assert "During handling" in tracebacks.of_author(raised(tmp_path, BODIES["while handling"]))
    assert "invalid literal" not in tracebacks.of_author(raised(tmp_path, BODIES["from none"]))
    group = tracebacks.of_author(raised(tmp_path, BODIES["group"]))
    assert group.count("invalid literal") == 2
    assert "KeyError: 'in it'" in group
    assert "a note" in tracebacks.of_author(raised(tmp_path, BODIES["caught and raised again"]))


def test_a_mistake_in_an_imported_module_is_shown_with_its_line(tmp_path: Path) -> None:
    """The line that imports it, and the line with the mistake."""
    text = tracebacks.of_author(raised(tmp_path, BODIES["a module with a mistake"]))
    assert [Path(file).name for file in shown(text)] == ["f.py", "mistaken.py"]
    assert "def broken(:" in text


def test_a_dag_file_that_breaks_where_the_task_runs_is_shown_from_its_own_line_on(tmp_path: Path) -> None:
    """The failure is ours and has no lines; its cause is the author's."""
    (tmp_path / "f.py").write_text("import json\njson.loads('{')\n")
    text = tracebacks.of_author(failed(tmp_path))
    assert "cannot be loaded here" in text
    assert Path(shown(text)[0]).name == "f.py"
    assert not [file for file in shown(text) if "/routing/" in file], text


def test_exceptions_that_hold_each_other_end(tmp_path: Path) -> None:
    """A cycle of causes is Python's to show; it must not keep us."""
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    assert "ValueError: a" in tracebacks.of_author(first)


def test_the_text_is_kept_where_lines_are_added_later(tmp_path: Path) -> None:
    """Celery's tracer raises it again before it stores it."""
    error: Any = raised(tmp_path, BODIES["plain"])
    text = tracebacks.keep(error)
    assert tracebacks.kept(error) == text
    assert tracebacks.kept(ValueError()) is None
    assert tracebacks.kept("no exception") is None


def test_it_costs_a_pod_nothing_heavy() -> None:
    """Every pod imports it."""
    program = "import sys, dispatcher.protocol.tracebacks; print([m for m in ('celery', 'kombu') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
