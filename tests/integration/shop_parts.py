"""The sample shop with its worker and its dispatcher on real Valkey and a local cluster."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from celery import Celery
from celery.backends.redis import RedisBackend
from kombu import serialization

from tests import parts
from tests.integration import yard_parts

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "docs" / "examples" / "shop"
PODS, WORKER = "kubernetes", "shop"
"""The queues of both sides."""
BEHAVIOURS = "tests.apps.behaviours"


serialization.register(
    "msgpack", msgspec.msgpack.encode, msgspec.msgpack.decode, content_type="application/x-msgpack"
)  # what kombu does itself where the package msgpack is installed


class PollingBackend(RedisBackend):
    """Celery's, but a client of many threads does not subscribe to results: it asks for them."""

    def on_task_call(self, producer, task_id):
        pass

    def remove_pending_result(self, result):
        return result


@dataclass(kw_only=True)
class Shop:
    """Processes of one test, and a client of their app that knows nothing of Podyard."""

    folder: Path
    broker: str
    kubeconfig: Path
    deployment: str
    app: str = f"{BEHAVIOURS}:app"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes = self.folder / "notes"
        self.notes.mkdir()
        backend = f"tests.integration.shop_parts:PollingBackend+{self.broker}"
        self.client = Celery("client", broker=self.broker, backend=backend, set_as_current=False)
        self.client.conf.update(accept_content=["json"], task_default_queue=WORKER)

    @property
    def env(self) -> dict[str, str]:
        python = f"{ROOT}:{SHOP}"
        return {
            "SHOP_BROKER": self.broker,
            "SHOP_NOTES": str(self.notes),
            "PYTHONPATH": python,
            "PODYARD_DEPLOYMENT": self.deployment,
            "PODYARD_KUBERNETES__KUBECONFIG": str(self.kubeconfig),
            "PODYARD_LOGS__FOLDER": str(self.folder / "logs"),
            "PODYARD_QUEUES__KUBERNETES__ENV": json.dumps({"PYTHONPATH": python, "SHOP_NOTES": str(self.notes)}),
            "PODYARD_HOME": str(self.folder / "home"),
        }

    def dispatcher(self, *words: str, queues: str = PODS, **env: str) -> subprocess.Popen[bytes]:
        """A dispatcher through plain Celery, ready to consume."""
        pool = {"CELERY_CUSTOM_WORKER_POOL": "dispatcher.pool:KubernetesPool"}
        command = ["celery", "-A", self.app, "worker", "-P", "custom", "-Q", queues, "-c", "50"]
        return self.start("dispatcher", "-m", *command, "-E", *words, **pool, **env)

    def podyard(self, *words: str, **env: str) -> subprocess.Popen[bytes]:
        """A dispatcher through our own command, ready to consume."""
        self._podyard = (words, env)
        return self.start(
            "dispatcher", "-m", "routing.cli", "dispatcher", "--app", self.app, *words, option="--name", **env
        )

    def pods_env(self, **more: str) -> str:
        """The environment of pods as a variable of the settings spells it: a table of TOML or JSON."""
        return json.dumps({"PYTHONPATH": self.env["PYTHONPATH"], "SHOP_NOTES": str(self.notes), **more})

    def restart_podyard(self) -> None:
        """SIGKILL to the dispatcher, and another one in its place."""
        words, env = self._podyard
        process = next(one for one in self.processes if "dispatcher" in one.args)
        process.kill()
        process.wait(10)
        self.processes.remove(process)
        self.podyard(*words, **env)

    def worker(self, *words: str) -> subprocess.Popen[bytes]:
        """A prefork worker, ready to consume."""
        command = ["celery", "-A", self.app, "worker", "-P", "prefork", "-Q", WORKER, "-c", "6"]
        return self.start("worker", "-m", *command, "-E", *words)

    def start(self, name: str, *words: str, option: str = "-n", **env: str) -> subprocess.Popen[bytes]:
        """A process that is a Celery node; returns when it answers."""
        node = self.node(name)
        process = parts.start(
            [sys.executable, *words, option, node],
            log=self.folder / f"{name}.log",
            env={**self.env, **env},
            cwd=self.folder,
        )
        self.processes.append(process)

        def answers() -> bool:
            assert parts.is_alive(process, self.folder / f"{name}.log")
            return bool(self.client.control.inspect([node], timeout=0.5).ping())

        parts.eventually(answers, 30, what=f"{node} answers")
        return process

    def node(self, name: str) -> str:
        return f"{name}@{self.deployment}"

    def log(self, name: str = "dispatcher") -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def send(self, task: str, *args: Any, queue: str = PODS, **options: Any) -> Any:
        """Sends a task of the behaviours."""
        return self.client.send_task(f"{BEHAVIOURS}.{task}", args=args, queue=queue, **options)

    def signature(self, task: str, *args: Any, queue: str = PODS, **options: Any) -> Any:
        """A signature of a task of the behaviours."""
        return self.client.signature(f"{BEHAVIOURS}.{task}", args=args, queue=queue, **options)

    def noted(self, run: str) -> list[str]:
        """What the bodies and hooks of one run said."""
        file = self.notes / run
        return file.read_text().splitlines() if file.exists() else []

    def inspect(self, name: str) -> Any:
        return self.client.control.inspect([self.node(name)], timeout=1)

    def stop(self) -> None:
        for process in self.processes:
            parts.stop(process)


def api_delete(kubeconfig: Path, path: str) -> None:
    """A DELETE, asked of the API server past all code of ours."""
    yard_parts.api_call(kubeconfig, path, method="DELETE")
