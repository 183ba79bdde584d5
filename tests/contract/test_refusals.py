"""What an API server refuses in a pod, and how it says where: the same words here and there."""

from typing import Any

import pytest

from tests.contract.conftest import LABEL, Api

Json = dict[str, Any]
BASE = "spec.containers[0]"


def _causes(api: Api, manifest: Json) -> dict[str, str]:
    """Field -> machine word, of a refusal."""
    answer = api.call("POST", api.pods, manifest, dryRun="All")
    assert answer.code == 422, answer.body
    return {cause["field"]: cause["reason"] for cause in answer.body["details"]["causes"]}


INVALID, REQUIRED = "FieldValueInvalid", "FieldValueRequired"
DUPLICATE, FORBIDDEN = "FieldValueDuplicate", "FieldValueForbidden"
UNSUPPORTED = "FieldValueNotSupported"


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"env": [{"name": "A=B", "value": "x"}]}, "env[0].name", INVALID),
        ({"env": [{"name": "A", "valueFrom": {}}]}, "env[0].valueFrom", INVALID),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            "env[0].valueFrom",
            INVALID,
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.nothing"}}}]},
            "env[0].valueFrom.fieldRef.fieldPath",
            INVALID,
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}]},
            "env[0].valueFrom.secretKeyRef.key",
            REQUIRED,
        ),
        ({"envFrom": [{"prefix": "A_"}]}, "envFrom", INVALID),
        ({"envFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "a"}}]}, "envFrom", INVALID),
        ({"envFrom": [{"configMapRef": {"name": "A_"}}]}, "envFrom[0].configMapRef.name", INVALID),
        ({"ports": [{"containerPort": 70_000}]}, "ports[0].containerPort", INVALID),
        ({"ports": [{"name": "web"}]}, "ports[0].containerPort", REQUIRED),
        ({"ports": [{"containerPort": 1, "protocol": "ICMP"}]}, "ports[0].protocol", UNSUPPORTED),
        (
            {"ports": [{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]},
            "ports[1].name",
            DUPLICATE,
        ),
        ({"ports": [{"name": "much-too-long-a-name", "containerPort": 1}]}, "ports[0].name", INVALID),
        ({"resources": {"limits": {"cpu": "-1"}}}, "resources.limits[cpu]", INVALID),
        ({"resources": {"limits": {"disk": "1"}}}, "resources.limits[disk]", INVALID),
        (
            {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}},
            "resources.requests",
            INVALID,
        ),
        (
            {"resources": {"limits": {"memory": "1G"}, "requests": {"memory": "1Gi"}}},
            "resources.requests",
            INVALID,
        ),
        ({"resources": {"requests": {"nvidia.com/gpu": "1"}}}, "resources.limits", REQUIRED),
        ({"resources": {"limits": {"nvidia.com/gpu": "500m"}}}, "resources.limits[nvidia.com/gpu]", INVALID),
        ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy", UNSUPPORTED),
        ({"terminationMessagePolicy": "Never"}, "terminationMessagePolicy", UNSUPPORTED),
        ({"livenessProbe": {"periodSeconds": 1}}, "livenessProbe", REQUIRED),
        (
            {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
            "securityContext",
            INVALID,
        ),
    ],
)
def test_a_container_that_cannot_be_is_refused(api: Api, fields: Json, field: str, reason: str) -> None:
    """The field's path, and the machine word."""
    assert (f"{BASE}.{field}", reason) in _causes(api, api.manifest("true", base=fields)).items()


def test_a_path_is_mounted_once(api: Api) -> None:
    """And a mount stays inside of its volume."""
    mounts = [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v", "subPath": "../x"}]
    manifest = api.manifest("true", base={"volumeMounts": mounts}, volumes=[{"name": "v", "emptyDir": {}}])
    found = _causes(api, manifest)
    assert found == {
        f"{BASE}.volumeMounts[1].mountPath": INVALID,
        f"{BASE}.volumeMounts.subPath": INVALID,
    }


@pytest.mark.parametrize(
    ("volumes", "field", "reason"),
    [
        ([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}], "[1].name", DUPLICATE),
        ([{"name": "V_", "emptyDir": {}}], "[0].name", INVALID),
        ([{"name": "v", "emptyDir": {}, "configMap": {"name": "a"}}], "[0].configMap", FORBIDDEN),
        ([{"name": "v", "secret": {}}], "[0].secret.secretName", REQUIRED),
        ([{"name": "v", "configMap": {}}], "[0].configMap.name", REQUIRED),
        ([{"name": "v", "hostPath": {}}], "[0].hostPath.path", REQUIRED),
        ([{"name": "v", "persistentVolumeClaim": {}}], "[0].persistentVolumeClaim.claimName", REQUIRED),
        (
            [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "/x"}]}}],
            "[0].secret.items[0].path",
            INVALID,
        ),
        ([{"name": "v", "configMap": {"name": "c", "items": [{"key": "k"}]}}], "[0].configMap.items[0].path", REQUIRED),
    ],
)
def test_a_volume_that_cannot_be_is_refused(api: Api, volumes: list[Json], field: str, reason: str) -> None:
    """The field's path, and the machine word."""
    assert (f"spec.volumes{field}", reason) in _causes(api, api.manifest("true", volumes=volumes)).items()


def test_a_volume_of_no_kind_is_an_empty_one(api: Api) -> None:
    """Not refused: a misspelt source, taken out with a warning, leaves an emptyDir."""
    pod = api.call("POST", api.pods, api.manifest("true", volumes=[{"name": "v"}]), dryRun="All").ok()
    assert {"name": "v", "emptyDir": {}} in pod["spec"]["volumes"]


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"tolerations": [{"operator": "Equal"}]}, "spec.tolerations[0].operator", INVALID),
        ({"tolerations": [{"key": "a", "effect": "NoStart"}]}, "spec.tolerations[0].effect", UNSUPPORTED),
        (
            {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]},
            "spec.tolerations[0].effect",
            INVALID,
        ),
        ({"hostname": "Not_A_Label"}, "spec.hostname", INVALID),
        ({"nodeSelector": {"a b": "c"}}, "spec.nodeSelector", INVALID),
        ({"dnsPolicy": "Guess"}, "spec.dnsPolicy", UNSUPPORTED),
    ],
)
def test_a_pod_that_cannot_be_is_refused(api: Api, spec: Json, field: str, reason: str) -> None:
    """The field's path, and the machine word."""
    assert (field, reason) in _causes(api, api.manifest("true", **spec)).items()


def test_a_negative_grace_period_is_taken_and_is_a_second(api: Api) -> None:
    """201 as it is; a delete makes it as short as can be, and a patch may say so."""
    pod = api.create("trap '' TERM; echo ready; while :; do sleep 0.05; done", terminationGracePeriodSeconds=-1)
    path = f"{api.pods}/{pod['metadata']['name']}"
    assert pod["spec"]["terminationGracePeriodSeconds"] == -1
    assert api.patch(path, {"spec": {"terminationGracePeriodSeconds": 5}}).code == 422
    assert api.patch(path, {"spec": {"terminationGracePeriodSeconds": 1}}).code == 200
    api.running(pod)
    other = api.running(api.create("trap '' TERM; while :; do sleep 0.05; done", terminationGracePeriodSeconds=-1))
    deleted = api.call("DELETE", f"{api.pods}/{other['metadata']['name']}").ok()
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 1


def test_an_init_container_that_ends_needs_no_probe(api: Api) -> None:
    """Only sidecars may have one."""
    init = {"name": "init", "image": api.image, "livenessProbe": {"exec": {"command": ["true"]}}}
    found = _causes(api, api.manifest("true", initContainers=[init]))
    assert found["spec.initContainers[0].livenessProbe"] == FORBIDDEN


def test_the_same_variable_twice_is_no_mistake(api: Api) -> None:
    """The later one counts."""
    env = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    pod = api.create("echo $A", base={"env": env})
    api.ended(pod)
    assert api.log(pod).body == "2\n"


def test_several_mistakes_are_told_at_once(api: Api) -> None:
    """All fields in one answer."""
    manifest = api.manifest("true", base={"image": "", "env": [{"name": ""}]}, activeDeadlineSeconds=0)
    assert set(_causes(api, manifest)) >= {f"{BASE}.image", f"{BASE}.env[0].name", "spec.activeDeadlineSeconds"}


@pytest.mark.parametrize("amount", ["1 Gi", "much", "1GiB", ""])
def test_a_quantity_that_is_none_is_400(api: Api, amount: str) -> None:
    """It cannot even be decoded."""
    manifest = api.manifest("true", base={"resources": {"limits": {"memory": amount}}})
    answer = api.call("POST", api.pods, manifest)
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    assert "quantities must match the regular expression" in answer.body["message"]


def test_what_is_limited_is_requested(api: Api) -> None:
    """Defaults of resources; a number becomes a text."""
    manifest = api.manifest("true", base={"resources": {"limits": {"cpu": 1, "memory": "64Mi"}}})
    pod = api.call("POST", api.pods, manifest, dryRun="All").ok()
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "64Mi"}
    assert pod["status"]["qosClass"] == "Guaranteed"


# --- unknown fields ---


def _misspelt(api: Api) -> Json:
    manifest = api.manifest("true", base={"comand": ["x"]}, restartpolicy="Never")
    manifest["metadata"]["lables"] = {"a": "b"}
    return manifest


def test_a_strict_caller_is_told_of_unknown_fields(api: Api) -> None:
    """400 with each path; nothing is stored."""
    answer = api.call("POST", api.pods, _misspelt(api), fieldValidation="Strict")
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    for path in ("spec.containers[0].comand", "spec.restartpolicy", "metadata.lables"):
        assert f'unknown field "{path}"' in answer.body["message"]


def test_other_callers_are_warned_and_the_fields_are_dropped(api: Api) -> None:
    """A header for each; `Ignore` says nothing."""
    answer = api.call("POST", api.pods, _misspelt(api), dryRun="All")
    assert answer.code == 201
    assert 'unknown field \\"spec.containers[0].comand\\"' in answer.headers["Warning"]
    assert "comand" not in answer.body["spec"]["containers"][0]
    quiet = api.call("POST", api.pods, _misspelt(api), dryRun="All", fieldValidation="Ignore")
    assert (quiet.code, "Warning" in quiet.headers) == (201, False)


def test_a_strict_patch_is_told_too(api: Api) -> None:
    """By the result of the patch."""
    pod = api.create("sleep 5")
    path = f"{api.pods}/{pod['metadata']['name']}"
    headers = {"Content-Type": "application/merge-patch+json"}
    change = {"metadata": {"lables": {"a": "b"}}}
    answer = api.call("PATCH", path, change, headers=headers, fieldValidation="Strict")
    assert answer.code in {400, 422}
    assert 'unknown field "metadata.lables"' in answer.body["message"]


# --- state of the namespace, changes ---


def test_an_account_that_is_not_there_is_403(api: Api) -> None:
    """Said at once, by the admission of service accounts."""
    manifest = api.manifest("true", serviceAccountName="nobody-of-this-name")
    answer = api.call("POST", api.pods, manifest)
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert 'serviceaccount "nobody-of-this-name" not found' in answer.body["message"]


def test_a_quota_limits_the_pods_that_have_not_ended(local: Api) -> None:
    """403 exceeded quota; a pod that ended makes room. In a namespace of its own."""
    namespace = local.label
    local.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).ok()
    quota = {"metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}}
    local.call("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", quota).ok()
    mine = Api(kubeconfig=local.kubeconfig, image="x:1", namespace=namespace, is_local=True, label=namespace)
    first = mine.create("sleep 0.3")
    answer = mine.call("POST", mine.pods, mine.manifest("true"))
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert "exceeded quota: one, requested: pods=1, used: pods=1, limited: pods=1" in answer.body["message"]
    mine.ended(first)
    assert mine.call("POST", mine.pods, mine.manifest("true")).code == 201
    local.call("DELETE", f"/api/v1/namespaces/{namespace}").ok()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"spec": {"serviceAccountName": "other"}}, "spec"),
        ({"spec": {"activeDeadlineSeconds": 600}}, "spec.activeDeadlineSeconds"),
    ],
)
def test_a_pod_stays_what_it_is(api: Api, change: Json, field: str) -> None:
    """Immutable fields, and a deadline that may only come sooner."""
    pod = api.create("sleep 5", activeDeadlineSeconds=300)
    answer = api.patch(f"{api.pods}/{pod['metadata']['name']}", change)
    assert answer.code == 422
    assert field in {cause["field"] for cause in answer.body["details"]["causes"]}


def test_an_immutable_secret_stays_as_it_is(api: Api) -> None:
    """Data and the flag itself; and the type of any Secret."""
    path = api.path("secrets", api.config("secrets", stringData={"a": "b"}, immutable=True))
    assert api.patch(path, {"stringData": {"a": "c"}}).code == 422
    assert api.patch(path, {"immutable": False}).code == 422
    assert api.patch(path, {"metadata": {"labels": {"changed": "yes"}}}).code == 200
    other = api.path("secrets", api.config("secrets", stringData={"a": "b"}))
    assert api.patch(other, {"type": "example.com/other"}).code == 422


@pytest.mark.parametrize("key", ["a b", "a/b", "..", ""])
def test_a_key_that_cannot_be_a_file_is_refused(api: Api, key: str) -> None:
    """Keys of ConfigMaps become files."""
    body = {"metadata": {"name": api.name(), "labels": {LABEL: api.label}}, "data": {key: "x"}}
    assert api.call("POST", api.path("configmaps"), body).code == 422
