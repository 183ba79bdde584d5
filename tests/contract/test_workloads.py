"""Manifests of what a deployment of Podyard consists of, by a server-side dry run: nothing is stored, nothing runs."""

import copy
import subprocess
from typing import Any

import pytest
import yaml

from tests.contract.conftest import LABEL, Api

Json = dict[str, Any]
LABELS = {"app": "podyard"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "base", "image": "busybox:1.36"}]}}
ONCE = {"spec": TEMPLATE["spec"] | {"restartPolicy": "Never"}}
RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "dispatcher"}
STORAGE = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
KINDS: dict[str, tuple[str, str, Json]] = {
    "Deployment": ("apps/v1", "deployments", {"spec": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}}),
    "StatefulSet": (
        "apps/v1",
        "statefulsets",
        {
            "spec": {
                "serviceName": "db",
                "selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["podyard"]}]},
                "template": TEMPLATE,
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": STORAGE}],
            }
        },
    ),
    "Job": ("batch/v1", "jobs", {"spec": {"backoffLimit": 3, "template": ONCE}}),
    "CronJob": (
        "batch/v1",
        "cronjobs",
        {"spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": ONCE}}}},
    ),
    "Service": ("v1", "services", {"spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": "http"}]}}),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims", {"spec": STORAGE}),
    "ServiceAccount": ("v1", "serviceaccounts", {"automountServiceAccountToken": False}),
    "ConfigMap": ("v1", "configmaps", {"data": {"podyard.toml": ""}}),
    "Secret": ("v1", "secrets", {"stringData": {"password": "x"}}),
    "Role": ("rbac.authorization.k8s.io/v1", "roles", {"rules": [RULE]}),
    "RoleBinding": (
        "rbac.authorization.k8s.io/v1",
        "rolebindings",
        {"roleRef": REF, "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}]},
    ),
    "PodDisruptionBudget": (
        "policy/v1",
        "poddisruptionbudgets",
        {"spec": {"minAvailable": 1, "selector": {"matchLabels": LABELS}}},
    ),
    "NetworkPolicy": (
        "networking.k8s.io/v1",
        "networkpolicies",
        {"spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]}},
    ),
}
CHECKED = sorted(set(KINDS) - {"ConfigMap", "Secret", "ServiceAccount"})


def _manifest(api: Api, kind: str) -> Json:
    version, _, content = KINDS[kind]
    metadata = {"name": api.name(), "labels": {LABEL: api.label}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **copy.deepcopy(content)}


def _path(api: Api, kind: str, name: str = "") -> str:
    version, plural, _ = KINDS[kind]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{api.namespace}/{plural}{'/' + name if name else ''}"


def _changed(api: Api, kind: str, change: Json) -> Json:
    """A manifest with some fields in place of its own, by their paths; None takes one out."""
    manifest = _manifest(api, kind)
    for path, value in change.items():
        *above, last = path.split(".")
        place: Any = manifest
        for step in above:
            place = place[int(step) if step.isdigit() else step]
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    return manifest


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_manifest_is_taken_by_a_dry_run_and_not_stored(api: Api, kind: str) -> None:
    """201 with the object as it would be."""
    manifest = _manifest(api, kind)
    name = manifest["metadata"]["name"]
    answer = api.call("POST", _path(api, kind), manifest, dryRun="All", fieldValidation="Strict")
    assert answer.code == 201, answer.body
    assert (answer.body["kind"], answer.body["apiVersion"], answer.body["metadata"]["name"]) == (
        kind,
        manifest["apiVersion"],
        name,
    )
    missing = api.call("GET", _path(api, kind, name))
    assert (missing.code, missing.body["reason"]) == (404, "NotFound")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_is_named(api: Api, kind: str) -> None:
    """400 for a strict caller, a warning for others."""
    manifest = _manifest(api, kind) | {"specc": {}}
    strict = api.call("POST", _path(api, kind), manifest, dryRun="All", fieldValidation="Strict")
    assert (strict.code, 'unknown field "specc"' in strict.body["message"]) == (400, True)
    lenient = api.call("POST", _path(api, kind), manifest, dryRun="All")
    assert (lenient.code, "specc" in lenient.headers["Warning"], "specc" in lenient.body) == (201, True, False)


@pytest.mark.parametrize(
    ("kind", "change", "field", "reason"),
    [
        ("Deployment", {"spec.selector": None}, "spec.selector", "FieldValueRequired"),
        (
            "Deployment",
            {"spec.selector": {"matchLabels": {"app": "other"}}},
            "spec.template.metadata.labels",
            "FieldValueInvalid",
        ),
        ("Deployment", {"spec.replicas": -1}, "spec.replicas", "FieldValueInvalid"),
        (
            "Deployment",
            {"spec.template": TEMPLATE | {"spec": ONCE["spec"]}},
            "spec.template.spec.restartPolicy",
            "FieldValueNotSupported",
        ),
        (
            "Deployment",
            {"spec.template.spec.containers.0.image": None},
            "spec.template.spec.containers[0].image",
            "FieldValueRequired",
        ),
        ("Job", {"spec.template": TEMPLATE}, "spec.template.spec.restartPolicy", "FieldValueRequired"),
        (
            "CronJob",
            {"spec.jobTemplate.spec.template": TEMPLATE},
            "spec.jobTemplate.spec.template.spec.restartPolicy",
            "FieldValueRequired",
        ),
        ("Service", {"spec.ports": [{"port": 0}]}, "spec.ports[0].port", "FieldValueInvalid"),
        ("Service", {"spec.ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name", "FieldValueRequired"),
        ("Service", {"spec.ports": []}, "spec.ports", "FieldValueRequired"),
        ("PersistentVolumeClaim", {"spec.accessModes": []}, "spec.accessModes", "FieldValueRequired"),
        ("Role", {"rules": [RULE | {"verbs": []}]}, "rules[0].verbs", "FieldValueRequired"),
        ("RoleBinding", {"roleRef": REF | {"kind": "Rolle"}}, "roleRef.kind", "FieldValueNotSupported"),
        (
            "RoleBinding",
            {"subjects": [{"kind": "ServiceAccount", "name": "a"}]},
            "subjects[0].namespace",
            "FieldValueRequired",
        ),
        ("PodDisruptionBudget", {"spec.maxUnavailable": 1}, "spec", "FieldValueInvalid"),
        ("NetworkPolicy", {"spec.policyTypes": ["Outgress"]}, "spec.policyTypes[0]", "FieldValueNotSupported"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_with_the_field(
    api: Api, kind: str, change: Json, field: str, reason: str
) -> None:
    """422, as for pods."""
    answer = api.call("POST", _path(api, kind), _changed(api, kind, change), dryRun="All")
    assert answer.code == 422, answer.body
    assert (field, reason) in {(cause["field"], cause["reason"]) for cause in answer.body["details"]["causes"]}


def test_the_wrong_group_is_400(api: Api) -> None:
    """Address and body must agree."""
    manifest = _manifest(api, "Deployment") | {"apiVersion": "extensions/v1beta1"}
    assert api.call("POST", _path(api, "Deployment"), manifest, dryRun="All").code == 400


@pytest.mark.parametrize("kind", CHECKED)
def test_what_the_local_cluster_does_not_run_it_does_not_store(local: Api, kind: str) -> None:
    """It says so, and how to check."""
    answer = local.call("POST", _path(local, kind), _manifest(local, kind))
    assert (answer.code, "--dry-run=server" in answer.body["message"]) == (405, True)
    assert local.call("GET", _path(local, kind)).ok()["items"] == []


@pytest.mark.kubectl
def test_kubectl_applies_all_kinds_with_a_server_side_dry_run(api: Api) -> None:
    """As for the manifests that are shipped."""
    documents = yaml.safe_dump_all(_manifest(api, kind) for kind in KINDS)
    command = ["kubectl", "--kubeconfig", str(api.kubeconfig), "-n", api.namespace]
    command += ["apply", "--dry-run=server", "-f", "-"]
    done = subprocess.run(command, input=documents, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("created (server dry run)") == len(KINDS)
