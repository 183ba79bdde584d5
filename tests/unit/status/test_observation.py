"""What a pod's status says of its attempt: the whole table of verdicts and causes, and no input that raises."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.status import observation, pod_view

Pod = dict[str, Any]
T = "2030-01-01T12:{}:00Z".format


def waiting(reason: str | None = "ContainerCreating", message: str | None = None) -> Pod:
    detail = {"reason": reason, "message": message}
    return {"waiting": {key: value for key, value in detail.items() if value is not None}}


def running() -> Pod:
    return {"running": {"startedAt": T("00")}}


def ended(code: int, reason: str | None = None, message: str | None = None, at: str | None = T("05")) -> Pod:
    detail = {
        "exitCode": code,
        "reason": reason or ("Error" if code else "Completed"),
        "message": message,
        "startedAt": T("00"),
        "finishedAt": at,
    }
    return {"terminated": {key: value for key, value in detail.items() if value is not None}}


def pod(
    base: Pod | None = None,
    *,
    phase: str | None = "Running",
    sidecar: Pod | None = None,
    init: Pod | None = None,
    deleted: str | None = None,
    grace: int | None = None,
    conditions: list[Pod] | None = None,
    **status: Any,
) -> Pod:
    """A pod as the API server sends it; `deleted` is its deletion timestamp."""
    metadata: Pod = {"name": "p"}
    if deleted:
        metadata |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": grace if grace is not None else 0}
    containers = [
        {"name": name, "image": "registry.example/i:1", "state": state}
        for name, state in (("sidecar", sidecar), ("base", base))
        if state
    ]
    return {
        "metadata": metadata,
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": phase,
            **({"containerStatuses": containers} if containers else {}),
            **({"initContainerStatuses": [{"name": "init", "state": init}]} if init else {}),
            **({"conditions": conditions} if conditions else {}),
            **status,
        },
    }


def verdict_of(document: Any, event_type: Any = "MODIFIED") -> str:
    return observation.observe(document, event_type).verdict


DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "message": "default-scheduler: preempting",
}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        (pod(ended(0), phase="Succeeded"), "succeeded"),
        (pod(ended(0), phase="Running", sidecar=running()), "succeeded"),
        (pod(ended(0), phase="Failed", sidecar=ended(1)), "succeeded"),
        (pod(ended(0), phase="Unknown"), "succeeded"),
        (pod(phase="Succeeded"), "succeeded"),
        (pod(phase="Succeeded", sidecar=ended(0)), "succeeded"),
        (pod(ended(1), phase="Failed"), "failed"),
        (pod(ended(1), phase="Running", sidecar=running()), "failed"),
        (pod(ended(1), phase="Succeeded"), "failed"),
        (pod(phase="Failed"), "failed"),
        (pod(running(), phase="Failed"), "failed"),
        (pod(waiting("PodInitializing"), phase="Failed", init=ended(1)), "failed"),
        (pod(running()), "running"),
        (pod(running(), phase="Pending", sidecar=waiting()), "running"),
        (pod(running(), phase=None), "running"),
        (pod({"running": {}}), "running"),
        (pod(running(), sidecar=ended(1)), "running"),
        (pod(running(), deleted=T("30"), grace=30), "running"),
        (pod(waiting(), phase="Pending"), "none"),
        (pod(waiting(), phase="Running", sidecar=running()), "none"),
        (pod(phase="Pending"), "none"),
        (pod(phase="Running"), "none"),
        (pod(phase="Running", sidecar=ended(1)), "none"),
        (pod(phase=None), "none"),
        (pod(phase="Unknown"), "none"),
        (pod(phase="Sideways"), "none"),
        (pod(running(), phase="Unknown"), "none"),
    ],
)
def test_the_base_container_decides(document: Pod, verdict: str) -> None:
    """Not the phase, and never a sidecar."""
    assert verdict_of(document) == verdict
    assert verdict_of(document, "ADDED") == verdict


@pytest.mark.parametrize(
    "reason",
    ["CreateContainerConfigError", "ErrImagePull", "CreateContainerError", "ImageInspectError", "InvalidImageName"],
)
@pytest.mark.parametrize("place", ["base", "init", "sidecar"])
def test_a_container_that_waits_in_vain_has_failed(reason: str, place: str) -> None:
    states = {"base": waiting("PodInitializing"), place: waiting(reason, "no such thing")}
    seen = observation.observe(pod(phase="Pending", **states))
    assert (seen.verdict, seen.reason, seen.message, seen.container, seen.cause, seen.exit_code) == (
        "failed", reason, "no such thing", place, "application", None,
    )  # fmt: skip


@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown", "Failed", None])
def test_a_pod_that_its_provider_gave_up_has_failed(phase: str | None) -> None:
    """A virtual kubelet says so by the reason alone; a base container that has ended decides all the same."""
    seen = observation.observe(pod(running(), phase=phase, reason="ProviderFailed", message="quota of the region"))
    assert (seen.verdict, seen.reason, seen.message, seen.cause) == (
        "failed", "ProviderFailed", "quota of the region", "infrastructure",
    )  # fmt: skip
    assert verdict_of(pod(ended(0), phase=phase, reason="ProviderFailed")) == "succeeded"


@pytest.mark.parametrize(
    ("containers", "reason", "container", "cause"),
    [
        ({"base": waiting("ImagePullBackOff", "back-off")}, "ImagePullBackOff", "base", "application"),
        ({"base": waiting("ContainerCreating")}, "ContainerCreating", "base", "unknown"),
        (
            {"base": waiting("PodInitializing"), "init": waiting("CrashLoopBackOff")},
            "CrashLoopBackOff",
            "init",
            "application",
        ),
        ({"base": waiting("RunContainerError", "no")}, "RunContainerError", "base", "application"),
        ({"base": waiting(None)}, None, None, "unknown"),
    ],
)
def test_a_failed_pod_whose_container_only_waits_gives_that_reason(
    containers: dict[str, Pod], reason: str | None, container: str | None, cause: str
) -> None:
    """Nothing else says why; the pod's own reason wins where there is one."""
    seen = observation.observe(pod(phase="Failed", **containers))
    assert (seen.verdict, seen.reason, seen.container, seen.cause) == ("failed", reason, container, cause)
    assert observation.observe(pod(phase="Failed", reason="Evicted", **containers)).reason == "Evicted"


@pytest.mark.parametrize("base", [running(), ended(0)])
def test_a_sidecar_that_waits_in_vain_does_not_end_a_base_that_has_started(base: Pod) -> None:
    document = pod(base, phase="Pending", sidecar=waiting("ErrImagePull", "no such image"))
    assert verdict_of(document) in {"running", "succeeded"}


def test_the_kubelets_own_brake_is_only_a_wait() -> None:
    document = pod(waiting("ErrImagePull", "pull QPS exceeded"), phase="Pending")
    assert observation.observe(document).verdict == "none"
    assert observation.observe(document).reason == "ErrImagePull"
    longer = pod(waiting("ErrImagePull", "pull QPS exceeded today"), phase="Pending")
    assert verdict_of(longer) == "failed"


def test_one_container_that_is_braked_does_not_hide_another_that_waits_in_vain() -> None:
    brake = waiting("ErrImagePull", "pull QPS exceeded")
    document = pod(brake, phase="Pending", sidecar=waiting("InvalidImageName", "what is this"))
    assert observation.observe(document).container == "sidecar"


@pytest.mark.parametrize(
    ("document", "reason", "container"),
    [
        (pod(waiting("ContainerCreating"), phase="Pending"), "ContainerCreating", "base"),
        (pod(waiting("ImagePullBackOff", "back-off"), phase="Pending"), "ImagePullBackOff", "base"),
        (pod(waiting("PodInitializing"), phase="Pending", init=running()), "PodInitializing", "base"),
        (
            pod(waiting("PodInitializing"), phase="Pending", init=waiting("ImagePullBackOff")),
            "ImagePullBackOff",
            "init",
        ),
        (pod(waiting(), phase="Pending", sidecar=waiting("ImagePullBackOff")), "ImagePullBackOff", "sidecar"),
        (pod(waiting("RunContainerError"), phase="Pending", sidecar=waiting()), "RunContainerError", "base"),
        (pod(phase="Pending", conditions=[UNSCHEDULABLE]), "Unschedulable", None),
        (pod(phase="Pending", conditions=[{**UNSCHEDULABLE, "reason": "SchedulingGated"}]), "SchedulingGated", None),
        (
            pod(waiting(), phase="Pending", conditions=[{**UNSCHEDULABLE, "status": "True"}]),
            "ContainerCreating",
            "base",
        ),
        (pod(phase="Unknown", reason="NodeLost"), "NodeLost", None),
        (pod(waiting(None), phase="Pending"), None, None),
        (pod(phase="Pending"), None, None),
    ],
)
def test_a_pod_that_waits_says_what_for(document: Pod, reason: str | None, container: str | None) -> None:
    seen = observation.observe(document)
    assert (seen.verdict, seen.reason, seen.container, seen.cause) == ("none", reason, container, None)


@pytest.mark.parametrize("document", [pod(running()), pod(waiting(), phase="Pending"), pod(phase="Pending"),
                                      pod(phase="Unknown"), pod(running(), phase="Unknown")])  # fmt: skip
def test_a_pod_that_left_our_selector_is_gone(document: Pod) -> None:
    """DELETED without a deletion timestamp: its labels changed, or it was removed by force."""
    assert verdict_of(document, "DELETED") == "gone"


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        (pod(ended(0), phase="Succeeded"), "succeeded"),
        (pod(ended(1), phase="Failed"), "failed"),
        (pod(phase="Failed"), "failed"),
        (pod(phase="Succeeded"), "succeeded"),
    ],
)
def test_a_pod_that_had_ended_when_it_left_keeps_its_outcome(document: Pod, verdict: str) -> None:
    """The API server deletes an ended pod at once, without a deletion timestamp."""
    assert verdict_of(document, "DELETED") == verdict


@pytest.mark.parametrize(
    "document",
    [
        pod(running(), deleted=T("30"), grace=30),
        pod(waiting(), phase="Pending", deleted=T("30")),
        pod(phase="Pending", deleted=T("30")),
        pod(phase="Running", deleted=T("30")),
        pod(phase="Unknown", deleted=T("30")),
        pod(phase="Failed", deleted=T("30")),
        pod(phase="Succeeded", deleted=T("30")),
        pod(waiting("ErrImagePull"), phase="Pending", deleted=T("30")),
        pod(phase=None, deleted=T("30")),
    ],
)
def test_a_pod_that_is_deleted_before_its_base_ended_has_failed_by_infrastructure(document: Pod) -> None:
    seen = observation.observe(document, "DELETED")
    assert (seen.verdict, seen.reason, seen.cause, seen.is_deleting) == ("failed", "PodDeleted", "infrastructure", True)


def test_a_deletion_says_who_asked_for_it_where_the_cluster_knows() -> None:
    document = pod(running(), deleted=T("30"), conditions=[DISRUPTED])
    seen = observation.observe(document, "DELETED")
    assert (seen.reason, seen.message) == ("PreemptionByScheduler", "default-scheduler: preempting")


REQUESTED_FIRST = {"deleted": T("04"), "grace": 0}  # the base ends at minute 5
ENDED_FIRST = {"deleted": T("06"), "grace": 30}


@pytest.mark.parametrize("event_type", ["MODIFIED", "DELETED"])
@pytest.mark.parametrize(
    ("base", "verdict", "cause"),
    [
        (ended(0, message='{"outcome": 1}'), "succeeded", None),
        (ended(0), "failed", "infrastructure"),
        (ended(0, message="  "), "failed", "infrastructure"),
        (ended(143), "failed", "infrastructure"),
        (ended(137), "failed", "infrastructure"),
        (ended(137, "OOMKilled"), "failed", "infrastructure"),
        (ended(143, message='{"outcome": 1}'), "failed", "infrastructure"),
        (ended(1), "failed", "application"),
        (ended(1, message="x"), "failed", "application"),
    ],
)
def test_an_end_after_the_deletion_was_requested_is_believed_with_care(
    base: Pod, verdict: str, cause: str | None, event_type: str
) -> None:
    """A program that exits 0 on TERM has not done its work, unless it says so."""
    seen = observation.observe(pod(base, phase="Succeeded", **REQUESTED_FIRST), event_type)
    assert (seen.verdict, seen.cause) == (verdict, cause)
    assert seen.exit_code == base["terminated"]["exitCode"]


@pytest.mark.parametrize("event_type", ["MODIFIED", "DELETED"])
@pytest.mark.parametrize(
    ("base", "verdict", "cause"),
    [
        (ended(0), "succeeded", None),
        (ended(1), "failed", "application"),
        (ended(137), "failed", "application"),
        (ended(143), "failed", "application"),
        (ended(137, "OOMKilled"), "failed", "application"),
    ],
)
def test_an_end_before_the_deletion_was_requested_keeps_its_outcome(
    base: Pod, verdict: str, cause: str | None, event_type: str
) -> None:
    seen = observation.observe(pod(base, phase="Failed", **ENDED_FIRST), event_type)
    assert (seen.verdict, seen.cause) == (verdict, cause)


@pytest.mark.parametrize(
    ("deleted", "grace", "verdict"),
    [
        ("2030-01-01T12:05:20Z", 30, "failed"),  # requested at 12:04:50, the base ended ten seconds later
        ("2030-01-01T12:05:40Z", 30, "succeeded"),  # requested at 12:05:10
        ("2030-01-01T12:04:50Z", 0, "failed"),  # the first one, once the kubelet has confirmed the end
        ("2030-01-01T12:05:30Z", 30, "failed"),  # in the same second: an end by TERM is quick
        ("2030-01-01T12:05:01Z", 0, "succeeded"),
        ("2030-01-01T13:05:01+01:00", 0, "succeeded"),
        ("2030-01-01T12:05:00.500000Z", 0, "succeeded"),
    ],
)
def test_deletion_is_requested_its_grace_period_before_its_timestamp(deleted: str, grace: int, verdict: str) -> None:
    assert verdict_of(pod(ended(0), deleted=deleted, grace=grace)) == verdict


@pytest.mark.parametrize("deleted", ["nonsense", "0001-01-01T00:00:00Z", "9999-99-99", 5, {"a": 1}])
def test_an_end_whose_order_is_unknown_counts_as_one_after_the_deletion(deleted: Any) -> None:
    document = pod(ended(0))
    document["metadata"] |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": 10**12}
    assert verdict_of(document) == "failed"
    assert verdict_of(pod(ended(0, at=None), **ENDED_FIRST)) == "failed"
    assert verdict_of(pod(ended(0, message="done", at=None), **ENDED_FIRST)) == "succeeded"


def test_the_measured_story_of_a_deleted_pod_that_exits_0_on_term() -> None:
    """As a real kubelet tells it: the timestamp moves back to the request once the end is confirmed."""
    request, grace_end = "2030-01-01T12:04:58Z", "2030-01-01T12:05:28Z"
    story = [
        (pod(running(), deleted=grace_end, grace=30), "MODIFIED", "running"),
        (pod(ended(0), phase="Succeeded", deleted=grace_end, grace=30), "MODIFIED", "failed"),
        (pod(ended(0), phase="Succeeded", deleted=request, grace=0), "MODIFIED", "failed"),
        (pod(ended(0), phase="Succeeded", deleted=request, grace=0), "DELETED", "failed"),
    ]
    assert [verdict_of(document, event) for document, event, _ in story] == [verdict for *_, verdict in story]


@pytest.mark.parametrize(
    "reason",
    [
        "Evicted", "Preempting", "NodeShutdown", "NodeLost", "DisruptionTarget", "TerminationByKubelet", "PodDeleted",
        "UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfnvidia.com/gpu", "NodeAffinity",
    ],
)  # fmt: skip
@pytest.mark.parametrize("base", [None, ended(137), ended(1), running(), ended(137, "OOMKilled")])
def test_the_pods_own_reason_of_infrastructure_wins(reason: str, base: Pod | None) -> None:
    seen = observation.observe(pod(base, phase="Failed", reason=reason, message="why"))
    assert (seen.verdict, seen.reason, seen.message, seen.cause) == ("failed", reason, "why", "infrastructure")


@pytest.mark.parametrize("reason", ["OOMKilled", "Error", "ContainerCannotRun", "StartError", "DeadlineExceeded"])
def test_a_containers_own_reason_is_the_applications(reason: str) -> None:
    seen = observation.observe(pod(ended(137, reason, "why"), phase="Failed"))
    assert (seen.reason, seen.message, seen.cause, seen.container, seen.exit_code) == (
        reason, "why", "application", "base", 137,
    )  # fmt: skip


def test_a_deadline_of_the_pod_is_the_applications() -> None:
    """The kubelet kills the container, so that alone would look like any kill."""
    document = pod(ended(137), phase="Failed", reason="DeadlineExceeded", message="Pod was active too long")
    seen = observation.observe(document)
    assert (seen.reason, seen.cause, seen.exit_code) == ("DeadlineExceeded", "application", 137)
    assert observation.observe(pod(phase="Failed", reason="DeadlineExceeded")).cause == "application"


@pytest.mark.parametrize("base", [ended(1), ended(137), None])
def test_a_disruption_that_was_announced_is_infrastructure(base: Pod | None) -> None:
    seen = observation.observe(pod(base, phase="Failed", conditions=[DISRUPTED]))
    assert (seen.reason, seen.cause) == ("PreemptionByScheduler", "infrastructure")


def test_a_disruption_that_did_not_come_is_none() -> None:
    averted = {**DISRUPTED, "status": "False"}
    assert observation.observe(pod(ended(1), phase="Failed", conditions=[averted])).cause == "application"


@pytest.mark.parametrize(
    "message",
    [
        "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating",
        'failed to pull image "registry.example/i:1": unexpected status: 429 Too Many Requests',
        "rpc error: code = Unknown desc = pull access: Rate exceeded",
        "dial tcp 10.0.0.1:443: i/o timeout",
        "unexpected status from HEAD request: 503 Service Unavailable",
    ],
)
def test_a_registry_that_does_not_serve_is_infrastructure(message: str) -> None:
    assert observation.observe(pod(waiting("ErrImagePull", message), phase="Pending")).cause == "infrastructure"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", 'failed to resolve reference "registry.example/i:1": not found'),
        ("ErrImagePull", "pull access denied, repository does not exist or may require authorization"),
        ("ErrImagePull", None),
        ("CreateContainerConfigError", 'secret "database" not found'),
        ("CreateContainerConfigError", 'couldn\'t find key url in Secret default/database'),
        ("InvalidImageName", "couldn't parse image reference"),
    ],
)  # fmt: skip
def test_a_missing_image_or_secret_is_the_applications(reason: str, message: str | None) -> None:
    assert observation.observe(pod(waiting(reason, message), phase="Pending")).cause == "application"


def test_an_image_whose_name_sounds_like_trouble_is_none() -> None:
    document = pod(waiting("ErrImagePull", "registry.example/rate-limit: not found"), phase="Pending")
    document["status"]["containerStatuses"][0]["image"] = "registry.example/rate-limit"
    assert observation.observe(document).cause == "application"


@pytest.mark.parametrize(
    "document",
    [
        pod(phase="Failed"),
        pod(phase="Failed", reason="Mystery"),
        pod(running(), phase="Failed"),
        pod(phase="Failed", sidecar=ended(1)),
        pod({"terminated": {}}, phase="Failed"),
    ],
)
def test_a_failure_that_nothing_explains_is_unknown(document: Pod) -> None:
    assert (verdict_of(document), observation.observe(document).cause) == ("failed", "unknown")


@pytest.mark.parametrize("reason", [None, "Mystery"])
def test_an_exit_code_alone_is_the_applications(reason: str | None) -> None:
    base = {"terminated": {"exitCode": 3, **({"reason": reason} if reason else {})}}
    seen = observation.observe(pod(base, phase="Failed"))
    assert (seen.reason, seen.exit_code, seen.cause) == (reason, 3, "application")


def test_an_init_container_that_failed_is_named() -> None:
    document = pod(waiting("PodInitializing"), phase="Failed", init=ended(128, "StartError", "exec: not found"))
    seen = observation.observe(document)
    assert (seen.container, seen.reason, seen.message, seen.exit_code, seen.cause) == (
        "init", "StartError", "exec: not found", 128, "application",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("init", "cause"), [(ended(1), "application"), (ended(143), "infrastructure"), (ended(137), "infrastructure")]
)
def test_an_init_container_that_deletion_ended_is_no_failure_of_the_author(init: Pod, cause: str) -> None:
    document = pod(waiting("PodInitializing"), phase="Failed", init=init, **REQUESTED_FIRST)
    assert observation.observe(document, "DELETED").cause == cause


def test_a_success_tells_all_that_is_known() -> None:
    assert observation.observe(pod(ended(0, message='{"v": 1}'), phase="Succeeded")) == observation.Observation(
        verdict="succeeded",
        reason="Completed",
        message='{"v": 1}',
        container="base",
        exit_code=0,
        outcome='{"v": 1}',
        node="n1",
        started_at=T("00"),
        ended_at=T("05"),
    )


def test_the_outcome_is_there_where_another_reason_wins() -> None:
    """The pod's reason explains, the container's message may still hold the outcome."""
    document = pod(ended(143, message='{"v": 1}'), phase="Failed", reason="Evicted", message="low on memory")
    seen = observation.observe(document)
    assert (seen.reason, seen.message, seen.outcome) == ("Evicted", "low on memory", '{"v": 1}')


def test_a_container_that_never_started_has_no_time_of_start() -> None:
    """The kubelet writes the zero of the clock."""
    document = pod(ended(128, "StartError"), phase="Failed")
    document["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"
    assert observation.observe(document).started_at is None


def test_times_may_be_objects() -> None:
    """Some clients read them so."""
    document = pod(ended(0), phase="Succeeded")
    document["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = datetime(
        2030, 1, 1, 12, 5, tzinfo=UTC
    )
    document["metadata"]["deletionTimestamp"] = datetime(2030, 1, 1, 12, 6, tzinfo=UTC)
    assert verdict_of(document) == "succeeded"


@pytest.mark.parametrize("event_type", ["BOOKMARK", "ERROR"])
@pytest.mark.parametrize("document", [pod(ended(0)), pod(phase="Failed"), pod(running(), deleted=T("30"))])
def test_a_bookmark_or_an_error_says_nothing_of_a_pod(document: Pod, event_type: str) -> None:
    assert observation.observe(document, event_type) == observation.Observation(verdict="none")


def test_the_pod_stays_as_it_is() -> None:
    document = pod(ended(1), phase="Failed", conditions=[DISRUPTED], **REQUESTED_FIRST)
    before = copy.deepcopy(document)
    observation.observe(document)
    assert document == before


STRANGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.datetimes()
    | st.sampled_from(
        [T("05"), "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "Pending", "Failed", "base", "True"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=fields) | STRANGE


TERMINATED = maybe(
    exitCode=st.sampled_from([0, 1, 137, 143]) | STRANGE, finishedAt=STRANGE, reason=STRANGE, message=STRANGE
)
STATUS = maybe(
    name=st.just("base") | STRANGE,
    image=STRANGE,
    state=maybe(terminated=TERMINATED, running=STRANGE, waiting=maybe(reason=st.just("ErrImagePull"), message=STRANGE)),
)
STATUSES = st.lists(STATUS, max_size=3) | STRANGE
PODS = maybe(
    metadata=maybe(deletionTimestamp=STRANGE, deletionGracePeriodSeconds=STRANGE),
    spec=maybe(nodeName=STRANGE),
    status=maybe(
        phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]) | STRANGE,
        reason=STRANGE,
        message=STRANGE,
        containerStatuses=STATUSES,
        initContainerStatuses=STATUSES,
        conditions=st.lists(maybe(type=st.just("DisruptionTarget"), status=st.just("True"), reason=STRANGE)) | STRANGE,
    ),
)


@given(PODS, st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]) | STRANGE)
def test_nothing_raises(document: Any, event_type: Any) -> None:
    """And every observation is one that its readers can use: known words, a cause exactly with a failure."""
    seen = observation.observe(document, event_type)
    assert seen.verdict in {"none", "running", "succeeded", "failed", "gone"}
    assert (seen.verdict == "failed") == (seen.cause in {"application", "infrastructure", "unknown"})
    assert seen.cause is None or seen.verdict == "failed"
    texts = (seen.reason, seen.message, seen.container, seen.outcome, seen.node, seen.started_at, seen.ended_at)
    assert all(text is None or isinstance(text, str) for text in texts)
    assert seen.exit_code is None or isinstance(seen.exit_code, int)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi", "infrastructure"),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", "application"),
        ('Container base exceeded its local ephemeral storage limit "1Gi". ', "application"),
        ('Usage of EmptyDir volume "work" exceeds the limit "1Gi". ', "application"),
    ],
)
def test_P5_an_own_limit_of_storage_is_the_applications(message: str, cause: str) -> None:
    """Kubernetes says Evicted of both, and announces both as a disruption: only the words differ."""
    announced = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message}
    document = pod(ended(137, "Error"), phase="Failed", reason="Evicted", message=message, conditions=[announced])
    assert observation.observe(document).cause == cause


def test_who_was_killed_for_its_memory_tells_what_it_had() -> None:
    """As the API server keeps it, defaults of the namespace included; of another reason it is not told."""
    document = pod(ended(137, "OOMKilled"), phase="Failed")
    resources = {"requests": {"memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    document["spec"]["containers"] = [{"name": "sidecar"}, {"name": "base", "resources": resources}]
    assert observation.observe(document).memory == pod_view.Memory(request="128Mi", limit="512Mi")
    document["status"]["containerStatuses"][0]["state"] = ended(137, "Error")
    assert observation.observe(document).memory == pod_view.NO_MEMORY
