"""How pods and other objects go: grace, preconditions, finalizers, collections."""

from collections.abc import Iterator
from typing import Any

from tests import parts
from tests.contract.conftest import Api, terminated

Json = dict[str, Any]
PATIENT = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"


def _gone(api: Api, pod: Json, within_s: float = 60) -> None:
    path = f"{api.pods}/{pod['metadata']['name']}"
    parts.eventually(lambda: api.call("GET", path).code == 404, within_s, what="the pod to be gone")


def _story(events: Iterator[Json]) -> list[Json]:
    seen = []
    for event in events:
        seen.append(event)
        if event["type"] == "DELETED":
            break
    return seen


def _ready(api: Api, pod: Json) -> Json:
    api.running(pod)
    parts.eventually(lambda: "ready" in str(api.log(pod).body), 30, what="the trap to be set")
    return api.read(pod)


def test_a_deleted_pod_is_terminating_then_ended_then_gone(api: Api) -> None:
    """MODIFIED with a deletion time, MODIFIED with the end, DELETED; exit 0 on TERM looks Succeeded."""
    pod = _ready(api, api.create(PATIENT))
    name, version = pod["metadata"]["name"], pod["metadata"]["resourceVersion"]
    answer = api.call("DELETE", f"{api.pods}/{name}", {"gracePeriodSeconds": 20}).ok()
    assert answer["kind"] == "Pod"
    assert answer["metadata"]["deletionGracePeriodSeconds"] == 20
    seen = _story(
        api.events(api.pods, fieldSelector=f"metadata.name={name}", resourceVersion=version, timeoutSeconds=60)
    )
    kinds = [event["type"] for event in seen]
    assert (set(kinds[:-1]), kinds[-1]) == ({"MODIFIED"}, "DELETED")
    first, last = seen[0]["object"], seen[-1]["object"]
    assert first["metadata"]["deletionTimestamp"]
    assert first["status"]["phase"] == "Running"
    assert (last["status"]["phase"], terminated(last)["exitCode"]) == ("Succeeded", 0)
    assert last["metadata"]["deletionTimestamp"] < first["metadata"]["deletionTimestamp"]
    assert last["metadata"]["deletionGracePeriodSeconds"] == 0


def test_a_pod_that_ignores_term_is_killed_after_its_grace_period(api: Api) -> None:
    """137 after the grace period."""
    pod = _ready(api, api.create("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
    name, version = pod["metadata"]["name"], pod["metadata"]["resourceVersion"]
    api.call("DELETE", f"{api.pods}/{name}", gracePeriodSeconds=1).ok()
    seen = _story(
        api.events(api.pods, fieldSelector=f"metadata.name={name}", resourceVersion=version, timeoutSeconds=60)
    )
    last = seen[-1]["object"]
    assert (last["status"]["phase"], terminated(last)["exitCode"]) == ("Failed", 137)


def test_grace_zero_removes_at_once(api: Api) -> None:
    """The object is gone with the answer."""
    pod = api.running(api.create("sleep 30"))
    path = f"{api.pods}/{pod['metadata']['name']}"
    assert api.call("DELETE", path, {"gracePeriodSeconds": 0}).code == 200
    assert api.call("GET", path).code == 404


def test_a_shorter_grace_period_wins_over_a_longer_one(api: Api) -> None:
    """A second delete may hurry, never delay. The object says so at once; a kubelet may let the first one run out."""
    pod = _ready(api, api.create("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
    path = f"{api.pods}/{pod['metadata']['name']}"
    first = api.call("DELETE", path, {"gracePeriodSeconds": 60}).ok()
    longer = api.call("DELETE", path, {"gracePeriodSeconds": 90}).ok()
    assert longer["metadata"]["deletionTimestamp"] == first["metadata"]["deletionTimestamp"]
    sooner = api.call("DELETE", path, {"gracePeriodSeconds": 1}).ok()
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 1
    assert sooner["metadata"]["deletionTimestamp"] < first["metadata"]["deletionTimestamp"]
    _gone(api, pod, within_s=10 if api.is_local else 90)


def test_an_ended_pod_goes_at_once(api: Api) -> None:
    """No container, no grace; its last event says that it was deleted."""
    pod = api.ended(api.create("true"))
    name, version = pod["metadata"]["name"], pod["metadata"]["resourceVersion"]
    assert api.call("DELETE", f"{api.pods}/{name}").code == 200
    _gone(api, pod)
    seen = _story(
        api.events(api.pods, fieldSelector=f"metadata.name={name}", resourceVersion=version, timeoutSeconds=30)
    )
    assert seen[-1]["object"]["metadata"]["deletionTimestamp"]


def test_preconditions_protect_another_pod_of_the_same_name(api: Api) -> None:
    """A delete for another uid or version is 409 and does nothing."""
    pod = api.ended(api.create("true"))
    path = f"{api.pods}/{pod['metadata']['name']}"
    for condition in ({"uid": "00000000-0000-0000-0000-000000000000"}, {"resourceVersion": "1"}):
        answer = api.call("DELETE", path, {"preconditions": condition})
        assert (answer.code, answer.body["reason"]) == (409, "Conflict")
    assert api.call("DELETE", path, {"preconditions": {"uid": pod["metadata"]["uid"]}}).code == 200


def test_a_finalizer_holds_the_pod(api: Api) -> None:
    """Deleted, ended, and still there until the finalizer is taken away."""
    manifest = api.manifest("true")
    manifest["metadata"]["finalizers"] = ["podyard.dev/test"]
    pod = api.ended(api.call("POST", api.pods, manifest).ok())
    path = f"{api.pods}/{pod['metadata']['name']}"
    held = api.call("DELETE", path).ok()
    assert held["metadata"]["deletionTimestamp"]
    assert api.call("GET", path).code == 200
    added = api.patch(path, {"metadata": {"finalizers": ["podyard.dev/test", "podyard.dev/more"]}})
    assert added.code == 422
    assert api.patch(path, {"metadata": {"finalizers": None}}).code == 200
    assert api.call("GET", path).code == 404


def test_a_finalizer_holds_a_running_pod_that_is_deleted(api: Api) -> None:
    """Its container ends, its outcome stays readable."""
    manifest = api.manifest("sleep 30")
    manifest["metadata"]["finalizers"] = ["podyard.dev/test"]
    pod = api.running(api.call("POST", api.pods, manifest).ok())
    path = f"{api.pods}/{pod['metadata']['name']}"
    api.call("DELETE", path, {"gracePeriodSeconds": 1}).ok()
    ended = api.ended(pod)
    assert terminated(ended)["exitCode"] in {137, 143}
    assert ended["metadata"]["deletionTimestamp"]
    api.patch(path, {"metadata": {"finalizers": None}}).ok()
    _gone(api, pod)


def test_a_collection_is_deleted_by_selector(api: Api) -> None:
    """Only what matches goes."""
    kept = api.create("sleep 30")
    for _ in range(3):
        manifest = api.manifest("sleep 30")
        manifest["metadata"]["labels"]["group"] = "a"
        api.call("POST", api.pods, manifest).ok()
    selector = f"{api.selector},group=a"
    api.call("DELETE", api.pods, {"gracePeriodSeconds": 0}, labelSelector=selector).ok()
    parts.eventually(lambda: not api.call("GET", api.pods, labelSelector=selector).ok()["items"], 30)
    assert api.read(kept)["metadata"]["uid"] == kept["metadata"]["uid"]


def test_an_eviction_deletes_the_pod(api: Api) -> None:
    """The eviction API answers 201, and the pod goes."""
    pod = api.running(api.create("sleep 30"))
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": api.namespace}}
    body["deleteOptions"] = {"gracePeriodSeconds": 1}
    assert api.call("POST", f"{api.pods}/{name}/eviction", body).code == 201
    _gone(api, pod)


def test_a_namespace_goes_with_all_that_is_in_it(api: Api) -> None:
    """Terminating while it empties: nothing new can be created in it."""
    name = api.label
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).ok()
    pods = f"/api/v1/namespaces/{name}/pods"

    def created() -> bool:  # a real cluster makes the namespace's service account first
        return api.call("POST", pods, api.manifest(PATIENT, name="inside")).code in {201, 409}

    parts.eventually(created, 30)
    parts.eventually(lambda: api.call("GET", f"{pods}/inside").ok()["status"]["phase"] == "Running", 60)
    answer = api.call("DELETE", f"/api/v1/namespaces/{name}").ok()
    assert answer["status"]["phase"] == "Terminating"
    late = api.call("POST", pods, api.manifest("true", name="late"))
    assert (late.code, late.body["reason"]) in {(403, "Forbidden"), (404, "NotFound")}
    parts.eventually(lambda: api.call("GET", f"/api/v1/namespaces/{name}").code == 404, 60)
    assert api.call("GET", f"{pods}/inside").code == 404
