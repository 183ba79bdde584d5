"""The program kubectl, as people use it."""

import json
import subprocess
import time
from typing import Any

import pytest

from tests import parts
from tests.contract.conftest import Api

pytestmark = pytest.mark.kubectl


def kubectl(api: Api, *words: str, stdin: str | None = None, code: int = 0) -> str:
    """What kubectl prints; its own failure is shown."""
    command = ["kubectl", "--kubeconfig", str(api.kubeconfig), "-n", api.namespace, *words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_get_pods_shows_the_usual_columns(api: Api) -> None:
    """Table, wide, names, JSON and YAML."""
    good, bad = api.create("true"), api.create("exit 1")
    api.ended(good), api.ended(bad)
    rows = [line.split() for line in kubectl(api, "get", "pods", "-l", api.selector).splitlines()]
    assert rows[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [row[:4] for row in rows[1:]] == [
        [good["metadata"]["name"], "0/1", "Completed", "0"],
        [bad["metadata"]["name"], "0/1", "Error", "0"],
    ]
    wide = kubectl(api, "get", "pods", "-o", "wide", "-l", api.selector).splitlines()[0].split()
    assert {"IP", "NODE"} <= set(wide)
    listed = json.loads(kubectl(api, "get", "pods", "-o", "json", "-l", api.selector))
    assert len(listed["items"]) == 2
    assert "kind: Pod" in kubectl(api, "get", "pod", good["metadata"]["name"], "-o", "yaml")
    names = kubectl(api, "get", "po", "-o", "name", "-l", api.selector).split()
    assert names == [f"pod/{pod['metadata']['name']}" for pod in (good, bad)]


def test_get_pods_can_be_watched(api: Api) -> None:
    """`get pods -w` prints a line per change."""
    command = ["kubectl", "--kubeconfig", str(api.kubeconfig), "-n", api.namespace, "get", "pods", "-w"]
    watcher = subprocess.Popen([*command, "-l", api.selector], stdout=subprocess.PIPE, text=True)
    try:
        pod = api.create("sleep 1")
        assert watcher.stdout is not None
        seen, began = "", time.monotonic()
        while "Completed" not in seen and time.monotonic() - began < 60:
            seen += watcher.stdout.readline()
    finally:
        watcher.kill()
        watcher.wait(10)
        if watcher.stdout:
            watcher.stdout.close()
    assert pod["metadata"]["name"] in seen
    assert "Running" in seen


def test_describe_tells_state_and_events(api: Api) -> None:
    """What people look at first."""
    pod = api.ended(api.create("exit 3"))

    def told() -> Any:
        said = kubectl(api, "describe", "pod", pod["metadata"]["name"])
        return said if "Started" in said else None

    said = parts.eventually(told, 30)
    assert "Exit Code:    3" in said
    assert "Successfully assigned" in said


def test_logs_are_read_and_followed(api: Api) -> None:
    """`logs`, `logs --tail`, `logs -f`."""
    pod = api.create("echo one; sleep 1; echo two")
    api.running(pod)
    name = pod["metadata"]["name"]
    assert kubectl(api, "logs", "-f", name) == "one\ntwo\n"
    assert kubectl(api, "logs", "--tail=1", name) == "two\n"
    assert "not valid for pod" in kubectl(api, "logs", name, "-c", "nobody", code=1)


def test_pods_are_applied_changed_and_deleted(api: Api) -> None:
    """create, apply (twice), label, annotate, wait, delete."""
    manifest = api.manifest("sleep 30")
    name = manifest["metadata"]["name"]
    assert "created" in kubectl(api, "apply", "-f", "-", stdin=json.dumps(manifest))
    assert "unchanged" in kubectl(api, "apply", "-f", "-", stdin=json.dumps(manifest))
    assert "labeled" in kubectl(api, "label", "pod", name, "color=red")
    assert "annotated" in kubectl(api, "annotate", "pod", name, "note=a b")
    kubectl(api, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    assert "deleted" in kubectl(api, "delete", "pod", name, "--grace-period=1")
    assert "NotFound" in kubectl(api, "get", "pod", name, code=1)


def test_run_and_config_commands_work(api: Api) -> None:
    """`run`, a ConfigMap from a file, `get events|nodes`."""
    name = api.name()
    words = ("--image", api.image, "--restart=Never", "--labels", api.selector, "--command", "--", "echo", "hi")
    kubectl(api, "run", name, *words)
    parts.eventually(lambda: kubectl(api, "logs", name) == "hi\n" if _ended(api, name) else False, 60)
    kubectl(api, "create", "configmap", name, "--from-literal=a=b")
    assert kubectl(api, "get", "configmap", name, "-o", "jsonpath={.data.a}") == "b"
    kubectl(api, "delete", "configmap", name)
    assert kubectl(api, "get", "nodes").splitlines()[0].split()[:2] == ["NAME", "STATUS"]
    assert "pod/" in kubectl(api, "get", "events")


def test_secrets_are_created_from_arguments(api: Api) -> None:
    """kubectl sends protobuf for these."""
    name = api.name()
    assert "created" in kubectl(api, "create", "secret", "generic", name, "--from-literal=a=b")
    assert kubectl(api, "get", "secret", name, "-o", "jsonpath={.data.a}") == "Yg=="
    kubectl(api, "delete", "secret", name)


def test_a_user_asks_what_may_be_done(api: Api) -> None:
    """`auth can-i`."""
    assert kubectl(api, "auth", "can-i", "create", "pods").strip() == "yes"


def test_a_misspelt_field_is_refused(api: Api) -> None:
    """kubectl is strict by default."""
    manifest = api.manifest("true", restartpolicy="Never")
    said = kubectl(api, "create", "-f", "-", stdin=json.dumps(manifest), code=1)
    assert 'unknown field "spec.restartpolicy"' in said


def test_dry_runs_change_nothing(api: Api) -> None:
    """create, label and delete with `--dry-run=server`."""
    manifest = json.dumps(api.manifest("sleep 5", name=(name := api.name())))
    assert "server dry run" in kubectl(api, "create", "--dry-run=server", "-f", "-", stdin=manifest)
    assert "NotFound" in kubectl(api, "get", "pod", name, code=1)
    kubectl(api, "create", "-f", "-", stdin=manifest)
    assert "server dry run" in kubectl(api, "label", "pod", name, "a=b", "--dry-run=server")
    assert "server dry run" in kubectl(api, "delete", "pod", name, "--dry-run=server")
    assert kubectl(api, "get", "pod", name, "-o", "jsonpath={.metadata.labels.a}{.metadata.deletionTimestamp}") == ""


def _ended(api: Api, name: str) -> bool:
    phase: str = api.call("GET", f"{api.pods}/{name}").ok()["status"]["phase"]
    return phase == "Succeeded"


def test_a_refusal_is_readable(api: Api) -> None:
    """kubectl repeats our words."""
    manifest = api.manifest("true")
    manifest["spec"]["containers"].append(manifest["spec"]["containers"][0])
    said = kubectl(api, "create", "-f", "-", stdin=json.dumps(manifest), code=1)
    assert 'spec.containers[1].name: Duplicate value: "base"' in said
