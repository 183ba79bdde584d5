"""Dry runs: the answer is as if; nothing is stored, nothing happens."""

from typing import Any

from tests.contract.conftest import Api

Json = dict[str, Any]


def test_a_create_is_checked_and_not_stored(api: Api) -> None:
    """Good, taken and wrong names are told apart."""
    manifest = api.manifest("sleep 5")
    name = manifest["metadata"]["name"]
    answer = api.call("POST", api.pods, manifest, dryRun="All")
    assert (answer.code, answer.body["metadata"]["name"]) == (201, name)
    assert api.call("GET", f"{api.pods}/{name}").code == 404
    api.call("POST", api.pods, manifest).ok()
    assert api.call("POST", api.pods, manifest, dryRun="All").code == 409
    assert api.call("POST", api.pods, manifest | {"metadata": {"name": "Wrong_"}}, dryRun="All").code == 422


def test_a_patch_shows_the_result(api: Api) -> None:
    """The object keeps its labels and version."""
    pod = api.ended(api.create("true"))
    path = f"{api.pods}/{pod['metadata']['name']}"
    headers = {"Content-Type": "application/merge-patch+json"}
    change = {"metadata": {"labels": {"dry": "yes"}}}
    shown = api.call("PATCH", path, change, headers=headers, dryRun="All").ok()
    assert shown["metadata"]["labels"]["dry"] == "yes"
    stored = api.call("GET", path).ok()
    assert "dry" not in stored["metadata"]["labels"]
    assert stored["metadata"]["resourceVersion"] == pod["metadata"]["resourceVersion"]


def test_a_replacement_shows_the_result(api: Api) -> None:
    """As a patch does."""
    path = api.path("configmaps", api.config("configmaps", data={"a": "1"}))
    thing = api.call("GET", path).ok() | {"data": {"a": "2"}}
    assert api.call("PUT", path, thing, dryRun="All").ok()["data"] == {"a": "2"}
    assert api.call("GET", path).ok()["data"] == {"a": "1"}


def test_a_delete_leaves_the_object(api: Api) -> None:
    """By the query and by the body; of one and of many."""
    pod = api.running(api.create("sleep 30"))
    path = f"{api.pods}/{pod['metadata']['name']}"
    assert api.call("DELETE", path, dryRun="All").code == 200
    assert api.call("DELETE", path, {"dryRun": ["All"]}).code == 200
    assert api.call("DELETE", api.pods, {"dryRun": ["All"]}, labelSelector=api.selector).code == 200
    eviction = {"metadata": {"name": pod["metadata"]["name"]}, "deleteOptions": {"dryRun": ["All"]}}
    eviction |= {"apiVersion": "policy/v1", "kind": "Eviction"}
    assert api.call("POST", f"{path}/eviction", eviction).code == 201
    assert "deletionTimestamp" not in api.read(pod)["metadata"]


def test_another_word_than_all_is_refused(api: Api) -> None:
    """422: it must not be taken for a real one."""
    manifest = api.manifest("true")
    assert api.call("POST", api.pods, manifest, dryRun="Some").code == 422
    assert api.call("GET", f"{api.pods}/{manifest['metadata']['name']}").code == 404
