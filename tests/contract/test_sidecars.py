"""Native sidecars: init containers that are always restarted. They serve the others, and end after them."""

from typing import Any

from tests import parts
from tests.contract.conftest import Api, terminated

Json = dict[str, Any]
MOUNT = [{"name": "shared", "mountPath": "/shared"}]
PATIENT = "trap 'echo told; printf words > /dev/termination-log; exit 0' TERM; echo up; while :; do sleep 0.05; done"


def _sidecar(api: Api, script: str = PATIENT, *, name: str = "side", **more: Any) -> Json:
    return {
        "name": name,
        "image": api.image,
        "command": ["sh", "-c", script],
        "restartPolicy": "Always",
        "volumeMounts": MOUNT,
        **more,
    }


def _pod(api: Api, script: str, *init: Json, **spec: Any) -> Json:
    return api.create(
        script,
        base={"volumeMounts": MOUNT},
        initContainers=list(init),
        volumes=[{"name": "shared", "emptyDir": {}}],
        **spec,
    )


def _entry(pod: Json, name: str = "side") -> Json:
    entries: list[Json] = pod["status"].get("initContainerStatuses", [])
    return next((entry for entry in entries if entry["name"] == name), {})


def test_a_sidecar_is_not_waited_for_and_ends_after_the_others(api: Api) -> None:
    """The pod is over when its containers are; the sidecar is told by SIGTERM, and its words can be read."""
    pod = api.ended(_pod(api, "sleep 0.3; echo done", _sidecar(api)))
    assert pod["status"]["phase"] == "Succeeded"
    side, base = terminated(pod, "side", init=True), terminated(pod)
    assert (side["exitCode"], side["reason"], side["message"]) == (0, "Completed", "words")
    assert side["finishedAt"] >= base["finishedAt"]
    assert api.log(pod, container="side").body == "up\ntold\n"
    assert api.log(pod).body == "done\n"


def test_a_sidecar_shares_the_volumes_of_the_others(api: Api) -> None:
    """What the base container leaves in an emptyDir the sidecar can still read after its end."""
    script = "trap 'cat /shared/result; exit 0' TERM; echo ready > /shared/ready; while :; do sleep 0.05; done"
    base = "while [ ! -e /shared/ready ]; do sleep 0.05; done; echo forty-two > /shared/result"
    pod = api.ended(_pod(api, base, _sidecar(api, script)))
    assert pod["status"]["phase"] == "Succeeded"
    assert api.log(pod, container="side").body == "forty-two\n"


def test_sidecars_start_in_their_place_among_the_init_containers(api: Api) -> None:
    """An init container that follows a sidecar finds it running."""
    first = _sidecar(api, "echo side > /shared/order; exec sleep 60")
    waits = "while [ ! -e /shared/order ]; do sleep 0.05; done; echo init >> /shared/order"
    second = {"name": "init", "image": api.image, "command": ["sh", "-c", waits], "volumeMounts": MOUNT}
    pod = _pod(api, "cat /shared/order", first, second, terminationGracePeriodSeconds=1)
    assert api.ended(pod)["status"]["phase"] == "Succeeded"
    assert api.log(pod).body == "side\ninit\n"


def test_how_a_sidecar_ends_does_not_decide_the_phase(api: Api) -> None:
    """It is killed when the grace period is over, and the pod is a success nevertheless."""
    stubborn = _sidecar(api, "trap '' TERM; while :; do sleep 0.05; done")
    pod = api.ended(_pod(api, "true", stubborn, terminationGracePeriodSeconds=1))
    assert pod["status"]["phase"] == "Succeeded"
    assert terminated(pod, "side", init=True)["exitCode"] == 137


def test_a_failed_container_is_not_healed_by_a_sidecar(api: Api) -> None:
    """The base container decides."""
    pod = api.ended(_pod(api, "exit 3", _sidecar(api)))
    assert (pod["status"]["phase"], terminated(pod)["exitCode"]) == ("Failed", 3)
    assert terminated(pod, "side", init=True)["exitCode"] == 0


def test_a_pod_whose_sidecar_still_runs_is_not_over(api: Api) -> None:
    """Running, with the base container's end in its status already."""
    slow = _sidecar(api, "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.05; done")
    pod = _pod(api, "sleep 0.2", slow, terminationGracePeriodSeconds=30)

    def base_ended(now: Json) -> bool:
        entries = now["status"].get("containerStatuses", [])
        return bool(entries and "terminated" in entries[0]["state"])

    assert api.until(pod, base_ended)["status"]["phase"] == "Running"
    assert api.ended(pod)["status"]["phase"] == "Succeeded"


def test_a_sidecar_that_ends_is_started_again(api: Api) -> None:
    """At once for the first time; its restarts are counted, its former end and log can be read."""
    script = (
        "if [ -e /shared/again ]; then echo second; exec sleep 60; fi; "
        "echo first; touch /shared/again; printf gone > /dev/termination-log; exit 7"
    )
    pod = _pod(api, "sleep 60", _sidecar(api, script), terminationGracePeriodSeconds=1)
    seen = api.until(pod, lambda now: _entry(now).get("restartCount") == 1 and "running" in _entry(now)["state"])
    last = _entry(seen)["lastState"]["terminated"]
    assert (last["exitCode"], last["message"]) == (7, "gone")
    assert seen["status"]["phase"] == "Running"
    parts.eventually(lambda: api.log(pod, container="side").body == "second\n", 10)
    assert api.log(pod, container="side", previous="true").body == "first\n"


def test_a_sidecar_that_keeps_ending_is_started_later_each_time(api: Api) -> None:
    """CrashLoopBackOff is a state of the sidecar; the pod goes on, and ends without it."""
    pod = _pod(api, "while [ ! -e /shared/enough ]; do sleep 0.05; done", _sidecar(api, "exit 1"))

    def backs_off(now: Json) -> bool:
        reason: str = _entry(now).get("state", {}).get("waiting", {}).get("reason", "")
        return reason == "CrashLoopBackOff" and now["status"]["phase"] == "Running"

    assert _entry(api.until(pod, backs_off))["restartCount"] >= 1
    api.call("DELETE", f"{api.pods}/{pod['metadata']['name']}", {"gracePeriodSeconds": 1}).ok()
    parts.eventually(lambda: api.call("GET", f"{api.pods}/{pod['metadata']['name']}").code == 404, 30)


def test_a_deleted_pod_ends_its_sidecars_last(api: Api) -> None:
    """The base container is told first."""
    base = "trap 'sleep 0.3; echo base > /shared/order; exit 0' TERM; while :; do sleep 0.05; done"
    side = "trap 'cat /shared/order; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    manifest = api.manifest(base, base={"volumeMounts": MOUNT})
    manifest["metadata"]["finalizers"] = ["podyard.dev/test"]
    manifest["spec"] |= {"initContainers": [_sidecar(api, side)], "volumes": [{"name": "shared", "emptyDir": {}}]}
    pod = api.running(api.call("POST", api.pods, manifest).ok())
    parts.eventually(lambda: api.log(pod, container="side").body == "up\n", 10)
    api.call("DELETE", f"{api.pods}/{pod['metadata']['name']}").ok()
    ended = api.until(pod, lambda now: "terminated" in _entry(now)["state"])
    assert terminated(ended, "side", init=True)["exitCode"] == 0
    assert api.log(pod, container="side").body == "up\nbase\n"


def test_a_failed_init_container_ends_the_sidecars_before_it(api: Api) -> None:
    """Nothing runs on in a pod that failed."""
    failing = {"name": "init", "image": api.image, "command": ["sh", "-c", "exit 5"]}
    pod = api.ended(_pod(api, "true", _sidecar(api), failing))
    assert pod["status"]["phase"] == "Failed"
    assert "terminated" in _entry(pod)["state"]


def test_only_init_containers_can_be_sidecars(local: Api) -> None:
    """`restartPolicy: Always` on a container is refused, with the reason."""
    answer = local.call("POST", local.pods, local.manifest("true", base={"restartPolicy": "Always"}))
    assert answer.code == 422
    assert answer.body["details"]["causes"][0]["field"] == "spec.containers[0].restartPolicy"
