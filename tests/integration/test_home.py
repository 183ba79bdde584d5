"""The home folder: one runner at a time, private, and settings that every part reads back as they were written."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.standalone import home, part_errors

HOLDER = """
import pathlib, subprocess, sys, time
from routing.standalone import home
with home.locked(pathlib.Path(sys.argv[1])) as lock:
    child = [sys.executable, "-c", "import sys, time; sys.stdin.read(); time.sleep(0.3)"]
    subprocess.Popen(child, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[lock])
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_runner_is_told_who_the_first_is(tmp_path: Path) -> None:
    """Given a process that holds the folder, when another wants it, then the error names the first one's pid."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            with (
                pytest.raises(part_errors.EmbeddedError, match=rf"{tmp_path} already.*\(pid {first.pid}\).*--home"),
                home.locked(tmp_path),
            ):
                pass
        finally:
            first.kill()


def test_a_killed_runner_leaves_the_folder_free(tmp_path: Path) -> None:
    """The next runner waits for what the killed one has left running, and then takes the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.kill()

    with home.locked(tmp_path) as lock:
        assert lock


def test_a_folder_that_cannot_be_made_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    """A file stands in the way: the same branch as a read-only folder, and it fails for root too."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(part_errors.EmbeddedError, match=r"cannot write in .*file/home \(Not a directory\).*--home"),
        home.locked(tmp_path / "file" / "home"),
    ):
        pass


@given(
    st.dictionaries(
        st.text(),
        st.text()
        | st.integers(-(2**60), 2**60)
        | st.booleans()
        | st.dictionaries(st.text(), st.text() | st.integers(0, 9)),
        max_size=5,
    )
)
def test_any_settings_come_back_from_toml_as_they_were(sections: dict[str, object]) -> None:
    """Queue names, paths and passwords may hold any character."""
    assert tomllib.loads(home.to_toml(sections)) == sections


def test_the_settings_of_the_parts_are_private(tmp_path: Path) -> None:
    """They hold the broker's password."""
    path = home.write_settings(tmp_path, {"broker": {"url": "redis://:secret@127.0.0.1:1/0"}})
    assert path.stat().st_mode & 0o777 == 0o600
