"""Owners: what was made for an object goes with it."""

from typing import Any

import pytest

from tests import parts
from tests.contract.conftest import LABEL, Api

Json = dict[str, Any]


def _reference(owner: Json, kind: str = "Pod") -> Json:
    return {"apiVersion": "v1", "kind": kind, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}


def _secret(api: Api, *owners: Json) -> str:
    name = api.name()
    metadata = {"name": name, "labels": {LABEL: api.label}, "ownerReferences": list(owners)}
    api.call("POST", api.path("secrets"), {"metadata": metadata, "stringData": {"a": "b"}}).ok()
    return api.path("secrets", name)


def _is_gone(api: Api, path: str) -> bool:
    return api.call("GET", path).code == 404


def test_a_secret_goes_with_the_pod_that_owns_it(api: Api) -> None:
    """A moment after the pod, however that went."""
    pod = api.ended(api.create("true"))
    owned, free = _secret(api, _reference(pod)), _secret(api)
    assert api.call("GET", owned).ok()["metadata"]["ownerReferences"][0]["name"] == pod["metadata"]["name"]
    api.call("DELETE", f"{api.pods}/{pod['metadata']['name']}").ok()
    parts.eventually(lambda: _is_gone(api, owned), 30)
    assert api.call("GET", free).code == 200


def test_a_secret_of_two_owners_goes_with_the_last(api: Api) -> None:
    """The first one only takes its reference along."""
    first, second = api.ended(api.create("true")), api.ended(api.create("true"))
    owned = _secret(api, _reference(first), _reference(second))
    api.call("DELETE", f"{api.pods}/{first['metadata']['name']}").ok()
    parts.eventually(lambda: len(api.call("GET", owned).ok()["metadata"]["ownerReferences"]) == 1, 30)
    api.call("DELETE", f"{api.pods}/{second['metadata']['name']}").ok()
    parts.eventually(lambda: _is_gone(api, owned), 30)


def test_a_secret_of_nobody_goes_at_once(api: Api) -> None:
    """An owner that does not exist, or had the name before: the uid counts."""
    pod = api.create("sleep 5")
    stale = _reference(pod) | {"uid": "00000000-0000-0000-0000-000000000000"}
    path = _secret(api, stale)
    parts.eventually(lambda: _is_gone(api, path), 30)


def test_an_owner_can_leave_its_things_behind(api: Api) -> None:
    """propagationPolicy Orphan."""
    pod = api.ended(api.create("true"))
    owned = _secret(api, _reference(pod))
    api.call("DELETE", f"{api.pods}/{pod['metadata']['name']}", {"propagationPolicy": "Orphan"}).ok()
    parts.eventually(lambda: "ownerReferences" not in _metadata(api, owned) or not _owners(api, owned), 30)
    assert api.call("GET", owned).code == 200


def _metadata(api: Api, path: str) -> Json:
    metadata: Json = api.call("GET", path).ok()["metadata"]
    return metadata


def _owners(api: Api, path: str) -> list[Json]:
    owners: list[Json] = _metadata(api, path).get("ownerReferences", [])
    return owners


def test_owning_goes_down_the_line(api: Api) -> None:
    """A pod owns a Secret that owns a ConfigMap."""
    pod = api.ended(api.create("true"))
    secret = _secret(api, _reference(pod))
    owner = _reference(api.call("GET", secret).ok(), "Secret")
    name = api.name()
    metadata = {"name": name, "labels": {LABEL: api.label}, "ownerReferences": [owner]}
    api.call("POST", api.path("configmaps"), {"metadata": metadata}).ok()
    api.call("DELETE", f"{api.pods}/{pod['metadata']['name']}").ok()
    parts.eventually(lambda: _is_gone(api, api.path("configmaps", name)), 30)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"uid": ""}, "metadata.ownerReferences.uid"),
        ({"name": ""}, "metadata.ownerReferences.name"),
        ({"kind": ""}, "metadata.ownerReferences.kind"),
        ({"apiVersion": ""}, "metadata.ownerReferences.apiVersion"),
        ({"kind": "Event"}, "metadata.ownerReferences"),
    ],
)
def test_an_owner_without_identity_is_refused(api: Api, change: Json, field: str) -> None:
    """422 with the field, which has no index: so does a real server."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"} | change
    answer = api.call("POST", api.path("secrets"), {"metadata": {"name": api.name(), "ownerReferences": [owner]}})
    assert answer.code == 422
    assert field in {cause["field"] for cause in answer.body["details"]["causes"]}
