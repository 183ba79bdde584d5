"""What the local cluster does with processes and with itself: it leaves nothing behind, and tells no secret."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dispatcher.localcluster import server
from tests import parts
from tests.contract.conftest import Api, terminated

Json = dict[str, Any]
BACKGROUND = "sleep 300 & sleep 301 & echo started; wait"


def _api(cluster: parts.LocalCluster) -> Api:
    label = f"own-{os.urandom(3).hex()}"
    return Api(kubeconfig=cluster.kubeconfig, image="x:1", namespace="default", is_local=True, label=label)


def _processes(cluster: parts.LocalCluster) -> list[psutil.Process]:
    """All processes of the cluster's pods, by the mark in their environment."""
    mark = f"{cluster.home.resolve()}/pods/"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PODYARD_TERMINATION_PATH", "").startswith(mark):
                found.append(process)
    return found


@pytest.fixture
def secretive(tmp_path: Path) -> Iterator[parts.LocalCluster]:
    """A local cluster whose own environment has a secret."""
    cluster = parts.LocalCluster.start(
        tmp_path / "home", env={"MY_PASSWORD": "hunter2", "KUBERNETES_SERVICE_HOST": "x"}
    )
    yield cluster
    cluster.stop()


def test_the_environment_of_the_host_stays_outside(secretive: parts.LocalCluster) -> None:
    """A container sees what its pod declares, and a handful of names that a container has."""
    api = _api(secretive)
    pod = api.create("env", name="clean", base={"env": [{"name": "MINE", "value": "1"}]})
    api.ended(pod)
    names = {line.split("=")[0] for line in api.log(pod).body.splitlines()}
    shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert names - shell == {"HOME", "HOSTNAME", "LANG", "MINE", "PATH", "PODYARD_TERMINATION_PATH"}


def test_python_is_the_interpreter_of_the_cluster(local: Api) -> None:
    """`python` and `python3` are the one that runs the cluster, with its packages."""
    for program in ("python", "python3"):
        pod = local.create(base={"command": [program, "-c", "import sys, dispatcher; print(sys.prefix)"]})
        local.ended(pod)
        assert local.log(pod).body.strip() == sys.prefix


def test_home_and_working_folder_are_private(local: Api) -> None:
    """Two containers share no folder; nobody else may look in."""
    pod = local.create("pwd; echo $HOME; stat -c %a . 2>/dev/null || stat -f %Lp .")
    local.ended(pod)
    folder, home, mode = local.log(pod).body.split()
    assert (folder, mode) == (home, "700")
    assert pod["metadata"]["uid"] in home


def test_a_container_s_end_is_the_end_of_its_processes(local: Api) -> None:
    """What the main process started goes with it."""
    pod = local.create("sleep 300 & echo $!")
    local.ended(pod)
    child = int(local.log(pod).body)
    parts.eventually(lambda: not psutil.pid_exists(child), 10)


def test_a_deleted_pod_leaves_no_file(local: Api) -> None:
    """Its folder goes with the object."""
    pod = local.running(local.create("sleep 300"))
    folder = local.kubeconfig.parent / "pods" / pod["metadata"]["uid"]
    assert folder.is_dir()
    local.call("DELETE", f"{local.pods}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0}).ok()
    parts.eventually(lambda: not folder.exists(), 10)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_all_pods_within_seconds(own_local_cluster: parts.LocalCluster, how: signal.Signals) -> None:
    """TERM, then KILL for who does not listen; watchers do not hold it up; the kubeconfig goes."""
    api = _api(own_local_cluster)
    stubborn = api.create("trap '' TERM; echo started; while :; do sleep 0.1; done", name="stubborn")
    kind = api.create(BACKGROUND, name="kind")
    api.running(stubborn), api.running(kind)
    events = api.events(api.pods)
    assert next(events)["type"] == "ADDED"
    watcher = threading.Thread(target=lambda: list(events), daemon=True)
    watcher.start()
    own_local_cluster.process.send_signal(how)
    assert own_local_cluster.process.wait(10) == 0
    watcher.join(5)
    assert not watcher.is_alive()
    parts.eventually(lambda: not _processes(own_local_cluster), 5)
    assert not own_local_cluster.kubeconfig.exists()


def test_a_killed_cluster_leaves_no_process(own_local_cluster: parts.LocalCluster) -> None:
    """SIGKILL: the guardian ends the pods, also a process that left its container's session."""
    api = _api(own_local_cluster)
    python = ["python", "-c", "import os,time\nif os.fork(): time.sleep(300)\nos.setsid(); time.sleep(300)"]
    api.running(api.create(name="fled", base={"command": python}))
    api.running(api.create(BACKGROUND, name="many"))
    parts.eventually(lambda: len(_processes(own_local_cluster)) >= 5, 10)
    own_local_cluster.process.kill()
    own_local_cluster.process.wait(10)
    parts.eventually(lambda: not _processes(own_local_cluster), 10)


def _is_guardian(process: psutil.Process) -> bool:
    try:
        return any(word.endswith("guardian.py") for word in process.cmdline())
    except psutil.Error:  # it ended just now
        return False


def test_the_guardian_is_guarded(own_local_cluster: parts.LocalCluster) -> None:
    """Killed, it is started again and knows all pods."""
    api = _api(own_local_cluster)
    api.running(api.create(BACKGROUND, name="many"))

    def guardians() -> list[psutil.Process]:
        return [child for child in psutil.Process(own_local_cluster.process.pid).children() if _is_guardian(child)]

    (first,) = guardians()
    first.kill()
    parts.eventually(lambda: [one.pid for one in guardians() if one.pid != first.pid], 10)
    own_local_cluster.process.kill()
    own_local_cluster.process.wait(10)
    parts.eventually(lambda: not _processes(own_local_cluster), 10)


def test_a_second_cluster_in_the_same_home_is_told_of_the_first(own_local_cluster: parts.LocalCluster) -> None:
    """One home, one cluster; the first is not disturbed."""
    command = [sys.executable, "-m", "dispatcher.localcluster", "--home", str(own_local_cluster.home)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert f"already runs in {own_local_cluster.home} (process {own_local_cluster.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr
    assert _api(own_local_cluster).call("GET", "/version").code == 200


def test_a_port_in_use_is_said(own_local_cluster: parts.LocalCluster, tmp_path: Path) -> None:
    """With the way out."""
    port = _api(own_local_cluster).host.rpartition(":")[2]
    command = [sys.executable, "-m", "dispatcher.localcluster", "--home", str(tmp_path / "other"), "--port", port]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_new_life_has_the_old_address_and_no_old_version(own_local_cluster: parts.LocalCluster) -> None:
    """A client that read the kubeconfig goes on; versions of the old life are 410, not another history."""
    api = _api(own_local_cluster)
    version = api.create("true", name="old")["metadata"]["resourceVersion"]
    own_local_cluster.process.kill()
    own_local_cluster.process.wait(10)
    again = parts.LocalCluster.start(own_local_cluster.home)
    try:
        assert api.call("GET", api.pods).ok()["items"] == []
        event = next(api.events(api.pods, resourceVersion=version))
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    finally:
        again.stop()


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Api]:
    """A local cluster that runs one pod at once."""
    cluster = parts.LocalCluster.start(tmp_path / "home", "--max-pods", "1", "--hold")
    yield _api(cluster)
    cluster.stop()


def test_a_full_node_makes_pods_wait_with_a_reason(narrow: Api) -> None:
    """Too many pods: Unschedulable, until there is room."""
    first = narrow.running(narrow.create(name="first"))
    second = narrow.create(name="second")
    seen = narrow.until(second, lambda now: now["status"].get("conditions"))
    assert "Too many pods" in seen["status"]["conditions"][0]["message"]
    narrow.call("DELETE", f"{narrow.pods}/{first['metadata']['name']}").ok()
    narrow.running(second)


@pytest.fixture
def pretending(tmp_path: Path) -> Iterator[Api]:
    """A local cluster whose pods last half a second, without a process."""
    cluster = parts.LocalCluster.start(tmp_path / "home", "--instant", "--lasts", "0.5", "--message", "done")
    yield _api(cluster)
    cluster.stop()


def test_pods_without_processes_can_last_a_while(pretending: Api) -> None:
    """Running, then Succeeded with their message; one that is deleted before has none."""
    first, second = pretending.create(name="first"), pretending.create(name="second")
    pretending.running(first), pretending.running(second)
    pretending.call("DELETE", f"{pretending.pods}/second").ok()
    ended = terminated(pretending.ended(first))
    assert (ended["exitCode"], ended["message"]) == (0, "done")
    parts.eventually(lambda: pretending.call("GET", f"{pretending.pods}/second").code == 404, 10)


def test_a_test_can_have_a_cluster_inside_its_own_process(tmp_path: Path) -> None:
    """The async context manager: ready when entered, gone when left."""

    async def visit() -> tuple[str, bool]:
        options = server.ClusterOptions(home=tmp_path / "home", runtime="hold")
        async with server.LocalCluster(options) as cluster:
            there = cluster.kubeconfig.exists()
            answer = await asyncio.to_thread(_version_at, cluster.kubeconfig)
        return answer, there and not cluster.kubeconfig.exists()

    assert asyncio.run(visit()) == ("1", True)


def _version_at(kubeconfig: Path) -> str:
    api = Api(kubeconfig=kubeconfig, image="x", namespace="default", is_local=True)
    major: str = api.call("GET", "/version").ok()["major"]
    return major


def test_pods_find_the_interpreter_that_the_cluster_was_told(tmp_path: Path) -> None:
    """`--python`: pods whose image would hold another environment than the cluster's own."""
    folder = tmp_path / "environment" / "bin"
    folder.mkdir(parents=True)
    program = folder / "python"
    program.write_text("#!/bin/sh\necho the other interpreter\n")
    program.chmod(0o755)
    cluster = parts.LocalCluster.start(tmp_path / "home", "--python", str(program))
    try:
        api = _api(cluster)
        pod = api.create("python", name="other", base={"args": []})
        api.ended(pod)
        assert api.log(pod).body == "the other interpreter\n"
    finally:
        cluster.stop()
