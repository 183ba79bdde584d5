"""Pod logs: which containers' logs are wanted, and what stands where there is none."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import errors
from dispatcher.finishing import pod_log
from dispatcher.manifests.container_pod_options import Logs
from dispatcher.protocol import outcome
from tests import fake_api

POD = {
    "metadata": {"name": "p"},
    "spec": {
        "initContainers": [{"name": "fetch"}, {"name": "proxy", "restartPolicy": "Always"}, {"name": "unpack"}],
        "containers": [{"name": "base"}, {"name": "side"}],
    },
}


@pytest.mark.parametrize(
    ("logs", "names"),
    [
        (Logs(), ["base"]),
        (Logs(containers=()), []),
        (Logs(containers=("side", "base")), ["side", "base"]),
        (Logs(is_all=True), ["base", "side"]),
        (Logs(inits=("unpack",)), ["unpack", "base"]),
        (Logs(is_all_inits=True), ["fetch", "unpack", "base"]),
        (Logs(is_all=True, is_all_inits=True), ["fetch", "unpack", "base", "side"]),
        (Logs(containers=(), inits=("fetch",)), ["fetch"]),
    ],
)
def test_the_logs_that_are_wanted_are_named_in_the_order_in_which_they_came(logs: Logs, names: list[str]) -> None:
    """Those of init containers first; a sidecar is none."""
    assert pod_log.containers(POD, logs, base="base") == names


@pytest.mark.parametrize("pod", [{}, {"spec": None}, {"spec": {"containers": None}}])
def test_a_pod_of_which_nothing_is_known_has_the_task_container_alone(pod: dict[str, Any]) -> None:
    """It need not be read for that."""
    assert pod_log.containers(pod, Logs(), base="main") == ["main"]
    assert pod_log.containers(pod, Logs(is_all=True, is_all_inits=True), base="main") == []


def read(api: fake_api.FakeApi, *names: str, limit_bytes: int = 1000, has_prefix: bool = True) -> bytes | None:
    """Their logs."""
    call = pod_log.read(api, "default", "p", names=names, limit_bytes=limit_bytes, has_prefix=has_prefix)  # type: ignore[arg-type]
    return asyncio.run(call)


def api(**logs: bytes) -> fake_api.FakeApi:
    """A server with the pod, some of whose containers have logs."""
    made = fake_api.FakeApi()
    made.add_pod({**POD, "metadata": {"name": "p"}})
    made.logs = {("default", "p", name): text for name, text in logs.items()}
    return made


def test_one_log_is_saved_as_it_is() -> None:
    """Without marks, and without the lines in which an outcome travels."""
    frame = outcome.encode(outcome.Outcome(id="a", retries=0, state="SUCCESS", value="x" * 9000)).lines
    text = "first\n" + "\n".join(frame) + "\nlast\n"
    assert read(api(base=text.encode()), "base", limit_bytes=100_000) == b"first\nlast\n"


def test_a_single_container_that_never_started_has_no_log() -> None:
    """That is no error."""
    assert read(api(), "base") is None


def test_of_several_logs_each_line_says_whose_it_is() -> None:
    """A container without one gets a line that says so."""
    found = read(api(fetch=b"one\ntwo", base=b""), "fetch", "base", "side")
    assert found == (b"[fetch] one\n[fetch] two\n[side] (no log: there is no such container, or it has not started)\n")


def test_marks_can_be_left_out() -> None:
    """Where the sender says so."""
    assert read(api(fetch=b"one\n", base=b"two\n"), "fetch", "base", has_prefix=False) == b"one\ntwo\n"


def test_each_log_is_cut_at_the_limit_by_the_server() -> None:
    """No more is read than can be saved."""
    assert read(api(base=b"x" * 5000), "base", limit_bytes=10) == b"x" * 10


@pytest.mark.parametrize(
    "error",
    [
        errors.ApiError(404, "NotFound", 'pods "p" not found'),
        errors.ApiError(403, "Forbidden", "no"),
        errors.ApiError(500, "InternalError", "dial tcp: the kubelet is away"),
        errors.ApiUnavailable("no answer in time"),
    ],
)
def test_a_log_that_cannot_be_read_now_is_an_error(error: Exception) -> None:
    """The clean-up decides what follows."""
    server = api(base=b"x")
    server.fail("read_log", error)
    with pytest.raises(type(error)):
        read(server, "base")


@given(st.binary())
def test_no_byte_of_a_log_is_lost_by_the_marks(log: bytes) -> None:
    """Whatever it holds."""
    marked = pod_log.prefixed(log, "c")
    assert not marked or (marked.startswith(b"[c] ") and marked.endswith(b"\n"))
    assert _without_marks(marked) == _without_marks(log)


def _without_marks(log: bytes) -> bytes:
    return log.replace(b"\n", b"").replace(b"[c] ", b"")
