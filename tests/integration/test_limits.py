"""Limits over several dispatchers, real ones on one local cluster: the server is asked what is in flight."""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import dispatcher
from dispatcher.attempts import status_store
from dispatcher.localcluster.faults import client
from dispatcher.manifests import labels, names
from tests import parts
from tests.integration.yard_parts import Yard, api_call, api_get, pods_database, pods_of

WAIT_S = 60
LIMIT = 6


@dataclass
class Sampler:
    """Asks the API server again and again how many pods of a yard are in flight."""

    yard: Yard
    most: int = 0
    seen: set[str] = field(default_factory=set)
    samples: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Sampler":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            pods = in_flight(self.yard)
            self.samples += 1
            self.seen |= pods.keys()
            self.most = max(self.most, len(pods))


def in_flight(yard: Yard) -> dict[str, str]:
    """Pods that have not finished, with the names of their dispatchers."""
    return {
        name: pod["metadata"]["labels"][labels.OWNER_LABEL].partition("_")[0].partition("-")[0]
        for name, pod in pods_of(yard).items()
        if pod["status"].get("phase") not in ("Succeeded", "Failed")
    }


@pytest.fixture
def yard(
    tmp_path: Path, valkey: parts.ValkeyDatabase, faulty_cluster: parts.LocalCluster, deployment: str
) -> Iterator[Yard]:
    """No dispatcher yet, a database and a cluster that takes faults."""
    with Yard(
        folder=tmp_path,
        broker=valkey.url,
        kubeconfig=faulty_cluster.kubeconfig,
        deployment=deployment,
        database=pods_database(tmp_path),
    ) as yard:
        yield yard


def all_slept(sent: Iterable[Any]) -> None:
    """All tasks have ended well."""
    for one in sent:
        assert one.get(timeout=WAIT_S) == "slept"


def test_a_limit_holds_over_two_dispatchers_also_after_one_was_killed(yard: Yard) -> None:
    """Never one pod more, both get their part; the pods of the killed one count until they end, the other goes on."""
    limits = {"YARD_MAX_PODS": str(LIMIT), "YARD_CONCURRENCY": "20"}
    one = yard.dispatcher(name="one", **limits)
    yard.dispatcher(name="two", **limits)
    with Sampler(yard) as sampler:
        sent = [yard.send("nap", 2) for _ in range(2 * LIMIT)]
        parts.eventually(lambda: set(in_flight(yard).values()) == {"one", "two"}, WAIT_S, what="both make progress")
        parts.eventually(lambda: len(in_flight(yard)) == LIMIT, WAIT_S, what="the limit is used")
        yard.kill(one)
        all_slept(sent)
    assert sampler.most == LIMIT
    assert sampler.samples > 50


def test_limits_of_a_namespace_and_of_all_queues_hold_and_are_named(yard: Yard, faults: client.Faults) -> None:
    """Two queues, two dispatchers; what waits says in the record which limit holds it, with numbers."""
    limits = {"YARD_OVERALL": "4", "YARD_MAX_PODS": "3", "YARD_IN_DEFAULT": "3", "YARD_QUEUES": "kubernetes,gpu"}
    two = [yard.dispatcher(name=name, **limits) for name in ("one", "two")]
    store = status_store.PodStore(yard.database or "")
    with Sampler(yard) as sampler:
        sent = [yard.send("nap", 0.7, queue=queue) for _ in range(6) for queue in ("kubernetes", "gpu")]
        told = parts.eventually(lambda: [row for row in store.pods() if row.reason == "NamespaceLimit"], WAIT_S)
        assert "max_pods of the namespace default is 3: " in str(told[0].message)
        all_slept(sent)
    assert (sampler.most, len(sampler.seen)) == (3, 12)

    parts.stop(two[0])
    held = next(text for name, text in ledger_of(yard).items() if name.startswith("one"))
    assert "shares" not in held, "whoever is stopped lets go"


def test_creates_keep_to_the_rate(yard: Yard, faults: client.Faults) -> None:
    """A burst of 5, then 10 a second, as the server counts them."""
    yard.dispatcher(YARD_CREATE_RATE="10", YARD_CREATE_BURST="5")
    faults.reset_stats()
    began = time.monotonic()
    sent = [yard.send("nap", 0) for _ in range(25)]

    def all_created() -> bool:
        created = faults.stats()["requests"].get("pods", {}).get("create", 0)
        if created > 5 + 10 * (time.monotonic() - began) + 1:
            raise RuntimeError(f"{created} creates after {time.monotonic() - began:.2f} s")
        return bool(created == 25)

    parts.eventually(all_created, WAIT_S)
    assert time.monotonic() - began >= 2.0
    all_slept(sent)


def test_without_the_permission_each_dispatcher_keeps_its_limits_alone(yard: Yard, faults: client.Faults) -> None:
    """A role that knows no ConfigMaps is told in the log and in `inspect stats`; tasks run."""
    faults.fail("*", 403, resource="configmaps", message="configmaps is forbidden: User cannot get resource")
    yard.dispatcher(YARD_MAX_PODS="2")
    with Sampler(yard) as sampler:
        all_slept([yard.send("nap", 0.2) for _ in range(6)])
    assert sampler.most == 2
    stats = yard.client.control.inspect([f"dispatcher@{yard.deployment}"], timeout=1).stats()
    assert "configmaps is forbidden" in stats[f"dispatcher@{yard.deployment}"]["pool"]["limits"]


def ledger_of(yard: Yard) -> dict[str, str]:
    """What stands in the ConfigMap."""
    found = api_get(yard.kubeconfig, "/api/v1/namespaces/default/configmaps")["items"]
    ours = names.label_value(yard.deployment)
    return next(one["data"] for one in found if one["metadata"]["labels"][labels.DEPLOYMENT_LABEL] == ours)


# --- what the server says


def test_K13_a_webhook_that_is_down_in_one_namespace_holds_no_other(yard: Yard, faults: client.Faults) -> None:
    """Of one queue: what goes to the other namespace is created meanwhile, the rest when the webhook is back."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hooked"}}
    api_call(yard.kubeconfig, "/api/v1/namespaces", method="POST", body=namespace)
    yard.dispatcher(YARD_NAMESPACES="hooked", YARD_MAX_PODS="3")
    words = 'failed calling webhook "p.example.com": connection refused'
    number = faults.fail("create", 500, resource="pods", namespace="hooked", message=words)
    there = dispatcher.on_pod(pod_override={"metadata": {"namespace": "hooked"}})
    held = [yard.send("nap", 0, **there) for _ in range(4)]
    parts.eventually(lambda: faults.hits(number) >= 1, WAIT_S)
    all_slept([yard.send("nap", 0) for _ in range(4)])
    assert not any(one.ready() for one in held)
    faults.remove(number)
    all_slept(held)


def test_K7_a_quota_is_probed_by_one_create_at_a_time(yard: Yard, faults: client.Faults) -> None:
    """Of eight that wait, and all of them say why."""
    yard.dispatcher()
    number = faults.fail("create", 403, resource="pods")
    faults.reset_stats()
    sent = [yard.send("nap", 0) for _ in range(8)]
    store = status_store.PodStore(yard.database or "")
    parts.eventually(lambda: [row.reason for row in store.pods()] == ["QuotaExceeded"] * 8, WAIT_S)
    first = faults.stats()["requests"]["pods"]["create"]
    asked_at = time.monotonic()
    parts.eventually(lambda: faults.stats()["requests"]["pods"]["create"] >= first + 2, WAIT_S)
    assert time.monotonic() - asked_at >= 0.5, "eight at a time would have been there at once"
    faults.remove(number)
    all_slept(sent)
