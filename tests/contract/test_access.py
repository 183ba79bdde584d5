"""Who is let in, and what the API says about itself."""

import json
import stat
from pathlib import Path

import pytest
import yaml

from tests.contract.conftest import Api


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Basic eDp5"])
def test_without_the_token_every_request_is_refused(api: Api, token: str) -> None:
    """A request without the token, and without a certificate, is a 401 Status, whatever it asks for."""
    for path in (api.pods, "/version", "/api/v1/nodes"):
        answer = api.call("GET", path, headers={"Authorization": token})
        if not api.is_local and answer.code in {200, 403} and token == "":
            continue  # a real server may let anonymous users see some addresses
        assert (answer.code, answer.body["kind"], answer.body["reason"]) == (401, "Status", "Unauthorized")


def test_a_request_with_another_token_carries_no_certificate(api: Api, tmp_path: Path) -> None:
    """An administrator's kubeconfig has a client certificate: with it a server lets in whatever the token says."""
    said = yaml.safe_load(api.kubeconfig.read_text())
    said["users"][0]["user"] = {"client-certificate-data": "bm90aGluZw==", "client-key-data": "bm90aGluZw=="}
    (tmp_path / "config").write_text(json.dumps(said))
    administrator = Api(kubeconfig=tmp_path / "config", image="x", namespace="default", is_local=True)
    assert administrator._pool.connection_pool_kw["cert_file"]
    assert administrator.bare_pool.connection_pool_kw["cert_file"] is None


def test_the_kubeconfig_is_private(local: Api) -> None:
    """Whoever may create pods runs programs as this user: only its owner may read the kubeconfig."""
    assert stat.S_IMODE(local.kubeconfig.stat().st_mode) == 0o600
    assert stat.S_IMODE((local.kubeconfig.parent / "pods").stat().st_mode) == 0o700


def test_discovery_names_what_the_api_has(api: Api) -> None:
    """Version, groups and resources are where clients look for them."""
    assert api.call("GET", "/version").ok()["major"] == "1"
    assert "v1" in api.call("GET", "/api").ok()["versions"]
    assert api.call("GET", "/apis").ok()["kind"] == "APIGroupList"
    listed = {entry["name"]: entry for entry in api.call("GET", "/api/v1").ok()["resources"]}
    assert {"pods", "pods/log", "pods/status", "namespaces", "configmaps", "secrets", "events", "nodes"} <= set(listed)
    assert listed["pods"]["shortNames"] == ["po"]
    assert listed["pods"]["namespaced"]
    assert not listed["nodes"]["namespaced"]


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_health_is_told(api: Api, path: str) -> None:
    """The three health addresses answer ok."""
    assert api.call("GET", path).body == "ok"


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/namespaces/default/pods/x/nothing"])
def test_an_unknown_address_is_a_404_status(api: Api, path: str) -> None:
    """What does not exist is said in a Status."""
    answer = api.call("GET", path)
    assert answer.code == 404


def test_a_verb_that_an_address_does_not_know_is_a_405(api: Api) -> None:
    """POST to one pod is no verb."""
    answer = api.call("POST", f"{api.pods}/some-pod", {})
    assert (answer.code, answer.body["reason"]) == (405, "MethodNotAllowed")


def test_there_is_a_node_that_is_ready(api: Api) -> None:
    """Pods have somewhere to run."""
    nodes = api.call("GET", "/api/v1/nodes").ok()["items"]
    conditions = [entry for node in nodes for entry in node["status"]["conditions"] if entry["type"] == "Ready"]
    assert any(entry["status"] == "True" for entry in conditions)


@pytest.mark.parametrize(
    ("verb", "resource", "subresource", "is_allowed"),
    [
        ("create", "pods", "", True),
        ("get", "pods", "log", True),
        ("list", "events", "", True),
        ("watch", "pods", "", True),
        ("levitate", "pods", "log", False),
    ],
)
def test_a_client_may_ask_what_it_may_do(
    api: Api, verb: str, resource: str, subresource: str, is_allowed: bool
) -> None:
    """SelfSubjectAccessReview: what the dispatcher checks at its start."""
    asked = {"namespace": "default", "verb": verb, "resource": resource, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    answer = api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert answer.code == 201
    if api.is_local:  # an administrator of a real cluster may do even what there is not
        assert answer.body["status"]["allowed"] is is_allowed
