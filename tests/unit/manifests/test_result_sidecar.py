"""The result sidecar tells what is in the file, in any shell, within bounds; what it tells is read without trust."""

import base64
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.manifests import result_sidecar
from tests import parts

MAX_BYTES = 50_000


def pod_that_said(message: str | None, *, phase: str = "Running") -> dict[str, Any]:
    state = {"running": {}} if message is None else {"terminated": {"message": message, "exitCode": 0}}
    return {"status": {"phase": phase, "initContainerStatuses": [{"name": result_sidecar.NAME, "state": state}]}}


def run_sidecar(folder: Path) -> tuple[result_sidecar.SidecarReport, bytes]:
    """Runs the script as the cluster does, with its paths in `folder`: SIGTERM once the others have ended."""
    made = result_sidecar.build(path="/airflow/xcom/return.json", image="i", max_bytes=MAX_BYTES, base="base")
    script = made["spec"]["initContainers"][0]["args"][0]
    script = script.replace(f"{result_sidecar.FOLDER}/", f"{folder}/").replace("/dev/termination-log", f"{folder}/said")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["sh", "-c", script], stdout=log, start_new_session=True)
        caught = Path(f"/proc/{process.pid}/status")
        parts.eventually(lambda: _catches_term(caught.read_text()), 5, what="the trap is set")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        os.killpg(process.pid, signal.SIGKILL)
    said = (folder / "said").read_text()
    assert len(said) <= 1024, "of twelve containers Kubernetes keeps a kilobyte each"
    return result_sidecar.report_of(pod_that_said(said)), (folder / "log").read_bytes()


def _catches_term(status: str) -> bool:
    mask = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("value", ["x", "y" * 600, "z" * 40_000, {"größe": [1, 2.5, None]}], ids=type)
def test_what_is_written_is_read(tmp_path: Path, value: Any) -> None:
    (tmp_path / "return.json").write_text(json.dumps(value))
    told, log = run_sidecar(tmp_path)
    data = told.data if told.kind == "here" else result_sidecar.read_log(log, told)
    assert result_sidecar.value(data, path="p") == value


def test_no_file_is_nothing(tmp_path: Path) -> None:
    assert run_sidecar(tmp_path)[0].kind == "nothing"


def test_too_large_a_file_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "return.json").write_bytes(b"x" * (MAX_BYTES + 1))
    told, log = run_sidecar(tmp_path)
    assert (told.kind, told.size, log) == ("large", MAX_BYTES + 1, b"")


def test_a_folder_in_its_place_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "return.json").mkdir()
    told, _ = run_sidecar(tmp_path)
    assert told.kind == "unreadable"
    assert "xcom_sidecar_container_security_context" in str(result_sidecar.failure(told, path="p", max_bytes=1))


def test_a_log_that_lost_a_line_is_noticed() -> None:
    data = b"[" + b"1, " * 900 + b"1]"
    sha = hashlib.sha256(data).hexdigest()
    lines = base64.encodebytes(data).splitlines(keepends=True)
    told = result_sidecar.SidecarReport(kind="log", size=len(data), sha256=sha)
    assert result_sidecar.read_log(b"".join(lines), told) == data
    with pytest.raises(errors.PodFailed) as caught:
        result_sidecar.read_log(b"".join(lines[:-2]), told)
    assert caught.value.details == {"reason": "ResultLost", "cause": "infrastructure"}


@pytest.mark.parametrize(
    ("data", "value"), [(b"", None), (b" \n", None), (b"null", None), (b"0", 0), ("ü".join('""').encode(), "ü")]
)
def test_an_empty_file_is_none(data: bytes, value: Any) -> None:
    assert result_sidecar.value(data, path="p") == value


@pytest.mark.parametrize("data", [b"rows: 3", b"{", b"NaN", b"\xff\xfe", b"[" * 100_000])
def test_bad_json_shows_its_first_bytes_and_no_more(data: bytes) -> None:
    with pytest.raises(errors.PodFailed) as caught:
        result_sidecar.value(data, path="/out/p")
    assert "/out/p" in str(caught.value)
    assert repr(data[:5])[:-1] in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_sidecar_that_runs_has_not_told_yet_and_one_without_a_word_is_lost() -> None:
    assert result_sidecar.report_of(pod_that_said(None)).kind == "waiting"
    assert result_sidecar.report_of(pod_that_said("")).kind == "lost"
    assert result_sidecar.report_of({"status": {"phase": "Succeeded"}}).kind == "lost"


@given(st.text(max_size=200))
def test_no_message_makes_it_raise(message: str) -> None:
    result_sidecar.report_of(pod_that_said(message))
    result_sidecar.report_of(pod_that_said(f"podyard-result {message}"))


@pytest.mark.parametrize(
    "part",
    [
        {"spec": {"initContainers": [{"name": result_sidecar.NAME}]}},
        {"spec": {"volumes": [{"name": result_sidecar.NAME}]}},
        {"spec": {"containers": [{"name": "base", "volumeMounts": [{"name": "v", "mountPath": "/airflow/xcom/"}]}]}},
    ],
)
def test_what_it_needs_for_itself_cannot_be_taken(part: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidPod, match="do_xcom_push"):
        result_sidecar.check(part, path="/airflow/xcom/return.json", base="base")
