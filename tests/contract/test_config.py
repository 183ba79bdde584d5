"""ConfigMaps, Secrets and namespaces: small objects with the same verbs."""

import base64

import pytest

from tests.contract.conftest import LABEL, Api


def test_a_config_map_lives_through_all_verbs(api: Api) -> None:
    """Create, read, replace, patch, list, delete."""
    name = api.config("configmaps", data={"a": "1", "b": "2"})
    path = api.path("configmaps", name)
    thing = api.call("GET", path).ok()
    assert thing["data"] == {"a": "1", "b": "2"}
    thing["data"] = {"a": "3"}
    replaced = api.call("PUT", path, thing).ok()
    assert replaced["data"] == {"a": "3"}
    assert api.call("PUT", path, thing).code == 409  # it has another version by now
    assert api.patch(path, {"data": {"c": "4", "a": None}}).ok()["data"] == {"c": "4"}
    listed = api.call("GET", api.path("configmaps"), labelSelector=api.selector).ok()
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == ("ConfigMapList", [name])
    gone = api.call("DELETE", path).ok()
    assert (gone["kind"], gone["status"], gone["details"]["name"]) == ("Status", "Success", name)
    assert api.call("GET", path).code == 404


def test_a_secret_s_plain_text_ends_up_encoded(api: Api) -> None:
    """`stringData` is for writing only."""
    name = api.config("secrets", stringData={"a": "plain"}, data={"b": base64.b64encode(b"x").decode()})
    thing = api.call("GET", api.path("secrets", name)).ok()
    assert thing["type"] == "Opaque"
    assert {key: base64.b64decode(value) for key, value in thing["data"].items()} == {"a": b"plain", "b": b"x"}
    assert "stringData" not in thing


def test_a_secret_that_is_not_base64_is_refused(api: Api) -> None:
    """Said at once, not when a pod needs it."""
    body = {"metadata": {"name": api.name(), "labels": {LABEL: api.label}}, "data": {"a": "no base64!"}}
    assert api.call("POST", api.path("secrets"), body).code == 400


@pytest.mark.parametrize("name", ["default", "kube-system"])
def test_the_first_namespaces_stay(api: Api, name: str) -> None:
    """They cannot be deleted."""
    assert api.call("GET", f"/api/v1/namespaces/{name}").ok()["status"]["phase"] == "Active"
    answer = api.call("DELETE", f"/api/v1/namespaces/{name}")
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")


def test_a_namespace_has_a_short_name(api: Api) -> None:
    """A DNS label, not a subdomain."""
    answer = api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "a.b"}})
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
