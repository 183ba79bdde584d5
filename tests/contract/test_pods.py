"""Pods as objects: created, refused, listed, changed. What they do is in `test_life`."""

from typing import Any

import pytest

from tests.contract.conftest import LABEL, Api

Json = dict[str, Any]


def test_a_created_pod_has_identity_and_defaults(api: Api) -> None:
    """The answer to a create is the stored object."""
    pod = api.create("true")
    metadata, spec = pod["metadata"], pod["spec"]
    assert pod["kind"] == "Pod"
    assert metadata["namespace"] == api.namespace
    assert len(metadata["uid"]) == 36
    assert metadata["resourceVersion"].isdigit()
    assert metadata["creationTimestamp"].endswith("Z")
    assert spec["terminationGracePeriodSeconds"] == 5
    assert spec["containers"][0]["terminationMessagePath"] == "/dev/termination-log"
    assert spec["containers"][0]["terminationMessagePolicy"] == "File"
    assert (pod["status"]["phase"], pod["status"]["qosClass"]) == ("Pending", "BestEffort")


def test_generate_name_makes_a_new_name_each_time(api: Api) -> None:
    """`generateName` is a stem."""
    manifest = api.manifest("true")
    manifest["metadata"] = {"generateName": f"{api.label}-", "labels": {LABEL: api.label}}
    names = {api.call("POST", api.pods, manifest).ok()["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith(f"{api.label}-") for name in names)


def test_a_name_that_is_taken_is_409(api: Api) -> None:
    """Creating is the claim: the second one is told AlreadyExists."""
    manifest = api.manifest("sleep 5")
    assert api.call("POST", api.pods, manifest).code == 201
    answer = api.call("POST", api.pods, manifest)
    name = manifest["metadata"]["name"]
    assert (answer.code, answer.body["reason"]) == (409, "AlreadyExists")
    assert answer.body["message"] == f'pods "{name}" already exists'
    assert answer.body["details"] == {"name": name, "kind": "pods"}


def test_a_pod_that_is_not_there_is_404(api: Api) -> None:
    """Reading, patching and deleting nothing."""
    path = f"{api.pods}/{api.name()}"
    for answer in (api.call("GET", path), api.call("DELETE", path), api.patch(path, {})):
        assert (answer.code, answer.body["reason"], answer.body["status"]) == (404, "NotFound", "Failure")


def test_a_namespace_that_is_not_there_is_404(api: Api) -> None:
    """Nothing can be created in it."""
    answer = api.call("POST", f"/api/v1/namespaces/{api.label}/pods", api.manifest("true"))
    assert (answer.code, answer.body["details"]["kind"]) == (404, "namespaces")


def _container(**fields: Any) -> Json:
    return {"name": "base", "image": "busybox:1.36"} | fields


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"metadata": {"name": "Wrong_Name"}}, "metadata.name", "FieldValueInvalid"),
        ({"metadata": {"labels": {"a": "not valid!"}}}, "metadata.labels", "FieldValueInvalid"),
        ({"metadata": {"labels": {"a": "x" * 64}}}, "metadata.labels", "FieldValueInvalid"),
        ({"metadata": {"annotations": {"a": "x" * 300_000}}}, "metadata.annotations", "FieldValueTooLong"),
        ({"spec": {"containers": []}}, "spec.containers", "FieldValueRequired"),
        ({"spec": {"containers": [{"name": "base"}]}}, "spec.containers[0].image", "FieldValueRequired"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0].name", "FieldValueRequired"),
        ({"spec": {"containers": [_container(name="Base")]}}, "spec.containers[0].name", "FieldValueInvalid"),
        ({"spec": {"containers": [_container(), _container()]}}, "spec.containers[1].name", "FieldValueDuplicate"),
        (
            {"spec": {"containers": [_container(volumeMounts=[{"name": "v", "mountPath": "/v"}])]}},
            "spec.containers[0].volumeMounts[0].name",
            "FieldValueNotFound",
        ),
        (
            {"spec": {"containers": [_container(env=[{"value": "x"}])]}},
            "spec.containers[0].env[0].name",
            "FieldValueRequired",
        ),
        ({"spec": {"activeDeadlineSeconds": 0}}, "spec.activeDeadlineSeconds", "FieldValueInvalid"),
        ({"spec": {"restartPolicy": "Sometimes"}}, "spec.restartPolicy", "FieldValueNotSupported"),
    ],
)
def test_a_wrong_field_is_422_and_named(api: Api, change: Json, field: str, reason: str) -> None:
    """Invalid objects are refused with the field and the machine word for what is wrong."""
    manifest = api.manifest("true")
    for part, fields in change.items():
        manifest[part] |= fields
    answer = api.call("POST", api.pods, manifest)
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert (field, reason) in {(cause["field"], cause["reason"]) for cause in answer.body["details"]["causes"]}
    assert answer.body["message"].startswith(f'Pod "{manifest["metadata"]["name"]}" is invalid: ')


def test_restart_policies_that_need_restarts_are_refused_with_a_way_out(local: Api) -> None:
    """Kubernetes' default is Always; the local cluster restarts nothing, and says what to write."""
    manifest = local.manifest("true")
    del manifest["spec"]["restartPolicy"]
    answer = local.call("POST", local.pods, manifest)
    assert answer.code == 422
    assert "restartPolicy: Never" in answer.body["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"a": 1}}},
        {"spec": {"containers": "none"}},
        {"spec": {"containers": [_container(env=[{"name": "A", "value": 5}])]}},
        {"spec": {"containers": [_container(command="true")]}},
    ],
)
def test_a_field_of_a_wrong_type_is_400(api: Api, change: Json) -> None:
    """A number is no text."""
    manifest = api.manifest("true")
    for part, fields in change.items():
        manifest[part] |= fields
    answer = api.call("POST", api.pods, manifest)
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    assert "cannot be handled as a Pod" in answer.body["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"pod"', b"\xff\xfe"])
def test_a_body_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    """Nonsense is answered, not suffered."""
    answer = api.call("POST", api.pods, body)
    assert 400 <= answer.code < 500
    assert answer.body["kind"] == "Status"


def test_a_body_of_another_language_is_415(api: Api) -> None:
    """Only what is understood is taken."""
    assert api.call("POST", api.pods, b"x", headers={"Content-Type": "text/plain"}).code == 415
    assert api.patch(f"{api.pods}/x", {}, kind="application/json").code == 415


def test_a_body_that_is_too_large_is_413(api: Api) -> None:
    """Three MiB are too much."""
    assert api.call("POST", api.pods, b" " * 4_000_000).code == 413


def test_another_kind_or_namespace_in_the_body_is_400(api: Api) -> None:
    """Address and body must agree."""
    other = api.manifest("true")
    other["metadata"]["namespace"] = "another"
    assert api.call("POST", api.pods, other).code == 400
    wrong = api.manifest("true") | {"kind": "Service"}
    assert api.call("POST", api.pods, wrong).code == 400


def test_lists_are_narrowed_by_labels_and_fields(api: Api) -> None:
    """Both selectors, in all their forms."""
    names = [api.name() for _ in range(3)]
    for index, name in enumerate(names):
        manifest = api.manifest("true", name=name)
        manifest["metadata"]["labels"] |= {"index": str(index)} | ({"odd": "yes"} if index == 1 else {})
        api.call("POST", api.pods, manifest).ok()

    def found(labels: str, fields: str | None = None) -> list[int]:
        answer = api.call("GET", api.pods, labelSelector=f"{api.selector},{labels}", fieldSelector=fields).ok()
        assert answer["kind"] == "PodList"
        return [int(pod["metadata"]["labels"]["index"]) for pod in answer["items"]]

    assert found("index") == [0, 1, 2]
    assert found("index=1") == found("index==1") == found("odd") == [1]
    assert found("index!=1") == found("!odd") == [0, 2]
    assert found("index in (0, 2)") == found("index notin (1)") == [0, 2]
    assert found("index=none") == []
    assert found("index", f"metadata.name={names[2]}") == [2]
    assert found("index", f"metadata.name!={names[2]}") == [0, 1]


@pytest.mark.parametrize(
    "query",
    [{"labelSelector": "a=b=c"}, {"labelSelector": "a in b"}, {"fieldSelector": "spec.nothing=1"}, {"limit": "x"}],
)
def test_a_query_that_cannot_be_read_is_400(api: Api, query: Json) -> None:
    """A selector that is not understood must not select everything."""
    answer = api.call("GET", api.pods, **query)
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")


def test_pages_show_one_moment(api: Api) -> None:
    """All pages of a list are of the version of the first, whatever happens between."""
    names = [api.create("true")["metadata"]["name"] for _ in range(5)]
    first = api.call("GET", api.pods, labelSelector=api.selector, limit=2).ok()
    late = api.create("true")["metadata"]["name"]
    api.call("DELETE", f"{api.pods}/{names[4]}", {"gracePeriodSeconds": 0}).ok()
    seen, page = [pod["metadata"]["name"] for pod in first["items"]], first
    while page["metadata"].get("continue"):
        more = page["metadata"]["continue"]
        page = api.call("GET", api.pods, labelSelector=api.selector, limit=2, **{"continue": more}).ok()
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        seen += [pod["metadata"]["name"] for pod in page["items"]]
    assert seen == sorted(names)
    assert late not in seen


def test_a_continue_token_that_is_none_is_400(api: Api) -> None:
    """A token comes from the server."""
    assert api.call("GET", api.pods, limit=2, **{"continue": "nonsense"}).code == 400


def test_a_page_that_is_too_old_is_410(local: Api) -> None:
    """Unfinished lists are given up at some time; the client begins anew."""
    for _ in range(2):
        local.create("true")
    first = local.call("GET", local.pods, labelSelector=local.selector, limit=1).ok()
    for _ in range(20):
        local.call("GET", local.pods, labelSelector=local.selector, limit=1).ok()
    answer = local.call("GET", local.pods, limit=1, **{"continue": first["metadata"]["continue"]})
    assert (answer.code, answer.body["reason"]) == (410, "Expired")


def test_three_patch_languages(api: Api) -> None:
    """Labels and annotations by merge patch, strategic merge patch and JSON patch."""
    pod = api.create("sleep 5")
    path = f"{api.pods}/{pod['metadata']['name']}"
    merged = api.patch(path, {"metadata": {"labels": {"one": "1", "two": "2"}}}).ok()
    assert merged["metadata"]["labels"] == {LABEL: api.label, "one": "1", "two": "2"}
    assert merged["metadata"]["resourceVersion"] != pod["metadata"]["resourceVersion"]
    strategic = "application/strategic-merge-patch+json"
    changed = api.patch(path, {"metadata": {"labels": {"one": None}, "annotations": {"a": "b"}}}, kind=strategic).ok()
    assert changed["metadata"]["labels"] == {LABEL: api.label, "two": "2"}
    operations = [
        {"op": "test", "path": "/metadata/labels/two", "value": "2"},
        {"op": "replace", "path": "/metadata/labels/two", "value": "3"},
        {"op": "add", "path": "/metadata/annotations/x~1y", "value": "z"},
    ]
    patched = api.patch(path, operations, kind="application/json-patch+json").ok()
    assert patched["metadata"]["labels"]["two"] == "3"
    assert patched["metadata"]["annotations"] == {"a": "b", "x/y": "z"}
    answer = api.patch(path, operations, kind="application/json-patch+json")
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")


def test_a_patch_of_an_older_version_is_409(api: Api) -> None:
    """resourceVersion in the patch is a condition."""
    pod = api.create("sleep 5")
    path = f"{api.pods}/{pod['metadata']['name']}"
    api.patch(path, {"metadata": {"labels": {"one": "1"}}}).ok()
    old = {"metadata": {"resourceVersion": pod["metadata"]["resourceVersion"], "labels": {"one": "2"}}}
    answer = api.patch(path, old)
    assert (answer.code, answer.body["reason"]) == (409, "Conflict")


def test_another_uid_is_409_in_a_replacement_and_422_in_a_patch(api: Api) -> None:
    """A precondition of the one, a field that does not change of the other; neither changes anything."""
    pod = api.create("sleep 5")
    path = f"{api.pods}/{pod['metadata']['name']}"
    other = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000", "labels": {"one": "2"}}}
    for kind in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        patched = api.patch(path, other, kind=kind)
        assert (patched.code, patched.body["reason"]) == (422, "Invalid")
        assert [cause["field"] for cause in patched.body["details"]["causes"]] == ["metadata.uid"]
    put = api.read(pod)
    put["metadata"]["uid"] = other["metadata"]["uid"]
    put["metadata"].pop("resourceVersion")
    answer = api.call("PUT", path, put)
    assert (answer.code, answer.body["reason"]) == (409, "Conflict")
    assert "one" not in api.read(pod)["metadata"]["labels"]


def test_a_change_of_nothing_makes_no_version(api: Api) -> None:
    """Writing what is there already wakes no watch."""
    pod = api.ended(api.create("true"))
    path = f"{api.pods}/{pod['metadata']['name']}"
    first = api.patch(path, {"metadata": {"labels": {"one": "1"}}}).ok()
    second = api.patch(path, {"metadata": {"labels": {"one": "1"}}}).ok()
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_the_spec_of_a_pod_stays(api: Api) -> None:
    """A pod is not changed into another one."""
    pod = api.create("sleep 5")
    path = f"{api.pods}/{pod['metadata']['name']}"
    answer = api.patch(path, {"spec": {"restartPolicy": "Never", "serviceAccountName": "other"}})
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["field"] == "spec"


def test_a_put_replaces_labels_but_not_status(api: Api) -> None:
    """Status has an address of its own."""
    pod = api.ended(api.create("true"))
    path = f"{api.pods}/{pod['metadata']['name']}"
    pod["metadata"]["labels"]["put"] = "yes"
    pod["status"]["phase"] = "Running"
    put = api.call("PUT", path, pod).ok()
    assert (put["metadata"]["labels"]["put"], put["status"]["phase"]) == ("yes", "Succeeded")
    put["status"]["message"] = "said"
    assert api.call("PUT", f"{path}/status", put).ok()["status"]["message"] == "said"


def test_dry_run_creates_nothing(api: Api) -> None:
    """The answer is as if; the pod is not there."""
    manifest = api.manifest("true")
    assert api.call("POST", api.pods, manifest, dryRun="All").code == 201
    assert api.call("GET", f"{api.pods}/{manifest['metadata']['name']}").code == 404
