"""Logs: which part, of which container, as it comes or as it was."""

import re
import threading
from typing import Any

import pytest

from tests import parts
from tests.contract.conftest import Api

Json = dict[str, Any]


def test_a_log_is_what_was_printed(api: Api) -> None:
    """All of it, to the last line without an end."""
    pod = api.create("echo one; echo two; printf three")
    api.ended(pod)
    assert api.log(pod).body == "one\ntwo\nthree"


def test_a_log_has_both_streams(api: Api) -> None:
    """Errors too; a runtime that reads two pipes may write them down in another order."""
    pod = api.create("echo one; echo two >&2; echo three")
    api.ended(pod)
    said = api.log(pod).body
    assert sorted(said.splitlines()) == ["one", "three", "two"]
    assert said.index("one") < said.index("three")
    if api.is_local:
        assert said == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"tailLines": 2}, "4\n5\n"),
        ({"tailLines": 0}, ""),
        ({"tailLines": 99}, "1\n2\n3\n4\n5\n"),
        ({"limitBytes": 3}, "1\n2"),
        ({"sinceSeconds": 600}, "1\n2\n3\n4\n5\n"),
        ({"sinceTime": "2999-01-01T00:00:00Z"}, ""),
    ],
)
def test_parts_of_a_log(api: Api, query: Json, expected: str) -> None:
    """The newest lines, the first bytes, since a time."""
    pod = api.create("for i in 1 2 3 4 5; do echo $i; done")
    api.ended(pod)
    assert api.log(pod, **query).body == expected


def test_lines_can_carry_their_time(api: Api) -> None:
    """`timestamps` puts a time before each line."""
    pod = api.create("echo one; echo two")
    api.ended(pod)
    lines = api.log(pod, timestamps="true").body.splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ", "", line) for line in lines] == ["one", "two"]


def test_a_log_can_be_followed_to_its_end(api: Api) -> None:
    """Pieces come while the container runs; the stream ends with it."""
    pod = api.create("echo first; sleep 1; echo last")
    api.running(pod)
    answer = api.open("GET", f"{api.pods}/{pod['metadata']['name']}/log", follow="true")
    pieces = [piece for piece in answer.stream(1024) if piece]
    assert b"".join(pieces) == b"first\nlast\n"
    assert len(pieces) >= 2


def test_the_log_of_a_container_that_waits_is_400(api: Api) -> None:
    """Nothing has started: said with the reason."""
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": api.name(), "key": "x"}}}]
    pod = api.create("true", base={"env": env})
    name = pod["metadata"]["name"]
    answer = parts.eventually(
        lambda: (found := api.log(pod)).code == 400 and "CreateContainerConfigError" in str(found.body) and found, 60
    )
    assert answer.body["reason"] == "BadRequest"
    assert answer.body["message"] == f'container "base" in pod "{name}" is waiting to start: CreateContainerConfigError'


def test_one_container_of_several_must_be_named(api: Api) -> None:
    """And it must be one of the pod's."""
    manifest = api.manifest("echo base")
    manifest["spec"]["containers"].append({"name": "side", "image": api.image, "command": ["echo", "side"]})
    pod = api.call("POST", api.pods, manifest).ok()
    api.ended(pod)
    unnamed = api.log(pod)
    assert unnamed.code == 400
    assert "a container name must be specified" in unnamed.body["message"]
    assert "choose one of: [base side]" in unnamed.body["message"]
    assert api.log(pod, container="side").body == "side\n"
    assert api.log(pod, container="nobody").code == 400


def test_there_is_no_previous_container(api: Api) -> None:
    """Nothing is restarted, so `previous` finds nothing."""
    pod = api.create("true")
    api.ended(pod)
    answer = api.log(pod, previous="true")
    assert answer.code == 400
    assert "previous terminated container" in answer.body["message"]


def test_the_log_of_no_pod_is_404(api: Api) -> None:
    """As any other address of a pod that is not there."""
    assert api.call("GET", f"{api.pods}/{api.name()}/log").code == 404


def test_a_flood_keeps_its_newest_ten_mebibytes(local: Api) -> None:
    """50 MB are printed; the newest 10 MiB can be read, in whole lines, and the end is there."""
    script = (
        "i=0; while [ $i -lt 50 ]; do head -c 1000000 /dev/zero | tr '\\0' x | fold -w 99; i=$((i+1)); done; echo end"
    )
    pod = local.create(script)
    local.ended(pod)
    text = local.log(pod).body
    assert 9 * 1024 * 1024 < len(text) <= 10 * 1024 * 1024
    assert text.endswith("end\n")
    assert set(text.splitlines()[0]) == {"x"}
    folder = local.kubeconfig.parent / "pods" / pod["metadata"]["uid"]
    assert sum(file.stat().st_size for file in folder.rglob("log.*")) <= 16 * 1024 * 1024


def test_bytes_that_are_no_text_pass(local: Api) -> None:
    """A log is bytes."""
    pod = local.create("printf '\\377\\000\\n'")
    local.ended(pod)
    answer = local.open("GET", f"{local.pods}/{pod['metadata']['name']}/log")
    assert answer.read() == b"\xff\x00\n"


def test_a_follower_of_a_deleted_pod_is_let_go(api: Api) -> None:
    """The stream ends when the container is killed."""
    pod = api.running(api.create("echo here; sleep 60"))
    answer = api.open("GET", f"{api.pods}/{pod['metadata']['name']}/log", follow="true")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.extend(answer.stream(1024)), daemon=True)
    reader.start()
    parts.eventually(lambda: read, 20, what="the first line")
    api.call("DELETE", f"{api.pods}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0}).ok()
    reader.join(20)
    assert not reader.is_alive()
