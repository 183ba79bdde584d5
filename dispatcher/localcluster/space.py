"""One test's part of a local cluster: a namespace of its own, the faults, and the few calls that tests need."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispatcher.localcluster import client
from dispatcher.localcluster.faults import client as faultclient

Json = dict[str, Any]
_LOOK_S = 0.02
_FINAL = frozenset({"Succeeded", "Failed"})


@dataclass(kw_only=True)
class Space:
    """A namespace from `open` to `close`. `faults` are the whole cluster's: tests that share it run one by one."""

    kubeconfig: Path
    namespace: str
    api: client.Client = field(init=False)
    faults: faultclient.Faults = field(init=False)

    def __post_init__(self) -> None:
        self.api = client.Client.from_kubeconfig(self.kubeconfig)
        self.faults = faultclient.Faults(self.api)

    @property
    def env(self) -> Mapping[str, str]:
        """Variables by which programs that a test starts find this place: kubectl, and Podyard's own."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "PODYARD_KUBERNETES__KUBECONFIG": str(self.kubeconfig),
            "PODYARD_KUBERNETES__NAMESPACE": self.namespace,
        }

    def open(self) -> None:
        """Makes the namespace."""
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.faults.reset_stats()

    def close(self) -> None:
        """No fault stays, and no pod."""
        self.faults.clear()
        for pod in self.pods():
            # Without grace: the next test shares the node, and must not wait for what this one ignores.
            self.api.call("DELETE", self._path(pod["metadata"]["name"]), {"gracePeriodSeconds": 0})
        self.api.call("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def _path(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods" + (f"/{name}" if name else "")

    def create(self, manifest: Json) -> Json:
        """Creates a pod here; gives it as the server stored it."""
        pod: Json = self.api.call("POST", self._path(), manifest)
        return pod

    def pods(self) -> list[Json]:
        """All pods here."""
        found: list[Json] = self.api.call("GET", self._path())["items"]
        return found

    def pod(self, name: str) -> Json:
        """One pod as it is now."""
        found: Json = self.api.call("GET", self._path(name))
        return found

    def log(self, name: str, **query: Any) -> str:
        """What a pod's container has printed."""
        return str(self.api.call("GET", f"{self._path(name)}/log", **query))

    def until(self, name: str, condition: Callable[[Json], object], *, timeout_s: float = 30.0) -> Json:
        """The first state of a pod that meets the condition; raises AssertionError with the last one after a time."""
        end = time.monotonic() + timeout_s
        while not condition(pod := self.pod(name)):
            if time.monotonic() > end:
                raise AssertionError(f"pod {name} is not as expected after {timeout_s:g} s: {pod['status']}")
            time.sleep(_LOOK_S)
        return pod

    def running(self, name: str, *, timeout_s: float = 30.0) -> Json:
        """A pod once it is Running."""
        return self.until(name, lambda pod: pod["status"]["phase"] == "Running", timeout_s=timeout_s)

    def ended(self, name: str, *, timeout_s: float = 30.0) -> Json:
        """A pod once it is Succeeded or Failed."""
        return self.until(name, lambda pod: pod["status"]["phase"] in _FINAL, timeout_s=timeout_s)

    def requests(self) -> Json:
        """Requests of this test so far, by resource and verb, its own among them."""
        found: Json = self.faults.stats()["requests"]
        return found
