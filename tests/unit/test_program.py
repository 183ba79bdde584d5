"""The root command: names that do not exist, and completion."""

import os
import subprocess
import sys

import pytest


def podyard(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """One call, to its end."""
    command = [sys.executable, "-m", "routing.cli", *words]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "meant"),
    [(("dag", "list"), "podyard dags list"), (("task", "explain", "a b"), "podyard tasks explain 'a b'")],
)
def test_a_command_that_does_not_exist_is_told_with_the_one_that_was_meant(words: tuple[str, ...], meant: str) -> None:
    """The whole line, to be copied."""
    ended = podyard(*words)
    assert ended.returncode == 2
    told = f"there is no command {words[0]!r}: did you mean `{meant}`?"
    assert ended.stderr == f"podyard: {told} (see `podyard --help`)\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(shell: str) -> None:
    """It names the program and the variable by which it asks."""
    ended = podyard("completion", shell)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"_PODYARD_COMPLETE={shell}_complete" in ended.stdout


@pytest.mark.parametrize(
    ("line", "place", "expected"), [("podyard da", "1", "plain,dags"), ("podyard dags tri", "2", "plain,trigger")]
)
def test_a_tab_completes_commands(line: str, place: str, expected: str) -> None:
    """As the script of bash asks."""
    ended = podyard(_PODYARD_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=place)
    assert ended.stdout.split() == [expected]
