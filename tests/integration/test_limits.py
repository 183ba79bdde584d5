"""Limits over several dispatchers, real ones on one local cluster: the server is asked what is in flight."""

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from dispatcher import podspec
from dispatcher.localcluster.faults import client
from tests import parts
from tests.integration.yard_parts import Yard, api_get, pods_of

WAIT_S = 60
LIMIT = 6


@dataclass
class Sampler:
    """Asks the API server again and again how many pods of a yard are in flight."""

    yard: Yard
    most: int = 0
    most_of: dict[str, int] = field(default_factory=dict)
    """By the dispatcher that owns them."""
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
            by_owner: dict[str, int] = {}
            for owner in pods.values():
                by_owner[owner] = by_owner.get(owner, 0) + 1
            self.samples += 1
            self.seen |= pods.keys()
            self.most = max(self.most, len(pods))
            for owner, count in by_owner.items():
                self.most_of[owner] = max(self.most_of.get(owner, 0), count)


def in_flight(yard: Yard) -> dict[str, str]:
    """Pods that have not finished, with the names of their dispatchers."""
    return {
        name: pod["metadata"]["labels"][podspec.OWNER_LABEL].partition("_")[0].partition("-")[0]
        for name, pod in pods_of(yard).items()
        if pod["status"].get("phase") not in ("Succeeded", "Failed")
    }


@pytest.fixture
def yard(tmp_path: object, valkey: parts.ValkeyDatabase, deployment: str) -> Iterator[Yard]:
    """No dispatcher yet, and a cluster that counts its requests."""
    cluster = parts.LocalCluster.start(tmp_path / "cluster", "--faults")  # type: ignore[operator]
    yard = Yard(folder=tmp_path, broker=valkey.url, kubeconfig=cluster.kubeconfig, deployment=deployment)  # type: ignore[arg-type]
    yield yard
    yard.stop()
    cluster.stop()


def test_a_limit_holds_over_two_dispatchers_also_after_one_was_killed(yard: Yard) -> None:
    """Never one pod more, both get their part; the pods of the killed one count until they end, the other goes on."""
    limits = {"YARD_MAX_PODS": str(LIMIT), "YARD_CONCURRENCY": "20"}
    one = yard.dispatcher(name="one", **limits)
    yard.dispatcher(name="two", **limits)
    with Sampler(yard) as sampler:
        short = [yard.send("nap", 0.3) for _ in range(24)]
        for sent in short:
            assert sent.get(timeout=WAIT_S) == "slept"
        assert set(sampler.most_of) == {"one", "two"}, "both make progress"

        long = [yard.send("nap", 4) for _ in range(2 * LIMIT)]
        parts.eventually(lambda: len(in_flight(yard)) == LIMIT, WAIT_S, what="the limit is used")
        assert set(in_flight(yard).values()) == {"one", "two"}
        yard.kill(one)
        for sent in long:
            assert sent.get(timeout=WAIT_S) == "slept"
    assert sampler.most == LIMIT
    assert sampler.samples > 100


def test_limits_of_a_namespace_and_of_all_queues_hold(yard: Yard) -> None:
    """Two queues, two dispatchers, and what waits says which limit holds it."""
    limits = {"YARD_OVERALL": "4", "YARD_MAX_PODS": "3", "YARD_QUEUES": "kubernetes,gpu"}
    yard.dispatcher(name="one", **limits)
    yard.dispatcher(name="two", **limits)
    with Sampler(yard) as sampler:
        sent = [yard.send("nap", 0.5, queue=queue) for _ in range(8) for queue in ("kubernetes", "gpu")]
        for one in sent:
            assert one.get(timeout=WAIT_S) == "slept"
    assert sampler.most == 4
    assert len(sampler.seen) == 16


def test_a_dispatcher_that_comes_later_gets_its_part(yard: Yard) -> None:
    """As pods end, not before; the first one's long line does not keep it out."""
    first = {"YARD_MAX_PODS": "4", "YARD_CONCURRENCY": "100"}
    yard.dispatcher(name="one", **first)
    with Sampler(yard) as sampler:
        sent = [yard.send("nap", 0.5) for _ in range(40)]
        parts.eventually(lambda: len(in_flight(yard)) == 4, WAIT_S)
        yard.dispatcher(name="two", **first)
        sent += [yard.send("nap", 0.5) for _ in range(20)]
        parts.eventually(lambda: "two" in in_flight(yard).values(), WAIT_S, what="the second one has a pod")
        for one in sent:
            assert one.get(timeout=WAIT_S) == "slept"
    assert sampler.most == 4


def test_creates_keep_to_the_rate(yard: Yard) -> None:
    """A burst of 5, then 10 a second, as the server counts them."""
    yard.dispatcher(YARD_CREATE_RATE="10", YARD_CREATE_BURST="5")
    faults = client.Faults.of(yard.kubeconfig)
    faults.reset_stats()
    began = time.monotonic()
    sent = [yard.send("add", 1, 2) for _ in range(25)]
    created = 0
    for _ in itertools.count():
        created = faults.stats()["requests"].get("pods", {}).get("create", 0)
        assert created <= 5 + 10 * (time.monotonic() - began) + 1
        if created == 25:
            break
        time.sleep(0.05)  # a sample, not a wait
    assert time.monotonic() - began >= 2.0
    for one in sent:
        assert one.get(timeout=WAIT_S) == 3


def test_without_the_permission_each_dispatcher_keeps_its_limits_alone(yard: Yard) -> None:
    """A role that knows no ConfigMaps is told in the log and in `inspect stats`; tasks run."""
    faults = client.Faults.of(yard.kubeconfig)
    faults.fail("*", 403, resource="configmaps", message="configmaps is forbidden: User cannot get resource")
    yard.dispatcher(YARD_MAX_PODS="2")
    with Sampler(yard) as sampler:
        for sent in [yard.send("nap", 0.2) for _ in range(6)]:
            assert sent.get(timeout=WAIT_S) == "slept"
    assert sampler.most == 2
    stats = yard.client.control.inspect([f"dispatcher@{yard.deployment}"], timeout=1).stats()
    assert "configmaps is forbidden" in stats[f"dispatcher@{yard.deployment}"]["pool"]["limits"]


def test_the_ledger_is_one_config_map_that_says_what_each_holds(yard: Yard) -> None:
    """For people who look into the cluster; a dispatcher that was stopped lets go of what has no pod."""
    two = [yard.dispatcher(name=name) for name in ("one", "two")]
    parts.eventually(lambda: len(ledger_of(yard)) == 2, WAIT_S)
    parts.stop(two[0])
    entry = next(text for name, text in ledger_of(yard).items() if name.startswith("one"))
    assert "shares" not in entry


def ledger_of(yard: Yard) -> dict[str, str]:
    """What stands in the ConfigMap."""
    found = api_get(yard.kubeconfig, "/api/v1/namespaces/default/configmaps")["items"]
    return next((one["data"] for one in found if one["metadata"]["name"].startswith("podyard-limits")), {})
