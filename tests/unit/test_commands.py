"""Printed commands can be pasted: whatever stands in a path or a name is one word of a shell."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import commands
from routing.standalone import part_errors, standalone
from tests import parts

ROOT = Path(__file__).parents[2]
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=4)


@given(WORDS, WORDS)
def test_a_shell_takes_each_word_as_it_was_meant(words: list[str], values: list[str]) -> None:
    """Spaces, quotes, backslashes as on Windows, dollars, newlines, nothing at all."""
    variables = {f"V{number}": value for number, value in enumerate(values)}
    found = shlex.split(commands.plain(*words, environment=variables))
    assert found == [*(f"{name}={value}" for name, value in variables.items()), "podyard", *words]
    assert commands.shown(*words) == f"`{commands.plain(*words)}`"


@pytest.mark.parametrize("path", ["/home/me/my dags", "C:\\Users\\me\\dags", '/it\'s/"here"', "$HOME/x", "a`b"])
def test_paths_of_people(path: str) -> None:
    """A program's own path, too."""
    line = commands.plain("standalone", "--dags", Path(path), environment={"PODYARD_HOME": path}, program=path)
    assert shlex.split(line) == [f"PODYARD_HOME={path}", path, "standalone", "--dags", str(Path(path))]


def _joined_texts() -> Iterator[tuple[str, str]]:
    """Each f-string of our code, its values as `{}`."""
    for folder in ("dispatcher", "routing"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if file == Path(commands.__file__):
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts_of = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", "".join(map(str, parts_of))


def test_no_command_is_put_together_by_hand() -> None:
    """A value inside of a command goes through `commands`, which quotes it."""
    command = re.compile(r"(?:`|: )(?:podyard|kubectl) [^`]*\{\}")
    found = [(place, text) for place, text in _joined_texts() if command.search(text)]
    assert not found


def test_a_port_that_is_taken_is_named_before_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of a folder of DAGs, and none is made, where nothing can be started."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    with parts.listening() as port:
        options = standalone.StandaloneOptions(flower_port=port)
        with (
            pytest.raises(part_errors.EmbeddedError, match=f"cannot listen on 127.0.0.1:{port}"),
            standalone.started(options, say=said.append),
        ):
            raise AssertionError("it started")
    assert said == []
    assert not (tmp_path / "dags").exists()
