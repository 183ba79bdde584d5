"""The contract with an API server, spoken in plain HTTP: the same tests on the local cluster and on a real one.

`PODYARD_TEST_KUBECONFIG` adds a real API server with nodes (`PODYARD_TEST_NAMESPACE`, default `default`;
`PODYARD_TEST_IMAGE`, default `busybox:1.36`, must have `sh`). Each test has a label and a name of its own, and what it
made is deleted after it. All that a server is asked and answers is recorded; after the last test of it the history
checker looks at the whole (`tests/history.py`).
"""

import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from kubernetes import client, config
from urllib3 import HTTPResponse

from tests import apihistory, history, parts
from tests.contract import recording
from tests.contract.recording import LABEL

Json = dict[str, Any]
REAL = os.environ.get("PODYARD_TEST_KUBECONFIG", "")


@dataclass(frozen=True)
class Answer:
    """Status code, decoded body (or text) and headers."""

    code: int
    body: Any
    headers: Mapping[str, str]

    def ok(self) -> Json:
        """The body of a success."""
        assert self.code < 300, f"{self.code}: {self.body}"
        assert isinstance(self.body, dict)
        return self.body


@dataclass
class Api:
    """Plain HTTP to one API server."""

    kubeconfig: Path
    image: str
    namespace: str
    is_local: bool
    label: str = ""
    seen: recording.Recording = field(default_factory=recording.Recording)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        configuration = client.Configuration()
        config.load_kube_config(config_file=str(self.kubeconfig), client_configuration=configuration)
        self.host = configuration.host.rstrip("/")
        self._pool = client.ApiClient(configuration).rest_client.pool_manager
        self._token = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        configuration.cert_file = configuration.key_file = None
        self.bare_pool = client.ApiClient(configuration).rest_client.pool_manager
        """Without the client certificate of the kubeconfig, which a server would take where a token is wrong."""

    # --- requests ---

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        **query: Any,
    ) -> HTTPResponse:
        """A request whose answer is read by the caller."""
        given = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            given["Authorization"] = self._token
        given |= headers or {}
        pool = self.bare_pool if "Authorization" in (headers or {}) else self._pool
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        text = urlencode({key: value for key, value in query.items() if value is not None})
        return pool.request(
            method,
            f"{self.host}{path}{'?' + text if text else ''}",
            body=data,
            headers={key: value for key, value in given.items() if value},
            preload_content=False,
            retries=False,
            timeout=timeout_s,
        )

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """A request, answered."""
        query = {key: value for key, value in more.items() if value is not None and key not in ("headers", "timeout_s")}
        self.seen.asked(method, path, body, query)
        answer = self.open(method, path, body, **more)
        data = answer.read()
        answer.release_conn()
        is_json = "json" in answer.headers.get("Content-Type", "")
        said = json.loads(data) if is_json else data.decode()
        self.seen.answered(method, path, body, query, code=answer.status, answer=said)
        return Answer(answer.status, said, answer.headers)

    def events(self, path: str, **query: Any) -> Iterator[Json]:
        """Watch events until the server ends the stream, or 30 s of silence."""
        return self.seen.told(path, query, self._events(path, **query))

    def _events(self, path: str, **query: Any) -> Iterator[Json]:
        answer = self.open("GET", path, watch="1", **query)
        assert answer.status == 200, answer.read()
        rest = b""
        try:
            for piece in answer.stream(65536):
                *whole, rest = (rest + piece).split(b"\n")
                yield from (json.loads(line) for line in whole if line)
        finally:
            answer.close()

    # --- pods ---

    @property
    def pods(self) -> str:
        """The address of the namespace's pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def path(self, plural: str, name: str = "") -> str:
        """The address of a collection, or of one object in it."""
        return f"/api/v1/namespaces/{self.namespace}/{plural}{'/' + name if name else ''}"

    @property
    def selector(self) -> str:
        """Selects what this test made."""
        return f"{LABEL}={self.label}"

    def name(self) -> str:
        """A name that is free."""
        return f"{self.label}-{next(self._numbers)}"

    def manifest(self, script: str = "true", *, name: str | None = None, **spec: Any) -> Json:
        """A pod that runs a shell script; `spec` fields are added, `base` fields go into its container."""
        base = {"name": "base", "image": self.image, "command": ["sh", "-c", script], **spec.pop("base", {})}
        metadata = {"name": name or self.name(), "labels": {LABEL: self.label}}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [base], **spec},
        }

    def create(self, script: str = "true", **more: Any) -> Json:
        """A created pod."""
        return self.call("POST", self.pods, self.manifest(script, **more)).ok()

    def read(self, pod: Json) -> Json:
        """The pod as it is now."""
        return self.call("GET", f"{self.pods}/{pod['metadata']['name']}").ok()

    def until(self, pod: Json, condition: Callable[[Json], Any], what: str = "") -> Json:
        """The first state of the pod that meets the condition."""
        seen: Json = {}

        def look() -> bool:
            seen.update(self.read(pod))
            return bool(condition(seen))

        parts.eventually(look, 60, what=what or "the pod's state")
        return seen

    def ended(self, pod: Json) -> Json:
        """The pod once it is Succeeded or Failed."""
        return self.until(pod, lambda now: now["status"]["phase"] in {"Succeeded", "Failed"}, "the end of the pod")

    def running(self, pod: Json) -> Json:
        """The pod once it is Running."""
        return self.until(pod, lambda now: now["status"]["phase"] == "Running", "the pod to run")

    def log(self, pod: Json, **query: Any) -> Answer:
        """A pod's log."""
        return self.call("GET", f"{self.pods}/{pod['metadata']['name']}/log", **query)

    def config(self, plural: str, **content: Any) -> str:
        """A created ConfigMap or Secret; gives its name."""
        name = self.name()
        body = {"metadata": {"name": name, "labels": {LABEL: self.label}}, **content}
        self.call("POST", self.path(plural), body).ok()
        return name

    def clean(self) -> None:
        """Deletes what this test made."""
        for pod in self.call("GET", self.pods, labelSelector=self.selector).ok()["items"]:
            if pod["metadata"].get("finalizers"):
                path = f"{self.pods}/{pod['metadata']['name']}"
                self.patch(path, {"metadata": {"finalizers": None}})
        for plural in ("pods", "configmaps", "secrets"):
            self.call("DELETE", self.path(plural), {"gracePeriodSeconds": 0}, labelSelector=self.selector)

    def patch(self, path: str, body: Any, kind: str = "application/merge-patch+json") -> Answer:
        """A patch."""
        return self.call("PATCH", path, body, headers={"Content-Type": kind})


def terminated(pod: Json, container: str = "base", *, init: bool = False) -> Json:
    """How a container ended."""
    entries = pod["status"]["initContainerStatuses" if init else "containerStatuses"]
    state: Json = next(entry["state"] for entry in entries if entry["name"] == container)
    assert "terminated" in state, state
    ended: Json = state["terminated"]
    return ended


def waiting(pod: Json, container: str = "base") -> Json:
    """Why a container waits; empty where it does not."""
    for entry in pod["status"].get("containerStatuses", []):
        if entry["name"] == container:
            why: Json = entry["state"].get("waiting", {})
            return why
    return {}


@pytest.fixture(scope="session", params=["local", *(["real"] if REAL else [])])
def server(request: pytest.FixtureRequest) -> Iterator[Api]:
    """An API server: the local cluster, and a real one where a kubeconfig is given. Its history must be in order."""
    if request.param == "real":
        found = Api(
            kubeconfig=Path(REAL),
            image=os.environ.get("PODYARD_TEST_IMAGE", "busybox:1.36"),
            namespace=os.environ.get("PODYARD_TEST_NAMESPACE", "default"),
            is_local=False,
        )
    else:
        cluster: parts.LocalCluster = request.getfixturevalue("local_cluster_server")
        found = Api(kubeconfig=cluster.kubeconfig, image="busybox:1.36", namespace="default", is_local=True)
    stream = watched(found)
    yield found
    assert history.check(ended(found, stream)) == []


def watched(api: Api) -> recording.Stream:
    """The stream over all pods of the suite, from now on."""
    every = {"labelSelector": LABEL}
    version = api.call("GET", "/api/v1/pods", **every).ok()["metadata"]["resourceVersion"]

    def watch(version: str) -> Iterator[Json]:
        return api._events("/api/v1/pods", resourceVersion=version, timeoutSeconds=20, timeout_s=25.0, **every)

    stream = recording.Stream(recording=api.seen, version=version, watch=watch)
    stream.start()
    return stream


def ended(api: Api, stream: recording.Stream) -> list[history.Event]:
    """All that was recorded, once the stream has told what was so far; a last pod shows that it has."""
    api.label = f"contract-{uuid.uuid4().hex[:8]}"
    last = api.create("true")
    api.clean()
    parts.eventually(lambda: stream.trouble or stream.has_lost(last["metadata"]["uid"]), 60, what="the last DELETED")
    stream.stop()
    assert not stream.trouble, f"the stream over the suite's pods has a gap: {stream.trouble}"
    left = api.call("GET", "/api/v1/pods", labelSelector=LABEL).ok()["items"]
    uids = frozenset(pod["metadata"]["uid"] for pod in left)
    return [*api.seen.events, apihistory.Covered(stream=recording.SUITE, plural="pods", left=uids)]


@pytest.fixture
def api(server: Api) -> Iterator[Api]:
    """The server, with a label of this test alone."""
    server.label = f"contract-{uuid.uuid4().hex[:8]}"
    yield server
    server.clean()


@pytest.fixture
def local(api: Api) -> Api:
    """Only the local cluster: what it promises beyond, or short of, a real one."""
    if not api.is_local:
        pytest.skip("the local cluster only")
    return api
