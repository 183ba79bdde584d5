"""Faults on request: each kind, as a client sees it. The local cluster only."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from urllib3.exceptions import HTTPError

from dispatcher.localcluster.faults import client, kinds
from tests import parts
from tests.contract.conftest import LABEL, Api, terminated, waiting

pytestmark = pytest.mark.processes
Json = dict[str, Any]
LONG = "echo up; exec sleep 60"


@pytest.fixture(scope="module")
def faulty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.LocalCluster]:
    """A local cluster with faults on."""
    cluster = parts.LocalCluster.start(tmp_path_factory.mktemp("faulty") / "home", "--faults")
    yield cluster
    cluster.stop()


@pytest.fixture
def faulty(faulty_server: parts.LocalCluster) -> Iterator[Api]:
    """An API without faults yet."""
    api = Api(kubeconfig=faulty_server.kubeconfig, image="x:1", namespace="default", is_local=True, label="faulty")
    yield api
    client.Faults.of(faulty_server.kubeconfig).clear()
    api.clean()
    parts.eventually(lambda: not api.call("GET", api.pods).ok()["items"], 10)


@pytest.fixture
def faults(faulty: Api) -> client.Faults:
    """The faults of that cluster."""
    return client.Faults.of(faulty.kubeconfig)


def _condition(pod: Json, kind: str) -> Json:
    return next((entry for entry in pod["status"]["conditions"] if entry["type"] == kind), {})


def _manifest(api: Api, script: str = "true") -> tuple[Json, str]:
    manifest = api.manifest(script)
    return manifest, manifest["metadata"]["name"]


# --- the door ---


def test_faults_are_off_unless_asked_for(local: Api) -> None:
    """403, with the way to turn them on; the counters are there nevertheless."""
    answer = local.call("POST", "/podyard/faults", {"kind": "cut_watches"})
    assert (answer.code, "--faults" in answer.body["message"]) == (403, True)
    assert local.call("GET", "/podyard/stats").ok()["total"] >= 0


def test_the_door_needs_the_token(faulty: Api) -> None:
    """As every other address."""
    assert faulty.call("GET", "/podyard/faults", headers={"Authorization": "Bearer no"}).code == 401


def test_what_is_no_fault_is_refused_and_named(faulty: Api) -> None:
    """422 with the field."""
    answer = faulty.call("POST", "/podyard/faults", {"kind": "fail", "status": 99})
    assert answer.code == 422
    assert "status" in answer.body["message"]


def test_faults_are_listed_counted_and_removed(faulty: Api, faults: client.Faults) -> None:
    """Each with its number and how often it was used."""
    number = faults.fail("get", 503)
    assert faulty.call("GET", f"{faulty.pods}/x").code == 503
    assert faults.hits(number) == 1
    faults.remove(number)
    assert faulty.call("GET", f"{faulty.pods}/x").code == 404
    assert faulty.call("GET", "/podyard/faults").ok()["faults"] == []


def test_requests_are_counted_by_resource_and_verb(faulty: Api, faults: client.Faults) -> None:
    """As the server saw them; a reset gives the last counts."""
    faults.reset_stats()
    pod = faulty.ended(faulty.create("echo x"))
    faulty.log(pod)
    faulty.call("DELETE", f"{faulty.pods}/{pod['metadata']['name']}").ok()
    counted = faults.reset_stats()
    assert {verb: counted["requests"]["pods"][verb] for verb in ("create", "log", "delete")} == {
        "create": 1,
        "log": 1,
        "delete": 1,
    }
    assert counted["answers"]["201"] == 1
    assert counted["total"] == sum(counted["answers"].values())
    assert faults.stats()["total"] == 0


# --- calls ---


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (429, "TooManyRequests", "Too many requests"),
        (403, "Forbidden", "exceeded quota"),
        (409, "Conflict", "the object has been modified"),
        (500, "InternalError", "Internal error occurred"),
        (503, "ServiceUnavailable", "unable to handle the request"),
        (504, "Timeout", "may still be processing the request"),
    ],
)
def test_creates_fail_as_a_server_words_it(
    faulty: Api, faults: client.Faults, status: int, reason: str, words: str
) -> None:
    """The next one, then no more; nothing was created."""
    faults.fail("create", status, times=1)
    manifest, name = _manifest(faulty)
    answer = faulty.call("POST", faulty.pods, manifest)
    assert (answer.code, answer.body["reason"]) == (status, reason)
    assert words in answer.body["message"]
    assert faulty.call("GET", f"{faulty.pods}/{name}").code == 404
    assert faulty.call("POST", faulty.pods, manifest).code == 201


def test_retry_after_is_a_header_and_a_detail(faulty: Api, faults: client.Faults) -> None:
    """As clients read it."""
    faults.fail("create", 429, retry_after_s=7)
    answer = faulty.call("POST", faulty.pods, faulty.manifest())
    assert (answer.headers["Retry-After"], answer.body["details"]["retryAfterSeconds"]) == ("7", 7)


def test_one_pod_can_be_meant(faulty: Api, faults: client.Faults) -> None:
    """A create is known by the name in its body."""
    faults.fail("create", 500, name="bad-*")
    assert faulty.call("POST", faulty.pods, faulty.manifest(name="bad-one")).code == 500
    assert faulty.call("POST", faulty.pods, faulty.manifest(name="good-one")).code == 201


@pytest.mark.parametrize(("how", "code"), [("answer", 504), ("cut", 0)])
def test_a_create_can_succeed_while_its_caller_sees_a_failure(
    faulty: Api, faults: client.Faults, how: str, code: int
) -> None:
    """The pod is there; the caller got 504, or a connection that closed."""
    faults.fail("create", 504, how=how, done=True, times=1)
    manifest, name = _manifest(faulty)
    assert _code(faulty, "POST", faulty.pods, manifest) == code
    assert faulty.call("GET", f"{faulty.pods}/{name}").code == 200
    assert faulty.call("POST", faulty.pods, manifest).code == 409


def _code(api: Api, method: str, path: str, body: Any = None) -> int:
    """The status; 0 where there was no whole answer."""
    try:
        return api.call(method, path, body).code
    except HTTPError:
        return 0


def test_every_verb_can_succeed_while_its_caller_sees_a_failure(faulty: Api, faults: client.Faults) -> None:
    """Patch, delete, list, get and log."""
    pod = faulty.ended(faulty.create("echo x"))
    path = f"{faulty.pods}/{pod['metadata']['name']}"
    faults.fail("*", 504, how="cut", done=True)
    patch = {"Content-Type": "application/merge-patch+json"}
    with pytest.raises(HTTPError):
        faulty.call("PATCH", path, {"metadata": {"labels": {"patched": "yes"}}}, headers=patch)
    assert [_code(faulty, "GET", there) for there in (path, faulty.pods, f"{path}/log")] == [0, 0, 0]
    faults.clear()
    assert faulty.read(pod)["metadata"]["labels"]["patched"] == "yes"
    faults.fail("delete", 504, done=True, times=1)
    assert faulty.call("DELETE", path).code == 504
    assert faulty.call("GET", path).code == 404


def test_a_call_that_does_not_succeed_says_so(faulty: Api, faults: client.Faults) -> None:
    """A failure after success needs a success."""
    faults.fail("delete", 504, done=True)
    assert faulty.call("DELETE", f"{faulty.pods}/nobody").code == 404


def test_calls_can_be_slow(faulty: Api, faults: client.Faults) -> None:
    """A fixed time for one verb; others are as quick as before."""
    faults.delay("create", 0.3)
    began = time.monotonic()
    faulty.create("true")
    created = time.monotonic()
    faulty.call("GET", faulty.pods).ok()
    assert created - began >= 0.3
    assert time.monotonic() - created < 0.25


def test_a_call_can_hang(faulty: Api, faults: client.Faults) -> None:
    """Until the caller gives up."""
    faults.fail("list", how="hang")
    with pytest.raises(HTTPError):
        faulty.call("GET", faulty.pods, timeout_s=0.3)


# --- watches ---


def _watch(api: Api, **query: Any) -> Iterator[Json]:
    version = api.call("GET", api.pods).ok()["metadata"]["resourceVersion"]
    return api.events(api.pods, resourceVersion=version, **query)


def test_watches_are_cut(faulty: Api, faults: client.Faults) -> None:
    """Reset in the middle; a new watch goes on from the last version."""
    events = _watch(faulty)
    faulty.create("true")
    first = next(events)
    parts.eventually(lambda: faults.stats()["openWatches"] == 1, 5)
    assert faults.cut_watches() == 1
    with pytest.raises(HTTPError):
        list(events)
    version = first["object"]["metadata"]["resourceVersion"]
    again = faulty.events(faulty.pods, resourceVersion=version, timeoutSeconds=5)
    assert next(again)["type"] == "MODIFIED"
    again.close()  # type: ignore[attr-defined]


def test_watches_are_ended_cleanly(faulty: Api, faults: client.Faults) -> None:
    """As a server does it that is about to stop."""
    events = _watch(faulty)
    faulty.create("true")
    next(events)
    assert faults.cut_watches("end") == 1
    assert {event["type"] for event in events} <= {"MODIFIED"}


def test_watches_fall_silent(faulty: Api, faults: client.Faults) -> None:
    """The connection stays open, nothing comes; a new watch is told everything."""
    pod = faulty.create(LONG)
    events = _watch(faulty, labelSelector="silent")
    answer = faulty.open("GET", faulty.pods, watch="1", allowWatchBookmarks="true", labelSelector="silent=yes")
    parts.eventually(lambda: faults.stats()["openWatches"] == 1, 5)
    assert faults.silence_watches() == 1
    faulty.patch(f"{faulty.pods}/{pod['metadata']['name']}", {"metadata": {"labels": {"silent": "yes"}}}).ok()
    assert next(events)["object"]["metadata"]["name"] == pod["metadata"]["name"]
    events.close()  # type: ignore[attr-defined]
    assert faults.stats()["openWatches"] >= 1
    answer.close()


def test_versions_expire_as_events(faulty: Api, faults: client.Faults) -> None:
    """Open watches get an ERROR event of 410, and so do those from an old version."""
    version = faulty.call("GET", faulty.pods).ok()["metadata"]["resourceVersion"]
    events = faulty.events(faulty.pods, resourceVersion=version)
    faulty.create("true")
    next(events)
    faults.expire_versions()
    last = list(events)[-1]
    assert (last["type"], last["object"]["code"]) == ("ERROR", 410)
    again = next(faulty.events(faulty.pods, resourceVersion=version))
    assert (again["type"], again["object"]["code"]) == ("ERROR", 410)


def test_versions_expire_as_status(faulty: Api, faults: client.Faults) -> None:
    """Open watches end; who comes back with an old version is told by HTTP 410."""
    version = faulty.call("GET", faulty.pods).ok()["metadata"]["resourceVersion"]
    faults.expire_versions("status")
    answer = faulty.call("GET", faulty.pods, watch="1", resourceVersion=version)
    assert (answer.code, answer.body["reason"]) == (410, "Expired")
    faults.expire_versions("event")


def test_events_come_twice_and_after_garbage(faulty: Api, faults: client.Faults) -> None:
    """What a careful client must take."""
    faults.disturb("duplicate", times=1)
    events = _watch(faulty)
    faulty.create("true")
    assert next(events) == next(events)
    events.close()  # type: ignore[attr-defined]
    faults.disturb("garbage", times=1)
    answer = faulty.open("GET", faulty.pods, watch="1")
    with pytest.raises(ValueError, match="utf-8"):
        json.loads(next(answer.stream(200)).splitlines()[0])
    answer.close()


# --- pods ---


def test_an_evicted_pod_is_failed_for_a_reason_of_the_node(faulty: Api, faults: client.Faults) -> None:
    """Phase, reason, message and condition as a kubelet gives them; the object stays."""
    pod = faulty.running(faulty.create(LONG))
    assert faults.evict(pod["metadata"]["name"]) == (pod["metadata"]["name"],)
    ended = faulty.ended(pod)
    assert (ended["status"]["phase"], ended["status"]["reason"]) == ("Failed", "Evicted")
    assert "low on resource" in ended["status"]["message"]
    assert _condition(ended, "DisruptionTarget")["reason"] == "TerminationByKubelet"
    assert terminated(ended)["exitCode"] == 137


def test_a_preempted_pod_is_marked_and_deleted(faulty: Api, faults: client.Faults) -> None:
    """DisruptionTarget first, then the usual way of a deleted pod."""
    pod = faulty.running(faulty.create(LONG))
    events = _watch(faulty)
    faults.preempt(pod["metadata"]["name"])
    seen = []
    for event in events:
        seen.append(event)
        if event["type"] == "DELETED":
            break
    assert _condition(seen[-1]["object"], "DisruptionTarget")["reason"] == "PreemptionByScheduler"
    assert terminated(seen[-1]["object"])["exitCode"] == 143


def test_a_hungry_container_is_oom_killed(faulty: Api, faults: client.Faults) -> None:
    """137, OOMKilled; the pod itself has no reason."""
    pod = faulty.running(faulty.create(LONG))
    faults.oom(pod["metadata"]["name"])
    ended = faulty.ended(pod)
    assert (ended["status"]["phase"], terminated(ended)["exitCode"]) == ("Failed", 137)
    assert terminated(ended)["reason"] == "OOMKilled"
    assert "reason" not in ended["status"]


def test_a_killed_container_says_no_more_than_137(faulty: Api, faults: client.Faults) -> None:
    """Nobody knows who did it."""
    pod = faulty.running(faulty.create(LONG))
    faults.kill(pod["metadata"]["name"])
    ended = terminated(faulty.ended(pod))
    assert (ended["exitCode"], ended["reason"]) == (137, "Error")


def test_a_pod_can_be_deleted_by_hand(faulty: Api, faults: client.Faults) -> None:
    """Gone, without a word."""
    pod = faulty.running(faulty.create(LONG))
    faults.delete(pod["metadata"]["name"], grace_s=0)
    assert faulty.call("GET", f"{faulty.pods}/{pod['metadata']['name']}").code == 404


def test_who_meets_no_pod_is_told(faults: client.Faults) -> None:
    """A test that hits nothing is no test."""
    with pytest.raises(kinds.FaultError, match="wait until it is Running"):
        faults.evict("nobody")


def test_victims_can_be_picked(faulty: Api, faults: client.Faults) -> None:
    """One of three."""
    pods = [faulty.running(faulty.create(LONG)) for _ in range(3)]
    met = faults.kill("*", pick=1)
    assert len(met) == 1
    dead = [pod for pod in pods if pod["metadata"]["name"] in met]
    assert faulty.ended(dead[0])["status"]["phase"] == "Failed"


def test_an_image_cannot_be_pulled_until_it_can(faulty: Api, faults: client.Faults) -> None:
    """ErrImagePull, ImagePullBackOff, and a good end once the fault is gone."""
    faults.unpullable("x:*", cause="rate_limit")
    pod = faulty.create("true")
    first = faulty.until(pod, lambda now: waiting(now).get("reason") == "ErrImagePull")
    assert "toomanyrequests" in waiting(first)["message"]
    second = faulty.until(pod, lambda now: waiting(now).get("reason") == "ImagePullBackOff")
    assert second["status"]["phase"] == "Pending"
    faults.clear()
    assert faulty.ended(pod)["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("cpu", "Insufficient cpu"),
        ("memory", "Insufficient memory"),
        ("selector", "didn't match Pod's node affinity/selector"),
        ("taint", "untolerated taint"),
        ("volume", "unbound immediate PersistentVolumeClaims"),
    ],
)
def test_no_node_takes_a_pod_until_one_does(faulty: Api, faults: client.Faults, cause: str, words: str) -> None:
    """Unschedulable with the usual words; then it runs."""
    number = faults.unschedulable(cause=cause)
    pod = faulty.create("true")
    seen = faulty.until(pod, lambda now: now["status"].get("conditions"))
    condition = _condition(seen, "PodScheduled")
    assert (condition["reason"], seen["status"]["phase"]) == ("Unschedulable", "Pending")
    assert words in condition["message"]
    faults.remove(number)
    assert faulty.ended(pod)["status"]["phase"] == "Succeeded"


# --- the node ---


def test_a_lost_node_hides_what_its_pods_do(faulty: Api, faults: client.Faults) -> None:
    """NotReady; the pod ends unseen; new pods wait; all is told when the node is back."""
    pod = faulty.running(faulty.create("sleep 0.5; echo done"))
    assert faults.lose_node() == (pod["metadata"]["name"],)
    (node,) = faulty.call("GET", "/api/v1/nodes").ok()["items"]
    assert node["status"]["conditions"][0]["status"] == "Unknown"
    late = faulty.create("true")
    seen = faulty.until(late, lambda now: now["status"].get("conditions"))
    assert "node.kubernetes.io/unreachable" in _condition(seen, "PodScheduled")["message"]
    parts.eventually(lambda: "done" in faulty.log(pod).body, 5)
    hidden = faulty.read(pod)
    assert (hidden["status"]["phase"], _condition(hidden, "Ready")["status"]) == ("Running", "False")
    faults.restore_node()
    assert faulty.ended(pod)["status"]["phase"] == "Succeeded"
    assert faulty.ended(late)["status"]["phase"] == "Succeeded"


def test_pods_of_a_lost_node_can_be_unknown(faulty: Api, faults: client.Faults) -> None:
    """As older clusters say; Running again when the node is back."""
    pod = faulty.running(faulty.create(LONG))
    faults.lose_node(phase="Unknown")
    lost = faulty.read(pod)["status"]
    assert (lost["phase"], lost["reason"]) == ("Unknown", "NodeLost")
    faults.restore_node()
    back = faulty.running(pod)["status"]
    assert "reason" not in back


def test_pods_of_a_lost_node_are_terminating_until_it_is_back(faulty: Api, faults: client.Faults) -> None:
    """TaintManagerEviction; a delete waits for the kubelet's word."""
    pod = faulty.running(faulty.create(LONG))
    faults.lose_node(evict_after_s=0.1)
    marked = faulty.until(pod, lambda now: "deletionTimestamp" in now["metadata"])
    assert marked["status"]["phase"] == "Running"
    assert _condition(marked, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
    faults.restore_node()
    path = f"{faulty.pods}/{pod['metadata']['name']}"
    parts.eventually(lambda: faulty.call("GET", path).code == 404, 10)


def test_a_removed_node_takes_its_pods_along_but_not_their_processes(
    faulty: Api, faults: client.Faults, tmp_path: Path
) -> None:
    """DELETED by the garbage collector of pods, while the program still runs: who starts it anew has two."""
    traces = tmp_path / "traces"
    pod = faulty.running(faulty.create(f"while :; do echo x >> {traces}; sleep 0.05; done"))
    faults.lose_node()
    assert faults.remove_node() == (pod["metadata"]["name"],)
    assert faulty.call("GET", f"{faulty.pods}/{pod['metadata']['name']}").code == 404
    size = traces.stat().st_size
    parts.eventually(lambda: traces.stat().st_size > size, 5)
    faults.restore_node()

    def stopped() -> bool:
        before = traces.stat().st_size
        time.sleep(0.2)  # the writer's own rhythm is the bound
        return traces.stat().st_size == before

    parts.eventually(stopped, 10)


# --- files and times ---


def test_a_file_of_faults_is_followed(tmp_path: Path) -> None:
    """Read at the start and at each change; a broken one changes nothing."""
    file = tmp_path / "faults.yaml"
    file.write_text("seed: 3\nfaults:\n- {kind: fail, verb: get, status: 503}\n")
    cluster = parts.LocalCluster.start(tmp_path / "home", "--instant", "--faults-file", str(file))
    try:
        api = Api(kubeconfig=cluster.kubeconfig, image="x:1", namespace="default", is_local=True, label="file")
        assert api.call("GET", f"{api.pods}/x").code == 503
        assert api.call("GET", "/podyard/faults").ok()["seed"] == 3
        file.write_text("- {kind: fail, verb: get, status: 500}\n")
        parts.eventually(lambda: api.call("GET", f"{api.pods}/x").code == 500, 10)
        file.write_text("- {kind: nonsense}\n")
        parts.eventually(lambda: "faults stay as they were" in cluster.home.with_name("home.log").read_text(), 10)
        assert api.call("GET", f"{api.pods}/x").code == 500
    finally:
        cluster.stop()


def test_happenings_keep_their_times(faulty: Api, faults: client.Faults) -> None:
    """Again and again, each time another pod."""
    pods = [faulty.running(faulty.create(LONG)) for _ in range(3)]
    added = faults.add(kinds.Kill(pick=1, after_s=0.1, every_s=0.1, times=3))
    assert added.met == ()
    assert {faulty.ended(pod)["status"]["phase"] for pod in pods} == {"Failed"}
    assert faults.hits(added.number) == 3


def test_labels_of_other_tests_are_left_alone(faulty: Api) -> None:
    """The cluster is empty between tests, so that a pattern meets no stranger."""
    assert faulty.call("GET", faulty.pods, labelSelector=f"{LABEL}!=faulty").ok()["items"] == []


def test_rights_can_be_denied(faulty: Api, faults: client.Faults) -> None:
    """RBAC's 403, and the access review says no; other rights are as before."""
    faults.deny("get", "pods/log")
    pod = faulty.ended(faulty.create("true"))
    answer = faulty.log(pod)
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert 'cannot get resource "pods/log" in API group "" in the namespace "default"' in answer.body["message"]

    def may(verb: str, subresource: str) -> bool:
        asked = {"namespace": "default", "verb": verb, "resource": "pods", "subresource": subresource}
        body = {"spec": {"resourceAttributes": asked}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        allowed: bool = faulty.call("POST", path, body).ok()["status"]["allowed"]
        return allowed

    assert (may("get", "log"), may("get", "")) == (False, True)


# --- answers that are none ---


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("null", 201, b"null"),
        ("object", 201, b"{}"),
        ("list", 201, b"[]"),
        ("empty", 204, b""),
        ("html", 201, b"<html><body><h1>It works!</h1></body></html>\n"),
    ],
)
def test_a_success_can_be_answered_with_nonsense(
    faulty: Api, faults: client.Faults, body: str, code: int, said: bytes
) -> None:
    """The status is a success, the body is none; nothing was done."""
    faults.garble("create", body, resource="pods", times=1)
    manifest, name = _manifest(faulty)
    answer = faulty.open("POST", faulty.pods, manifest)
    assert (answer.status, answer.read()) == (code, said)
    assert faulty.call("GET", f"{faulty.pods}/{name}").code == 404


@pytest.mark.parametrize("done", [False, True])
def test_an_answer_can_be_cut_short_or_no_utf8(faulty: Api, faults: client.Faults, *, done: bool) -> None:
    """JSON that cannot be decoded, whether the pod was created or not."""
    for body, error in (("truncated", json.JSONDecodeError), ("latin1", UnicodeDecodeError)):
        faults.garble("create", body, resource="pods", times=1, done=done)
        manifest, name = _manifest(faulty)
        answer = faulty.open("POST", faulty.pods, manifest)
        assert answer.status == 201
        with pytest.raises(error):
            json.loads(answer.read().decode())
        assert faulty.call("GET", f"{faulty.pods}/{name}").code == (200 if done else 404)


def test_an_answer_can_be_broken_off(faulty: Api, faults: client.Faults) -> None:
    """Fewer bytes than its Content-Length says, and the connection is gone."""
    faults.garble("list", "broken_off", resource="pods", times=1)
    with pytest.raises(HTTPError):
        faulty.open("GET", faulty.pods).read()


@pytest.mark.parametrize(
    ("verb", "ask"),
    [
        ("get", lambda api: api.open("GET", f"{api.pods}/x")),
        ("list", lambda api: api.open("GET", api.pods)),
        ("watch", lambda api: api.open("GET", api.pods, watch="1")),
        ("log", lambda api: api.open("GET", f"{api.pods}/x/log")),
        ("update", lambda api: api.open("PUT", f"{api.pods}/x", {})),
        ("patch", lambda api: api.open("PATCH", f"{api.pods}/x", {})),
        ("delete", lambda api: api.open("DELETE", f"{api.pods}/x")),
        ("deletecollection", lambda api: api.open("DELETE", api.pods)),
        ("evict", lambda api: api.open("POST", f"{api.pods}/x/eviction", {})),
    ],
)
def test_every_verb_can_be_answered_with_nonsense(faulty: Api, faults: client.Faults, verb: str, ask: Any) -> None:
    """With the status that was asked for, too."""
    faults.garble(verb, "null", times=1, status=202)
    answer = ask(faulty)
    assert (answer.status, answer.read()) == (202, b"null")


def test_what_is_no_object_can_be_answered_with_nonsense(faulty: Api, faults: client.Faults) -> None:
    """Access reviews by their resource, other addresses by their path."""
    faults.garble("create", "list", resource="selfsubjectaccessreviews", times=1)
    faults.garble("get", "object", resource="/version", times=1)
    review = faulty.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {})
    assert (review.code, review.body) == (201, [])
    assert faulty.call("GET", "/version").body == {}
    assert faulty.call("GET", "/version").body["major"] == "1"


# --- a restart of the API server ---


def test_an_api_server_that_restarts_is_away_and_then_forbids(faulty: Api, faults: client.Faults) -> None:
    """Connections are cut; then its roles are not read yet; then all is as before, and pods went on."""
    pod = faulty.running(faulty.create(LONG))
    events = _watch(faulty)
    faulty.create(LONG)
    next(events)
    faults.restart_apiserver(down_s=0.5, forbidden_s=1.0)
    with pytest.raises(HTTPError):
        list(events)
    with pytest.raises(HTTPError):
        faulty.call("GET", "/readyz")
    parts.eventually(lambda: _code(faulty, "GET", "/version") == 403, 5)
    refused = faulty.call("POST", faulty.pods, faulty.manifest("true"))
    assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
    assert 'cannot create resource "pods"' in refused.body["message"]
    review = faulty.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {})
    assert (review.code, "cannot create resource" in review.body["message"]) == (403, True)
    parts.eventually(lambda: _code(faulty, "GET", faulty.pods) == 200, 5)
    assert faulty.read(pod)["metadata"]["uid"] == pod["metadata"]["uid"]
    assert faulty.read(pod)["status"]["phase"] == "Running"
