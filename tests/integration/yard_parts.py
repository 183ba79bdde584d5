"""The yard: a dispatcher and a prefork worker of `tests.apps.yard` on real Valkey and a local cluster."""

import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
import yaml
from celery import Celery

from dispatcher import errors
from dispatcher.attempts import status_store
from dispatcher.manifests import labels, names
from tests import parts

ROOT = Path(__file__).parents[2]
WAIT_S = 30


@dataclass(kw_only=True)
class Yard:
    """Processes of one test, and a client of their app."""

    folder: Path
    broker: str
    kubeconfig: Path
    deployment: str
    database: str | None = None
    results: str | None = None
    """The result backend, where it is not the broker."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trace = self.folder / "trace"
        self.logs = self.folder / "logs"
        self.client = Celery("yard", broker=self.broker, backend=self.results or self.broker, set_as_current=False)
        self.client.conf.update(
            accept_content=["json"], task_default_queue="default", podyard_deployment=self.deployment
        )

    @property
    def env(self) -> dict[str, str]:
        return {
            "YARD_BROKER": self.broker,
            "YARD_RESULTS": self.results or self.broker,
            "YARD_KUBECONFIG": str(self.kubeconfig),
            "YARD_DEPLOYMENT": self.deployment,
            "YARD_LOGS": str(self.logs),
            "YARD_TRACE": str(self.trace),
            "YARD_DATABASE": self.database or "",
            "PYTHONPATH": str(ROOT),
        }

    def dispatcher(self, *, name: str = "dispatcher", **env: str) -> subprocess.Popen[bytes]:
        """Starts a dispatcher and waits until it consumes."""
        pool = {"CELERY_CUSTOM_WORKER_POOL": "dispatcher.pool:KubernetesPool"}
        return self._worker(
            "-P",
            "custom",
            "-Q",
            env.get("YARD_QUEUES", "kubernetes"),
            "-c",
            env.get("YARD_CONCURRENCY", os.environ.get("YARD_CONCURRENCY", "100")),
            name=name,
            env={**pool, **env},
        )

    def worker(self) -> subprocess.Popen[bytes]:
        """Starts a prefork worker and waits until it consumes."""
        return self._worker("-P", "prefork", "-Q", "default", "-c", "2", name="worker", env={})

    def _worker(self, *words: str, name: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "tests.apps.yard", "worker", "-l", "INFO", "-E"]
        process = parts.start(
            [*command, *words, "-n", f"{name}@{self.deployment}", "--without-gossip", "--without-mingle"],
            log=self.folder / f"{name}.log",
            env={**self.env, **env},
            cwd=ROOT,
        )
        self.processes.append(process)
        node = f"{name}@{self.deployment}"
        parts.eventually(self.client.control.inspect([node], timeout=0.5).ping, 20, what=f"{node} answers")
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to a process, and to nothing of its pods."""
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)

    def send(self, task: str, *args: Any, queue: str = "kubernetes", **options: Any) -> Any:
        """Sends a task of the yard."""
        return self.client.send_task(f"tests.apps.yard.{task}", args=args, queue=queue, **options)

    def signature(self, task: str, *args: Any, queue: str = "kubernetes", **options: Any) -> Any:
        """A signature of a task of the yard."""
        return self.client.signature(f"tests.apps.yard.{task}", args=args, queue=queue, **options)

    def __enter__(self) -> "Yard":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for process in self.processes:
            parts.stop(process)


def pods_database(folder: Path) -> str:
    """The address of a new database that has the table of pods alone."""
    url = f"sqlite:///{folder / 'pods.db'}"
    engine = sqlalchemy.create_engine(url)
    status_store.METADATA.create_all(engine)
    engine.dispose()
    return url


def row_of(yard: Yard, attempt_id: str) -> status_store.PodRow:
    """What the record says of an attempt's pod; LookupError where it says nothing yet."""
    with contextlib.closing(status_store.PodStore(str(yard.database))) as store:
        for row in store.pods(attempt_ids=[attempt_id]):
            return row
    raise LookupError(attempt_id)


def pods_of(yard: Yard) -> dict[str, dict[str, Any]]:
    """The pods of a yard's deployment by name, as the API server has them."""
    selector = f"{labels.DEPLOYMENT_LABEL}={names.label_value(yard.deployment)}"
    answer = api_get(yard.kubeconfig, "/api/v1/pods", labelSelector=selector)
    return {pod["metadata"]["name"]: pod for pod in answer["items"]}


def runs(yard: Yard, task_id: str) -> int:
    """How often the body of a task began, by its own word."""
    return sum(line.split()[0] == task_id for line in yard.trace.read_text().splitlines()) if yard.trace.exists() else 0


def napping(yard: Yard, seconds: float = 60) -> tuple[Any, str]:
    """A task whose body runs now, and its pod."""
    sent = yard.send("nap", seconds)
    parts.eventually(lambda: runs(yard, sent.id) == 1, WAIT_S)
    pod = next(
        name
        for name, pod in pods_of(yard).items()
        if pod["metadata"]["annotations"]["podyard.dev/attempt-id"] == sent.id
    )
    return sent, pod


def ends_well(yard: Yard) -> str:
    """A task ends with its result and ran once; gives its id."""
    sent = yard.send("add", 2, 3)
    assert sent.get(timeout=WAIT_S) == 5
    assert runs(yard, sent.id) == 1
    return str(sent.id)


def failure_of(sent: Any) -> BaseException:
    """The exception with which a task ended."""
    parts.eventually(sent.ready, WAIT_S, what=f"{sent.id} is final")
    assert sent.state == "FAILURE", (sent.state, sent.result)
    return sent.result  # type: ignore[no-any-return]


def pod_failure_of(sent: Any) -> errors.PodFailed:
    """The same where it was the pod that failed."""
    error = failure_of(sent)
    assert isinstance(error, errors.PodFailed), error
    return error


def ended_by(sent: Any) -> dict[str, Any]:
    """The details of the failure of a pod with which a task ended."""
    return dict(pod_failure_of(sent).details)


def api_get(kubeconfig: Path, path: str, **query: str) -> dict[str, Any]:
    """What the API server answers to a GET, asked past all code of ours."""
    return api_call(kubeconfig, path, method="GET", **query)


def api_call(kubeconfig: Path, path: str, *, method: str, body: object = None, **query: str) -> dict[str, Any]:
    """What the API server answers, asked past all code of ours."""
    config = yaml.safe_load(kubeconfig.read_text())
    server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server}{path}?{urllib.parse.urlencode(query)}", data=data, method=method)
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {token}")
    authority = base64.b64decode(config["clusters"][0]["cluster"].get("certificate-authority-data", "")).decode()
    context = ssl.create_default_context(cadata=authority) if authority else None
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return json.load(answer)
