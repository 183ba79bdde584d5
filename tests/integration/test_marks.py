"""The mark on a pod that is kept: it is put on that very pod, or on none."""

import asyncio

from dispatcher import options
from dispatcher.background import Background
from dispatcher.finishing import cleanup
from dispatcher.kubeapi import client, server_access
from dispatcher.localcluster.client import Client
from dispatcher.localcluster.faults import client as fault_client
from dispatcher.manifests import container_pod_options
from tests import parts

PODS = "/api/v1/namespaces/default/pods"
OPTIONS = options.Options(profile_for=lambda queue: options.QueueProfile(), app_path="shop:app")
ENDED = cleanup.EndedPod(
    attempt_id="a",
    namespace="default",
    pod="again",
    uid="00000000-0000-0000-0000-000000000000",
    profile=options.QueueProfile(),
    is_success=True,
    options=container_pod_options.PodOptions(on_kill_action="keep_pod"),
)


def test_another_pod_of_the_same_name_is_not_marked_and_not_tried_again(own_local_cluster: parts.LocalCluster) -> None:
    """Its uid is another one: the server refuses the patch with 422, and our own pod is gone."""
    api = Client.from_kubeconfig(own_local_cluster.kubeconfig)
    faults = fault_client.Faults.of(own_local_cluster.kubeconfig)
    container = {"name": "base", "image": "x:1", "command": ["sleep", "60"]}
    pod = {"metadata": {"name": "again"}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    api.call("POST", PODS, pod)

    async def leave() -> None:
        async with client.KubeClient(server_access.connect(kubeconfig=own_local_cluster.kubeconfig)) as kube:
            cleaning = cleanup.Cleanup(kube, options=OPTIONS, background=Background())
            before = asyncio.all_tasks()
            cleaning.kill(ENDED)
            await asyncio.wait(asyncio.all_tasks() - before, timeout=30)

    asyncio.run(leave())
    assert faults.stats()["requests"]["pods"]["patch"] == 1
    assert "labels" not in api.call("GET", f"{PODS}/again")["metadata"]
