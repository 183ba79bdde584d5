"""What pods do: exit codes, messages, environment, volumes, deadlines; and how their status tells it."""

import base64
from typing import Any

import pytest

from tests import parts
from tests.contract.conftest import Api, terminated, waiting

Json = dict[str, Any]


def _conditions(pod: Json) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in pod["status"]["conditions"]}


def test_exit_zero_is_succeeded(api: Api) -> None:
    """Phase, container state and conditions of a good end."""
    pod = api.ended(api.create("true"))
    status, ended = pod["status"], terminated(pod)
    assert status["phase"] == "Succeeded"
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert ended["startedAt"] <= ended["finishedAt"]
    assert _conditions(pod)["Ready"] == "False"
    assert _conditions(pod)["PodScheduled"] == "True"
    assert {"reason", "message"} & set(status) == set()
    assert status["hostIP"]
    assert status["startTime"]
    assert pod["spec"]["nodeName"]


def test_another_exit_code_is_failed(api: Api) -> None:
    """Failed, with the code and reason Error; the pod itself has no reason."""
    pod = api.ended(api.create("exit 3"))
    ended = terminated(pod)
    assert (pod["status"]["phase"], ended["exitCode"], ended["reason"]) == ("Failed", 3, "Error")
    assert "reason" not in pod["status"]


def test_a_signal_is_128_and_its_number(api: Api) -> None:
    """A process that is killed inside of its container, whose main process says how it ended."""
    pod = api.ended(api.create("sh -c 'kill -9 $$$$'; exit $?"))
    assert (pod["status"]["phase"], terminated(pod)["exitCode"]) == ("Failed", 137)


def test_a_main_process_can_kill_itself_where_it_is_not_process_1(api: Api) -> None:
    """In a real container it is: the kernel ignores the signal, and the shell ends well. Here it is not."""
    pod = api.ended(api.create("kill -9 $$$$"))
    assert terminated(pod)["exitCode"] == (137 if api.is_local else 0)


def test_a_running_pod_is_ready(api: Api) -> None:
    """Without probes a running container is ready."""
    pod = api.running(api.create("sleep 30"))
    entry = pod["status"]["containerStatuses"][0]
    assert entry["ready"]
    assert entry["restartCount"] == 0
    assert entry["state"]["running"]["startedAt"]
    assert _conditions(pod)["Ready"] == "True"
    assert pod["status"]["podIP"]


def test_a_command_that_is_not_found_is_a_start_error(api: Api) -> None:
    """128, StartError, and a start time of 1970."""
    pod = api.ended(api.create(base={"command": ["/no/such/program"]}))
    ended = terminated(pod)
    assert (pod["status"]["phase"], ended["exitCode"], ended["reason"]) == ("Failed", 128, "StartError")
    assert ended["startedAt"].startswith("1970-01-01")
    assert "/no/such/program" in ended["message"]


def test_a_container_without_a_command_says_what_to_write(local: Api) -> None:
    """No image is pulled, so its entrypoint is unknown."""
    manifest = local.manifest()
    del manifest["spec"]["containers"][0]["command"]
    pod = local.ended(local.call("POST", local.pods, manifest).ok())
    ended = terminated(pod)
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "say `command`" in ended["message"]


def test_the_termination_message_is_read_from_its_file(api: Api) -> None:
    """What the container wrote to /dev/termination-log; the path is rewritten where there are no mount points."""
    pod = api.ended(api.create("printf 'all is well' > /dev/termination-log"))
    assert terminated(pod)["message"] == "all is well"


def test_another_termination_path_works(api: Api) -> None:
    """`terminationMessagePath` is the container's choice."""
    base = {"terminationMessagePath": "/tmp/last-words"}
    pod = api.ended(api.create("printf words > /tmp/last-words; exit 1", base=base))
    assert terminated(pod)["message"] == "words"


def test_a_termination_message_has_at_most_4096_bytes(api: Api) -> None:
    """More is cut."""
    pod = api.ended(
        api.create("i=0; while [ $i -lt 600 ]; do printf 0123456789; i=$((i+1)); done > /dev/termination-log")
    )
    assert len(terminated(pod)["message"]) == 4096


def test_the_log_stands_in_for_the_message_after_an_error(api: Api) -> None:
    """FallbackToLogsOnError; not after a success, and not where a message was left."""
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    failed = api.create("echo first; echo last; exit 1", base=policy)
    good = api.create("echo fine", base=policy)
    said = api.create("echo log; printf file > /dev/termination-log; exit 1", base=policy)
    assert terminated(api.ended(failed))["message"].endswith("last\n")
    assert "message" not in terminated(api.ended(good))
    assert terminated(api.ended(said))["message"] == "file"


def test_a_deadline_ends_the_pod(api: Api) -> None:
    """Failed, reason DeadlineExceeded on the pod itself."""
    pod = api.ended(api.create("sleep 60", activeDeadlineSeconds=1, terminationGracePeriodSeconds=1))
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")
    assert terminated(pod)["exitCode"] in {137, 143}
    assert "deletionTimestamp" not in pod["metadata"]


def test_several_containers_end_each_for_itself(api: Api) -> None:
    """The pod ends with the last of them, and fails if one failed."""
    manifest = api.manifest("sleep 0.4")
    manifest["spec"]["containers"].append({"name": "side", "image": api.image, "command": ["sh", "-c", "exit 4"]})
    pod = api.ended(api.call("POST", api.pods, manifest).ok())
    assert pod["status"]["phase"] == "Failed"
    assert (terminated(pod)["exitCode"], terminated(pod, "side")["exitCode"]) == (0, 4)


def test_init_containers_run_first_in_their_order(api: Api) -> None:
    """They share volumes with the container that follows."""
    mount = [{"name": "shared", "mountPath": "/shared"}]
    init = [
        {"name": f"init-{index}", "image": api.image, "volumeMounts": mount}
        | {"command": ["sh", "-c", f"echo {index} >> /shared/order"]}
        for index in range(2)
    ]
    volumes = [{"name": "shared", "emptyDir": {}}]
    pod = api.create("cat /shared/order", base={"volumeMounts": mount}, initContainers=init, volumes=volumes)
    ended = api.ended(pod)
    assert ended["status"]["phase"] == "Succeeded"
    assert terminated(ended, "init-1", init=True)["reason"] == "Completed"
    assert api.log(pod).body == "0\n1\n"


def test_a_failed_init_container_fails_the_pod(api: Api) -> None:
    """What follows never starts."""
    init = [{"name": "init", "image": api.image, "command": ["sh", "-c", "exit 5"]}]
    pod = api.ended(api.create("true", initContainers=init))
    assert pod["status"]["phase"] == "Failed"
    assert terminated(pod, "init", init=True)["exitCode"] == 5
    assert waiting(pod)["reason"] == "PodInitializing"
    assert _conditions(pod)["Initialized"] == "False"


def test_the_environment_is_what_the_pod_declares(api: Api) -> None:
    """Plain values, references to each other, ConfigMaps, Secrets and the pod's own fields."""
    secret = {"password": base64.b64encode(b"p w").decode()}
    maps, secrets = api.config("configmaps", data={"color": "red", "size": "9"}), api.config("secrets", data=secret)
    manifest = api.manifest("env | sort")
    manifest["metadata"]["annotations"] = {"example.com/note": '{"a": "$(PLAIN)"}'}
    manifest["spec"]["containers"][0] |= {
        "env": [
            {"name": "PLAIN", "value": "one"},
            {"name": "COMPOSED", "value": "$(PLAIN)-two-$(NOBODY)-$$(PLAIN)"},
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": maps, "key": "color"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": secrets, "key": "password"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": secrets, "key": "none", "optional": True}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "UID_", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['example.com/note']"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "envFrom": [{"prefix": "MAP_", "configMapRef": {"name": maps}}],
    }
    pod = api.call("POST", api.pods, manifest).ok()
    ended = api.ended(pod)
    lines = dict(line.split("=", 1) for line in api.log(pod).body.splitlines() if "=" in line)
    expected = {
        "PLAIN": "one",
        "COMPOSED": "one-two-$(NOBODY)-$(PLAIN)",
        "COLOR": "red",
        "MAP_size": "9",
        "PASSWORD": "p w",
        "POD": pod["metadata"]["name"],
        "UID_": pod["metadata"]["uid"],
        "NOTE": '{"a": "$(PLAIN)"}',
        "NODE": ended["spec"]["nodeName"],
        "IP": ended["status"]["podIP"],
    }
    assert {key: lines.get(key) for key in expected} == expected
    assert "NONE" not in lines


def test_references_are_expanded_in_command_and_args(api: Api) -> None:
    """`$(NAME)` is the pod's, not the shell's."""
    base = {"command": ["echo", "$(GREETING)"], "args": ["$(WHO)", "$$(WHO)"]}
    base["env"] = [{"name": "GREETING", "value": "hello"}, {"name": "WHO", "value": "you"}]
    pod = api.create(base=base)
    api.ended(pod)
    assert api.log(pod).body == "hello you $(WHO)\n"


@pytest.mark.parametrize("plural", ["configmaps", "secrets"])
def test_a_missing_config_is_waited_for(api: Api, plural: str) -> None:
    """CreateContainerConfigError while it is missing; the pod goes on once it is there."""
    kind, ref = ("configmap", "configMapKeyRef") if plural == "configmaps" else ("secret", "secretKeyRef")
    name = api.name()
    env = [{"name": "VALUE", "valueFrom": {ref: {"name": name, "key": "key"}}}]
    pod = api.create("echo $VALUE", base={"env": env})
    seen = api.until(pod, lambda now: waiting(now).get("reason") == "CreateContainerConfigError")
    assert seen["status"]["phase"] == "Pending"
    assert waiting(seen)["message"] == f'{kind} "{name}" not found'
    if api.is_local:  # a kubelet looks again within minutes; here it is told
        data = {"key": base64.b64encode(b"found").decode() if plural == "secrets" else "found"}
        api.call("POST", api.path(plural), {"metadata": {"name": name}, "data": data}).ok()
        assert api.ended(pod)["status"]["phase"] == "Succeeded"
        assert api.log(pod).body == "found\n"


def test_volumes_are_folders_with_files(api: Api) -> None:
    """emptyDir is empty and writable; ConfigMaps and Secrets are files."""
    maps = api.config("configmaps", data={"a.txt": "alpha", "b.txt": "beta"})
    secrets = api.config("secrets", stringData={"key": "hidden"})
    mounts = [
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "map", "mountPath": "/etc/map"},
        {"name": "secret", "mountPath": "/etc/secret"},
    ]
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "map", "configMap": {"name": maps, "items": [{"key": "a.txt", "path": "deep/one"}]}},
        {"name": "secret", "secret": {"secretName": secrets}},
    ]
    script = (
        "ls /scratch | wc -l; echo x > /scratch/file; cat /scratch/file /etc/map/deep/one /etc/secret/key; ls /etc/map"
    )
    pod = api.create(script, base={"volumeMounts": mounts}, volumes=volumes)
    assert api.ended(pod)["status"]["phase"] == "Succeeded"
    assert api.log(pod).body.split() == ["0", "x", "alphahiddendeep"]


def test_a_missing_volume_source_keeps_the_pod_pending(api: Api) -> None:
    """The pod waits in ContainerCreating, and an event says why."""
    volumes = [{"name": "map", "configMap": {"name": api.name()}}]
    pod = api.create("true", base={"volumeMounts": [{"name": "map", "mountPath": "/map"}]}, volumes=volumes)

    def told() -> list[str]:
        about = f"involvedObject.uid={pod['metadata']['uid']}"
        events = api.call("GET", api.path("events"), fieldSelector=about).ok()["items"]
        return [event["message"] for event in events if event["reason"] == "FailedMount"]

    message = parts.eventually(told, 60)[0]
    assert "not found" in message
    now = api.read(pod)
    assert (now["status"]["phase"], waiting(now)["reason"]) == ("Pending", "ContainerCreating")


def test_a_volume_that_no_container_mounts_is_not_looked_at(api: Api) -> None:
    """Its source need not be there: a kubelet makes what is mounted."""
    volumes = [
        {"name": "map", "configMap": {"name": api.name()}},
        {"name": "hidden", "secret": {"secretName": api.name()}},
        {"name": "used", "emptyDir": {}},
    ]
    init = [{"name": "init", "image": api.image, "command": ["sh", "-c", "echo x > /used/x"]}]
    init[0] |= {"volumeMounts": [{"name": "used", "mountPath": "/used"}]}
    pod = api.ended(api.create("true", initContainers=init, volumes=volumes))
    assert pod["status"]["phase"] == "Succeeded"


def test_a_volume_that_the_local_cluster_does_not_have_is_said(local: Api) -> None:
    """Never left out in silence."""
    volumes = [{"name": "disk", "nfs": {"server": "10.0.0.1", "path": "/"}}]
    pod = local.create("true", base={"volumeMounts": [{"name": "disk", "mountPath": "/disk"}]}, volumes=volumes)
    told = parts.eventually(lambda: _events(local, pod, "FailedMount"), 10)
    assert "the local cluster does not have" in told[0]


def test_pods_of_the_local_cluster_share_a_claim(local: Api) -> None:
    """What one pod writes, the next one of the namespace reads; there are no claims to make before."""
    volumes = [{"name": "disk", "persistentVolumeClaim": {"claimName": local.name()}}]
    mounts = {"volumeMounts": [{"name": "disk", "mountPath": "/data"}]}
    assert (
        local.ended(local.create("echo kept > /data/x", base=mounts, volumes=volumes))["status"]["phase"] == "Succeeded"
    )
    reader = local.create("cat /data/x", base=mounts, volumes=volumes)
    local.ended(reader)
    assert local.log(reader).body == "kept\n"


def _events(api: Api, pod: Json, reason: str) -> list[str]:
    about = f"involvedObject.uid={pod['metadata']['uid']},reason={reason}"
    events = api.call("GET", api.path("events"), fieldSelector=about).ok()["items"]
    return [event["message"] for event in events]


@pytest.mark.parametrize("image", ["Not An Image", "busybox:", "busyBox"])
def test_an_impossible_image_name_is_waited_on(api: Api, image: str) -> None:
    """InvalidImageName; the pod stays Pending."""
    manifest = api.manifest("true")
    manifest["spec"]["containers"][0]["image"] = image
    pod = api.call("POST", api.pods, manifest).ok()
    seen = api.until(pod, lambda now: waiting(now).get("reason") == "InvalidImageName")
    assert seen["status"]["phase"] == "Pending"
    assert "invalid reference format" in waiting(seen)["message"]


def test_a_node_that_no_one_is_leaves_the_pod_unschedulable(api: Api) -> None:
    """PodScheduled says why; a delete needs no grace."""
    pod = api.create("true", nodeSelector={"podyard.dev/no-such-node": "true"})
    seen = api.until(pod, lambda now: now["status"].get("conditions"))
    condition = seen["status"]["conditions"][0]
    assert (condition["type"], condition["reason"]) == ("PodScheduled", "Unschedulable")
    assert "didn't match Pod's node affinity/selector" in condition["message"]
    assert api.call("DELETE", f"{api.pods}/{pod['metadata']['name']}").code == 200
    assert api.call("GET", f"{api.pods}/{pod['metadata']['name']}").code == 404


def test_resources_that_no_node_has_are_unschedulable(api: Api) -> None:
    """A GPU is not pretended."""
    limits = {"podyard.dev/no-such-device": "1"}
    pod = api.create("true", base={"resources": {"limits": limits}})
    seen = api.until(pod, lambda now: now["status"].get("conditions"))
    assert "Insufficient podyard.dev/no-such-device" in seen["status"]["conditions"][0]["message"]


def test_events_tell_the_pod_s_story(api: Api) -> None:
    """Scheduled, Pulled, Created, Started."""
    pod = api.create("true")
    api.ended(pod)
    about = f"involvedObject.uid={pod['metadata']['uid']}"

    def reasons() -> set[str]:
        return {event["reason"] for event in api.call("GET", api.path("events"), fieldSelector=about).ok()["items"]}

    parts.eventually(lambda: reasons() >= {"Scheduled", "Pulled", "Created", "Started"}, 30)


def test_what_is_not_enforced_is_said(local: Api) -> None:
    """Limits, probes, read-only mounts and mount points: in the pod's events, never in silence."""
    base = {
        "resources": {"limits": {"memory": "1Gi"}},
        "livenessProbe": {"exec": {"command": ["true"]}},
        "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True}],
    }
    pod = local.create("true", base=base, volumes=[{"name": "v", "emptyDir": {}}])
    local.ended(pod)
    (told,) = _events(local, pod, "NotIsolated")
    assert all(word in told for word in ("resources", "probes", "readOnly mounts"))
    assert "/v in base" in _events(local, pod, "MountPathRewritten")[0]
    assert "is not pulled" in _events(local, pod, "Pulled")[0]


def test_paths_are_rewritten_whole(local: Api) -> None:
    """`/v` is the volume; `/var` and an address that ends in `/v` are not."""
    base = {
        "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v/sub", "subPath": "s"}],
        "env": [{"name": "WHERE", "value": "/v:/var:http://host/v:/v/sub/x"}],
        "command": ["sh", "-c", 'echo "$WHERE"; pwd'],
        "workingDir": "/v",
    }
    pod = local.create(base=base, volumes=[{"name": "v", "emptyDir": {}}])
    local.ended(pod)
    where, folder = local.log(pod).body.splitlines()
    assert where == f"{folder}:/var:http://host/v:{folder}/s/x"
