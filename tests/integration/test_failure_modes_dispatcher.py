"""Rows of docs/failure-modes.md on the dispatcher's side, each by its id: it is killed, or the world is not as it was.

As in `test_failure_modes.py`, but the dispatcher of this module has a database and a log folder, and is killed at will.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.localcluster.client import Client, ClientError
from dispatcher.localcluster.faults import client
from dispatcher.manifests import labels, names
from tests import builders, parts
from tests.integration.yard_parts import (
    WAIT_S,
    Yard,
    ended_by,
    ends_well,
    napping,
    pods_database,
    pods_of,
    row_of,
    runs,
)

pytestmark = pytest.mark.usefixtures("no_pod_left")
PODS = "/api/v1/namespaces/default/pods"
OTHER = "team"
"""A namespace beside the default one."""


@pytest.fixture(scope="module")
def yard(
    tmp_path_factory: pytest.TempPathFactory, valkey_server: parts.Valkey, faulty_cluster: parts.LocalCluster
) -> Iterator[Yard]:
    """A dispatcher with a database, on a cluster that takes faults."""
    folder = tmp_path_factory.mktemp("failure-modes-dispatcher")
    with Yard(
        folder=folder,
        broker=valkey_server.fresh().url,
        kubeconfig=faulty_cluster.kubeconfig,
        deployment="killed-at-will",
        database=pods_database(folder),
    ) as yard:
        Client.from_kubeconfig(yard.kubeconfig).call("POST", "/api/v1/namespaces", {"metadata": {"name": OTHER}})
        yard.dispatcher(YARD_NAMESPACES=f"default,{OTHER}")
        yield yard


@pytest.fixture
def api(yard: Yard) -> Client:
    """The API server, past the dispatcher."""
    return Client.from_kubeconfig(yard.kubeconfig)


def killed(yard: Yard) -> None:
    """SIGKILL to the dispatcher."""
    yard.kill(yard.processes.pop())


def reborn(yard: Yard) -> None:
    """The next dispatcher of that name."""
    yard.dispatcher(YARD_NAMESPACES=f"default,{OTHER}")


def in_flight(yard: Yard) -> dict[str, Any]:
    """What the dispatcher says of its pool."""
    node = f"dispatcher@{yard.deployment}"
    stats = yard.client.control.inspect([node], timeout=2).stats()
    return dict(stats[node]["pool"])


def copy_of(pod: dict[str, Any], *, task_id: str | None = None, **metadata: Any) -> dict[str, Any]:
    """A manifest like that of a pod that is there, for another task id and with other metadata."""
    old_id = pod["metadata"]["annotations"]["podyard.dev/attempt-id"]
    text = json.dumps({"metadata": pod["metadata"], "spec": pod["spec"]})
    made: dict[str, Any] = json.loads(text.replace(old_id, task_id or old_id))
    for gone in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "managedFields"):
        made["metadata"].pop(gone, None)
    made["spec"].pop("nodeName", None)
    made["metadata"] |= metadata
    return made


# --- K: calls


def test_K16_a_name_whose_pod_is_about_to_go_is_waited_for(yard: Yard, api: Client, faults: client.Faults) -> None:
    """A pod of the same attempt is Terminating, held by a finalizer: the task waits, says why, and then runs."""
    task_id = str(uuid.uuid4())
    name = names.pod_name("tests.apps.yard.add", key=f"{yard.deployment}/{task_id}/0")
    other, pod = napping(yard, 0.5)
    given = {**pods_of(yard)[pod]["metadata"]["labels"], labels.OWNER_LABEL: "somebody"}
    body = copy_of(pods_of(yard)[pod], task_id=task_id, name=name, labels=given, finalizers=["example.com/hold"])
    body["spec"]["containers"][0] |= {"command": ["true"], "args": []}
    api.call("POST", PODS, body)
    api.call("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})

    sent = yard.send("add", 2, 3, task_id=task_id)
    parts.eventually(lambda: row_of(yard, task_id).reason == "PodLeaving", WAIT_S, what="the wait is explained")
    assert runs(yard, task_id) == 0
    patch = {"metadata": {"finalizers": None}}
    api.call("PATCH", f"{PODS}/{name}", patch, content_type="application/merge-patch+json")

    assert sent.get(timeout=WAIT_S) == 5
    assert runs(yard, task_id) == 1
    assert other.get(timeout=WAIT_S) == "slept"


def test_K18_a_certificate_that_nobody_vouches_for_parks_and_says_so(
    tmp_path: Path, valkey: parts.ValkeyDatabase, local_cluster: parts.LocalCluster, deployment: str
) -> None:
    """The task waits with the words of the TLS library, fails not, and runs once the certificate is right."""
    config = yaml.safe_load(local_cluster.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    yard = Yard(folder=tmp_path, broker=valkey.url, kubeconfig=tmp_path / "kubeconfig", deployment=deployment)
    try:
        first = yard.dispatcher()
        sent = yard.send("add", 2, 3)
        parts.eventually(lambda: "certificate" in in_flight(yard)["trouble"].lower(), WAIT_S)
        assert not sent.ready()
        parts.stop(first)

        yard.kubeconfig = local_cluster.kubeconfig
        yard.dispatcher()

        assert sent.get(timeout=WAIT_S) == 5
        assert runs(yard, sent.id) == 1
    finally:
        yard.stop()


# --- W: watches


def test_W6_a_pod_of_ours_that_nobody_recorded_is_finished_and_not_thrown_away(
    yard: Yard, api: Client, faults: client.Faults
) -> None:
    """It says whose message it runs: it is adopted, its body ends, its result is stored."""
    task_id = str(uuid.uuid4())
    known, pod = napping(yard, 0.5)
    body = copy_of(pods_of(yard)[pod], task_id=task_id, name=f"restored-{task_id[:8]}")

    api.call("POST", PODS, body)

    assert yard.client.AsyncResult(task_id).get(timeout=WAIT_S) == "slept"
    assert known.get(timeout=WAIT_S) == "slept"
    assert (runs(yard, known.id), runs(yard, task_id)) == (1, 1)


def test_W7_a_pod_with_our_labels_and_nothing_else_is_left_alone(
    yard: Yard, api: Client, faults: client.Faults
) -> None:
    """Neither adopted nor counted nor deleted; tasks beside it run."""
    known, pod = napping(yard, 0.2)
    labels = pods_of(yard)[pod]["metadata"]["labels"]
    bare = builders.manifest("bare", "sleep", "60")["spec"]
    strangers = {
        "bare": {"name": "bare", "labels": labels},
        "odd": {
            "name": "odd",
            "labels": labels,
            "annotations": {"podyard.dev/attempt-id": "7", "podyard.dev/retries": "many"},
        },
        "mute": {
            "name": "mute",
            "labels": labels,
            "annotations": {"podyard.dev/attempt-id": "7", "podyard.dev/retries": "0", "podyard.dev/message": "{"},
        },
    }
    for metadata in strangers.values():
        api.call("POST", PODS, {"metadata": metadata, "spec": bare})
    try:
        ends_well(yard)
        assert known.get(timeout=WAIT_S) == "slept"
        parts.eventually(lambda: in_flight(yard)["pods-in-flight"] == 0, WAIT_S)
        parts.eventually(lambda: pods_of(yard).keys() == strangers.keys(), WAIT_S, what="only the strangers are left")
        assert all("deletionTimestamp" not in pod["metadata"] for pod in pods_of(yard).values())
    finally:
        for name in strangers:
            api.call("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})


def test_W12_another_pod_under_the_name_is_not_taken_for_the_attempt(
    yard: Yard, api: Client, faults: client.Faults
) -> None:
    """Deleted and made again while no event came: the attempt has lost its pod, the new one is not its own."""
    sent, pod = napping(yard)
    body = copy_of(pods_of(yard)[pod], annotations={})
    body["spec"]["containers"][0] |= {"command": ["sh", "-c", "sleep 60"], "args": []}
    dropped = faults.disturb("drop", resource="pods")
    api.call("DELETE", f"{PODS}/{pod}", {"gracePeriodSeconds": 0})
    parts.eventually(lambda: pod not in pods_of(yard), WAIT_S)
    api.call("POST", PODS, body)
    try:
        faults.remove(dropped)
        faults.expire_versions()
        assert {"reason": "PodDeleted", "cause": "infrastructure"}.items() <= ended_by(sent).items()
        assert runs(yard, sent.id) == 1
    finally:
        with contextlib.suppress(ClientError):
            api.call("DELETE", f"{PODS}/{pod}", {"gracePeriodSeconds": 0})


# --- P: pods


def test_P26_a_namespace_that_is_deleted_ends_its_attempts_and_no_others(
    yard: Yard, api: Client, faults: client.Faults
) -> None:
    """Its pods go with it: infrastructure. Nothing of ours holds the namespace back."""
    override = {"metadata": {"namespace": OTHER}, "spec": {"terminationGracePeriodSeconds": 1}}
    beside = yard.send("nap", 1.5)
    sent = yard.send("nap", 60, headers={"podyard": {"pod_override": override}})
    parts.eventually(lambda: runs(yard, sent.id) == 1 and runs(yard, beside.id) == 1, WAIT_S)

    api.call("DELETE", f"/api/v1/namespaces/{OTHER}")

    assert ended_by(sent)["cause"] == "infrastructure"
    parts.eventually(lambda: not _is_there(api, f"/api/v1/namespaces/{OTHER}"), WAIT_S, what="the namespace is gone")
    assert beside.get(timeout=WAIT_S) == "slept"


def _is_there(api: Client, path: str) -> bool:
    try:
        api.call("GET", path)
    except ClientError as error:
        return error.code != 404
    return True


def test_P28_a_body_that_ignores_sigterm_is_waited_for_until_it_is_killed(
    yard: Yard, api: Client, faults: client.Faults
) -> None:
    """Revoked: the kubelet kills it after its grace period, its slot is free, nothing is left."""
    sent = yard.client.send_task(
        "dispatcher.pod",
        kwargs={
            "image": "busybox:1.36",
            "cmds": ["sh", "-c"],
            "arguments": ["trap '' TERM; while :; do sleep 0.1; done"],
            "termination_grace_period": 1,
        },
        queue="kubernetes",
    )
    (name,) = parts.eventually(lambda: [name for name, pod in pods_of(yard).items() if _runs(pod)], WAIT_S)

    yard.client.control.revoke(sent.id, terminate=True)

    parts.eventually(lambda: "deletionTimestamp" in pods_of(yard)[name]["metadata"], WAIT_S, what="it is told to go")
    assert _runs(pods_of(yard)[name]), "and does not"
    parts.eventually(lambda: name not in pods_of(yard), WAIT_S)
    assert sent.state == "REVOKED"
    parts.eventually(lambda: in_flight(yard)["pods-in-flight"] == 0, WAIT_S)


def _runs(pod: dict[str, Any]) -> bool:
    return bool(pod["status"]["phase"] == "Running")


# --- D: the dispatcher, killed at each step


def test_D2_killed_before_the_create_its_message_is_delivered_again(yard: Yard, faults: client.Faults) -> None:
    """No pod yet, no acknowledgement: the next one creates it, once."""
    number = faults.fail("create", 503, resource="pods")
    sent = yard.send("add", 2, 3)
    parts.eventually(lambda: faults.hits(number) >= 1, WAIT_S)
    killed(yard)
    faults.clear()

    reborn(yard)

    assert sent.get(timeout=WAIT_S) == 5
    assert runs(yard, sent.id) == 1
    assert faults.stats()["requests"]["pods"]["create"] >= 2


def test_D7_D8_killed_before_log_and_pod_are_dealt_with_the_next_one_does_it(yard: Yard, faults: client.Faults) -> None:
    """The outcome is stored, the log could not be read, the pod not deleted: both are made good, nothing runs again."""
    faults.fail("log", 500)
    number = faults.fail("delete", 500, resource="pods")
    sent = yard.send("chatter", 300)
    assert sent.get(timeout=WAIT_S) == 300
    parts.eventually(lambda: faults.hits(number - 1) >= 1, WAIT_S)
    assert len(pods_of(yard)) == 1
    killed(yard)
    faults.clear()

    reborn(yard)

    parts.eventually(lambda: not pods_of(yard), WAIT_S, what="the pod is cleaned up")
    lines = (yard.logs / f"{sent.id}.log").read_text().splitlines()
    assert [line.split()[0] for line in lines if line.endswith("y" * 90)] == [str(number) for number in range(300)]
    assert faults.stats()["requests"]["pods"]["create"] == 1


def test_D13_D15_without_its_database_and_with_no_room_for_logs_it_works_on(
    tmp_path: Path, valkey: parts.ValkeyDatabase, local_cluster: parts.LocalCluster, deployment: str
) -> None:
    """What the broker hands out is launched and answered; only pod rows and logs are missing."""
    (tmp_path / "logs").write_text("no folder, so that no log can be written")
    yard = Yard(
        folder=tmp_path,
        broker=valkey.url,
        kubeconfig=local_cluster.kubeconfig,
        deployment=deployment,
        database="postgresql+psycopg://podyard@127.0.0.1:1/away",
    )
    try:
        yard.dispatcher()
        for _ in range(3):
            ends_well(yard)
        log = (tmp_path / "dispatcher.log").read_text()
        assert log.count("pod status is not stored for now") == 1, "said once, not at every try"
    finally:
        yard.stop()


# --- T: monitoring


def test_T5_monitoring_that_asks_a_lot_costs_the_api_server_nothing(yard: Yard, faults: client.Faults) -> None:
    """A hundred questions while a body runs are answered from memory: no request is sent for them."""
    sent, _ = napping(yard, 60)
    node = f"dispatcher@{yard.deployment}"
    inspect = yard.client.control.inspect([node], timeout=2)
    parts.eventually(lambda: in_flight(yard)["pods-in-flight"] == 1, WAIT_S)
    before, began = sum(in_flight(yard)["api-requests"].values()), time.monotonic()

    for _ in range(50):
        assert [one["id"] for one in inspect.active()[node]] == [sent.id]
        assert inspect.stats()[node]["pool"]["pods-in-flight"] == 1

    by_time = 2 * (time.monotonic() - began) + 3  # limits, vitals, a watch that is opened anew
    assert sum(in_flight(yard)["api-requests"].values()) - before <= by_time < 100
    sent.revoke(terminate=True)
    parts.eventually(sent.ready, WAIT_S)
