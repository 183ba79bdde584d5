"""Workloads of Airflow: what stands in the pod and what in its Secret, and which failure is an expired token's."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.manifests import builder, message_secret, workload
from dispatcher.options import Options, QueueProfile
from dispatcher.protocol.message import Message

TOKEN = "eyJhbGciOiJub25lIn0.a-token.sig"
OPTIONS = Options(profile_for=lambda _: QueueProfile(), app_path="unused:app", image="apache/airflow:3.3.2")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def message(*args: Any, name: str = workload.TASK, **more: Any) -> Message:
    headers = {"podyard": {"name": ["sales", "load"], "labels": {"dag_id": "sales"}}, **more.pop("headers", {})}
    return Message(name=name, id="an-id", args=[*args], headers=headers, delivery_info={"routing_key": "pods"}, **more)


def build(sent: Message, **profile: Any) -> dict[str, Any]:
    return builder.build(
        sent, profile=QueueProfile(template="airflow", **profile), options=OPTIONS, owner="dispatcher@host"
    )


def test_no_token_stands_in_the_pod() -> None:
    """Whoever may read pods cannot act as the task; not even where the queue says `inline`."""
    pod = build(message(json.dumps({"token": TOKEN})), payload="inline")
    assert TOKEN not in json.dumps(pod)


def test_the_container_runs_airflows_own_entry_point_on_the_file_of_its_secret() -> None:
    """No Podyard is needed in the image, so none of our variables is there either."""
    pod = build(message(json.dumps({"token": TOKEN})))
    (container,) = pod["spec"]["containers"]
    assert [*container["command"], *container["args"]] == [*workload.COMMAND, "/podyard/payload/workload.json"]
    assert container["image"] == "apache/airflow:3.3.2"
    assert "env" not in container
    (volume,) = pod["spec"]["volumes"]
    assert volume["secret"] == {
        "secretName": pod["metadata"]["name"],
        "items": [{"key": "workload", "path": "workload.json"}],
    }


def test_the_secret_holds_the_workload_for_the_pod_and_the_message_for_the_next_dispatcher() -> None:
    """Both, owned by the pod."""
    sent = message(json.dumps({"token": TOKEN}))
    pod = build(sent)
    pod["metadata"]["uid"] = "a-uid"
    secret = message_secret.secret(pod, sent.encode(), files=workload.files(sent))
    assert json.loads(base64.b64decode(secret["data"]["workload"])) == {"token": TOKEN}
    assert Message.decode(message_secret.text_in(secret)) == sent
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "a-uid"


def test_other_messages_have_one_key_in_their_secret() -> None:
    """The file is a workload's alone."""
    assert workload.files(message(name="shop.add")) == {}


def test_the_command_cannot_be_overridden() -> None:
    """A workload's pod runs the workload."""
    override = {"spec": {"containers": [{"name": "base", "command": ["sh"]}]}}
    sent = message("{}", headers={"podyard": {"pod_override": override}})
    with pytest.raises(errors.InvalidOverride, match=r"spec\.containers\[0\]\.command"):
        build(sent)


@pytest.mark.parametrize("args", [(), (["airflow", "tasks", "run"],), ("airflow tasks run",), (None,)])
def test_a_message_without_a_workload_is_refused(args: tuple[Any, ...]) -> None:
    """An Airflow 2 sends a command line."""
    with pytest.raises(errors.InvalidPod, match="no workload of Airflow 3"):
        build(message(*args))


@pytest.mark.parametrize(
    ("start_s", "end_s", "is_late"), [(-1.0, 5.0, False), (0.0, 5.0, True), (10.0, 60.0, True), (10.0, 3600.0, False)]
)
def test_a_pod_that_began_after_expiry_and_ended_soon_came_too_late(
    start_s: float, end_s: float, is_late: bool
) -> None:
    """One that ran for long had a token that was taken; one that began before is the task's own failure."""
    sent = message("{}", headers={"expires": NOON.isoformat()})
    begin, end = NOON + timedelta(seconds=start_s), NOON + timedelta(seconds=end_s)
    assert workload.was_too_late(sent, started_at=begin, ended_at=end) is is_late


@pytest.mark.parametrize(
    "sent",
    [
        message("{}"),
        message("{}", headers={"expires": None}),
        message("{}", headers={"expires": "soon"}),
        message("{}", name="shop.add", headers={"expires": NOON.isoformat()}),
    ],
)
def test_without_a_readable_expiry_no_pod_is_too_late(sent: Message) -> None:
    """Nor is that of a task of another kind, whose `expires` means something else."""
    begin = NOON + timedelta(hours=1)
    assert not workload.was_too_late(sent, started_at=begin, ended_at=begin)


def test_an_expiry_without_a_zone_is_utc() -> None:
    """As Celery writes it in some releases."""
    sent = message("{}", headers={"expires": NOON.replace(tzinfo=None).isoformat()})
    assert workload.was_too_late(sent, started_at=NOON, ended_at=NOON)
    assert not workload.was_too_late(sent, started_at=NOON - timedelta(seconds=1), ended_at=NOON)
