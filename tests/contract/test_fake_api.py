"""The API server in memory that unit tests use answers as a server does: the same calls, the same answers."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from dispatcher import errors
from dispatcher.kubeapi import client, server_access
from dispatcher.localcluster import server
from tests.fake_api import FakeApi

BASE = {"name": "base", "image": "busybox:1.36", "command": ["true"]}
SELECTOR = "who=me"


def pod(name: str, **labels: str) -> bytes:
    spec = {"restartPolicy": "Never", "containers": [BASE]}
    metadata = {"name": name, "labels": labels}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).encode()


def told(answer: Any) -> Any:
    """What of an answer is the same on every server: names, labels and data; not versions and uids."""
    if isinstance(answer, client.PodList):
        return sorted(told(one)["name"] for one in answer.pods)
    if isinstance(answer, Mapping) and "metadata" in answer:
        metadata = answer["metadata"]
        return {
            "name": metadata["name"],
            "labels": metadata.get("labels"),
            "data": answer.get("data"),
            "has": sorted({"uid", "resourceVersion", "creationTimestamp", "namespace"} & set(metadata)),
        }
    return answer


async def story(api: client.KubeClient | FakeApi) -> list[Any]:
    """What each of a series of calls gave, or raised."""
    seen: list[Any] = []

    async def do(call: Awaitable[Any]) -> Any:
        try:
            answer = await call
        except errors.ApiError as error:
            seen.append((error.status, error.reason, error.message))
            return None
        seen.append(told(answer))
        return answer

    since = (await api.list_pods("default", selector=SELECTOR)).resource_version
    await do(api.create_pod("default", pod("dry", who="me"), dry_run=True))
    first = await do(api.create_pod("default", pod("a", who="me")))
    await do(api.create_pod("default", pod("a", who="me")))
    await do(api.create_pod("default", pod("b", who="you")))
    await do(api.list_pods("default", selector=SELECTOR))
    await do(api.list_pods(None, selector="who in (me, you)"))
    await do(api.read_pod("default", "nobody"))
    await do(api.patch_pod("default", "a", {"metadata": {"labels": {"more": "x"}}}))
    stale = {"resourceVersion": first["metadata"]["resourceVersion"]}
    await do(api.patch_pod("default", "a", {"metadata": stale | {"labels": {"more": "y"}}}))
    await do(api.patch_pod("default", "nobody", {"metadata": {"labels": {"more": "y"}}}))
    await do(api.patch_pod("default", "a", {"metadata": {"labels": {"more": None}}}))
    await do(api.delete_unchanged(first))
    await do(api.delete_pod("default", "a", uid="another"))
    await do(api.read_pod("default", "a"))
    await do(api.delete_pod("default", "a", uid=first["metadata"]["uid"], grace_s=0))
    await do(api.delete_pod("default", "a", uid=None))
    await do(api.delete_unchanged(first))
    await do(api.list_pods("default", selector=SELECTOR))

    watch = api.watch_pods("default", selector=SELECTOR, resource_version=since, silence_s=5)
    async for event in watch:
        meta = event["object"]["metadata"]
        if event["type"] != "BOOKMARK" and not (event["type"] == "MODIFIED" and "more" not in meta["labels"]):
            seen.append((event["type"], meta["name"], meta["labels"], "deletionTimestamp" in meta))
        if event["type"] == "DELETED":
            break

    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    made = await do(api.create_config_map("default", settings))
    await do(api.create_config_map("default", settings))
    await do(api.read_config_map("default", "d"))
    same = {"resourceVersion": made["metadata"]["resourceVersion"]}
    await do(api.patch_config_map("default", "c", {"metadata": same, "data": {"b": "2"}}))
    await do(api.patch_config_map("default", "c", {"metadata": same, "data": {"b": "3"}}))
    await do(api.read_config_map("default", "c"))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "default"},
        "data": {"k": "dg=="},
    }
    await do(api.put_secret(secret))
    await do(api.put_secret(secret | {"data": {"more": "dg=="}}))
    await do(api.read_secret("default", "s"))
    await do(api.read_secret("default", "t"))
    await do(api.list_events("default", uid="nobody"))
    await do(api.read_log("default", "nobody"))
    await do(api.may("create", "pods", namespace="default"))
    return seen


async def at_the_local_cluster(home: Path, test: Callable[[client.KubeClient], Awaitable[list[Any]]]) -> list[Any]:
    async with server.LocalCluster(server.ClusterOptions(home=home, runtime="hold", bookmark_s=0.2)) as cluster:
        access = await asyncio.to_thread(server_access.connect, kubeconfig=cluster.kubeconfig)
        async with client.KubeClient(access) as api:
            return await test(api)


def test_the_fake_answers_as_a_server_does(tmp_path: Path) -> None:
    """Answers, refusals with their words, and what a watch tells."""
    real = asyncio.run(at_the_local_cluster(tmp_path / "home", story))
    fake = asyncio.run(story(FakeApi()))
    assert [pair for pair in zip(fake, real, strict=True) if pair[0] != pair[1]] == []
