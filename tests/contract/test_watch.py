"""Watches: every change once, in order, from a version on; and what is said when that version is forgotten."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import parts
from tests.contract.conftest import LABEL, Api

Json = dict[str, Any]


def _until(events: Iterator[Json], kind: str) -> list[Json]:
    """All events up to the first of a type."""
    seen = []
    for event in events:
        seen.append(event)
        if event["type"] == kind:
            break
    return seen


def _version(api: Api) -> str:
    version: str = api.call("GET", api.pods, labelSelector="none=none").ok()["metadata"]["resourceVersion"]
    return version


def test_a_pod_s_life_is_seen_from_the_listed_version_on(api: Api) -> None:
    """List, then watch from there: nothing is missed, and versions only grow."""
    version = _version(api)
    pod = api.ended(api.create("true"))
    api.call("DELETE", f"{api.pods}/{pod['metadata']['name']}").ok()
    seen = _until(
        api.events(api.pods, labelSelector=api.selector, resourceVersion=version, timeoutSeconds=30), "DELETED"
    )
    kinds = [event["type"] for event in seen]
    assert kinds[0] == "ADDED"
    assert set(kinds[1:-1]) == {"MODIFIED"}
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert versions == sorted(set(versions))
    phases = [event["object"]["status"]["phase"] for event in seen]
    assert (phases[0], phases[-1]) == ("Pending", "Succeeded")
    assert all(event["object"]["kind"] == "Pod" for event in seen)


def test_without_a_version_a_watch_begins_with_what_is_there(api: Api) -> None:
    """Existing objects come as ADDED."""
    name = api.create("sleep 5")["metadata"]["name"]
    for version in (None, "0"):
        events = api.events(api.pods, labelSelector=api.selector, resourceVersion=version, timeoutSeconds=5)
        first = next(events)
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", name)
        events.close()  # type: ignore[attr-defined]


def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    """The streaming list: all that is there, then a bookmark that says so."""
    api.create("sleep 5")
    events = api.events(
        api.pods,
        labelSelector=api.selector,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
        timeoutSeconds=20,
    )
    seen = _until(events, "BOOKMARK")
    assert seen[0]["type"] == "ADDED"
    assert seen[-1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_an_object_that_leaves_the_selector_is_deleted_without_a_deletion_time(api: Api) -> None:
    """For who watches a label, a pod that loses it is gone; it comes back as ADDED."""
    pod = api.ended(api.create("true"))
    path = f"{api.pods}/{pod['metadata']['name']}"
    api.patch(path, {"metadata": {"labels": {"seen": "yes"}}}).ok()
    version = _version(api)
    api.patch(path, {"metadata": {"labels": {"seen": None}}}).ok()
    api.patch(path, {"metadata": {"labels": {"seen": "yes"}}}).ok()
    selector = f"{LABEL}={api.label},seen=yes"
    seen = _until(api.events(api.pods, labelSelector=selector, resourceVersion=version, timeoutSeconds=20), "ADDED")
    assert [event["type"] for event in seen] == ["DELETED", "ADDED"]
    gone = seen[0]["object"]["metadata"]
    assert "deletionTimestamp" not in gone
    assert int(gone["resourceVersion"]) > int(version)


def test_a_field_selector_narrows_a_watch(api: Api) -> None:
    """One pod of two, by name."""
    version = _version(api)
    api.create("true")
    second = api.create("true")["metadata"]["name"]
    events = api.events(api.pods, fieldSelector=f"metadata.name={second}", resourceVersion=version, timeoutSeconds=10)
    assert next(events)["object"]["metadata"]["name"] == second
    events.close()  # type: ignore[attr-defined]


def test_a_watch_ends_when_its_time_is_over(api: Api) -> None:
    """`timeoutSeconds` ends the stream cleanly."""
    began = time.monotonic()
    events = list(api.events(api.pods, labelSelector="none=none", resourceVersion=_version(api), timeoutSeconds=1))
    assert [event for event in events if event["type"] != "BOOKMARK"] == []
    assert 0.5 < time.monotonic() - began < 10


@pytest.mark.parametrize("version", ["new", "-1", "1.5"])
@pytest.mark.parametrize("watch", [None, "1"])
def test_a_version_that_is_no_number_is_500(api: Api, version: str, watch: str | None) -> None:
    """Versions come from the server; whoever makes one up is told of an error without a reason."""
    answer = api.call("GET", api.pods, watch=watch, resourceVersion=version)
    assert (answer.code, answer.body.get("reason", "")) == (500, "")
    assert "resourceVersion: Invalid value" in answer.body["message"]


def test_a_version_of_the_future_is_refused(local: Api) -> None:
    """A version that this cluster has not reached yet is 504 with a time to come back."""
    future = str(int(_version(local)) + 10**9)
    answer = local.call("GET", local.pods, resourceVersion=future)
    assert (answer.code, answer.body["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


def test_a_version_that_is_forgotten_is_410(api: Api) -> None:
    """Either as an ERROR event in the stream, as Kubernetes does it today, or as the HTTP status."""
    answer = api.open("GET", api.pods, watch="1", resourceVersion="1", timeoutSeconds=5)
    event = next(api.events(api.pods, resourceVersion="1", timeoutSeconds=5)) if answer.status == 200 else None
    answer.close()
    status = event["object"] if event else None
    if event is None or status is None:
        assert answer.status == 410
        return
    assert (event["type"], status["code"], status["reason"]) == ("ERROR", 410, "Expired")


@pytest.fixture
def forgetful(local: Api, tmp_path: Any) -> Iterator[Api]:
    """A local cluster that remembers ten changes, sends bookmarks at once, and says 410 as a status."""
    words = ("--history", "10", "--bookmark-seconds", "0.2", "--gone-as-status", "--instant")
    cluster = parts.LocalCluster.start(tmp_path / "home", *words)
    yield Api(kubeconfig=cluster.kubeconfig, image="x", namespace="default", is_local=True, label="forgetful")
    cluster.stop()


def test_bookmarks_carry_the_version_on(forgetful: Api) -> None:
    """Nothing matches, and yet the version advances: with it a later watch does not start too far back."""
    version = _version(forgetful)
    for _ in range(40):
        forgetful.create()
    events = forgetful.events(
        forgetful.pods, labelSelector="none=none", resourceVersion=_version(forgetful), allowWatchBookmarks="true"
    )
    bookmark = next(events)
    events.close()  # type: ignore[attr-defined]
    assert bookmark["type"] == "BOOKMARK"
    assert int(bookmark["object"]["metadata"]["resourceVersion"]) > int(version)
    assert forgetful.call("GET", forgetful.pods, watch="1", resourceVersion=version).code == 410


def test_instant_pods_end_without_a_process(forgetful: Api) -> None:
    """For benchmarks; the node's events say that nothing was run."""
    pod = forgetful.ended(forgetful.create("exit 1"))
    assert pod["status"]["phase"] == "Succeeded"
    events = forgetful.call("GET", "/api/v1/namespaces/default/events").ok()["items"]
    assert {"NotStarted"} <= {event["reason"] for event in events}
