"""Which parts one machine needs, at which addresses, and what `embedded.toml` says of them.

What the settings name already is used as it is and not brought along: a broker, a result backend, a cluster. Decides
only; `standalone` starts the parts.
"""

import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from routing.config import settings
from routing.standalone import part, valkey

DAGS_VARIABLE = "PODYARD_DAGS__FOLDER"
BROKER_DATABASE = 0
RESULTS_DATABASE = 1
KEEP_PODS_S = 600.0
"""So long finished pods stay to be looked at with kubectl; a laptop has room for them."""
STOP_S = 10.0
"""Longer than any part of ours takes to end, whatever it waits for (`cli.stop_bound`)."""
WORKER_HURRY_S = 3.0
"""So long bodies on the worker have to come to their end; what is ended then is tried again."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """How readiness of the parts without a port is asked."""

    is_answering: Callable[[str], bool]
    """Whether a Celery worker of this node name (before the `@`) answers a ping."""
    is_scheduling: Callable[[], bool]
    """Whether a scheduler has reported since the start."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The parts that are brought along, and where they listen."""

    home: Path
    environment: Mapping[str, str]
    """What every part gets beside the environment of `podyard standalone`."""
    valkey: valkey.Address | None
    cluster_port: int | None
    flower: str | None
    """`address:port` of Flower; None without it."""
    flower_auth: str | None
    """A password for Flower where the settings have none."""
    kubernetes_queues: tuple[str, ...]
    dags: Path

    @classmethod
    def of(cls, known: settings.Settings, *, environment: Mapping[str, str], with_flower: bool) -> "Layout":
        """The layout for settings that were read without an `embedded.toml`."""
        cluster_is_given = any(f"kubernetes.{key}" in known.source for key in ("kubeconfig", "context", "in_cluster"))
        return cls(
            home=known.home,
            environment=environment,
            # Both have to be written: with one of them ours is needed for the other.
            valkey=None if {"broker.url", "results.url"} <= known.source.keys() else valkey.new_address(),
            cluster_port=None if cluster_is_given else free_port(),
            flower=f"{known.flower.address}:{known.flower.port}" if with_flower else None,
            flower_auth=None if known.flower.basic_auth else f"podyard:{secrets.token_urlsafe(9)}",
            kubernetes_queues=tuple(name for name, rule in known.queues.items() if rule.side == "kubernetes"),
            dags=known.dags.folder,
        )

    @property
    def kubeconfig(self) -> Path:
        """Where the local cluster leaves its kubeconfig."""
        return self.home / "cluster" / "kubeconfig"

    def sections(self) -> dict[str, Any]:
        """The content of `embedded.toml`: what the user's own settings do not say."""
        found: dict[str, Any] = {"dags": {"folder": str(self.dags)}}
        if self.valkey:
            found["broker"] = {"url": self.valkey.url(BROKER_DATABASE)}
            found["results"] = {"url": self.valkey.url(RESULTS_DATABASE)}
        if self.cluster_port:
            found["kubernetes"] = {"kubeconfig": str(self.kubeconfig)}
            # Processes see this machine's files, so pods read DAG files where everybody does.
            rule = {"side": "kubernetes", "keep_finished_s": KEEP_PODS_S, "env": {DAGS_VARIABLE: str(self.dags)}}
            found["queues"] = dict.fromkeys(self.kubernetes_queues, rule)
        if self.flower and self.flower_auth:
            found["flower"] = {"basic_auth": self.flower_auth}
        return found

    def parts(self, checks: Checks) -> list[part.Part]:
        """The parts, in the order in which they are listed to people."""
        brought = [self._valkey() if self.valkey else None, self._cluster() if self.cluster_port else None]
        broker = ("valkey",) if self.valkey else ()
        cluster = ("local-cluster",) if self.cluster_port else ()
        return [
            *(each for each in brought if each),
            self._podyard("scheduler", is_ready=checks.is_scheduling, after=broker),
            replace(
                self._podyard("worker", is_ready=lambda: checks.is_answering("worker"), after=broker),
                hurry_after_s=WORKER_HURRY_S,
                stop_timeout_s=WORKER_HURRY_S + STOP_S,
            ),
            self._podyard("dispatcher", is_ready=lambda: checks.is_answering("dispatcher"), after=(*broker, *cluster)),
            *([self._flower(self.flower, after=broker)] if self.flower else []),
        ]

    def _valkey(self) -> part.Part:
        assert self.valkey is not None
        address, folder = self.valkey, self.home / "valkey"
        return part.Part(
            name="valkey",
            command=tuple(valkey.prepare(folder, address)),
            cwd=folder,
            log=self._log("valkey"),
            is_ready=lambda: valkey.is_ready(address),
        )

    def _cluster(self) -> part.Part:
        port = self.cluster_port or 0
        folder = self.home / "cluster"
        return part.Part(
            name="local-cluster",
            command=(sys.executable, "-m", "dispatcher.localcluster", "--home", str(folder), "--port", str(port)),
            env=self.environment,
            log=self._log("local-cluster"),
            # The file may be of an earlier run, so the port is asked, too.
            is_ready=lambda: self.kubeconfig.exists() and is_listening("127.0.0.1", port),
            stop_timeout_s=8.0,  # its pods get a grace period of their own
        )

    def _flower(self, where: str, *, after: tuple[str, ...]) -> part.Part:
        address, _, port = where.rpartition(":")
        return self._podyard("flower", is_ready=lambda: is_listening(address, int(port)), after=after)

    def _podyard(self, name: str, *, is_ready: Callable[[], bool], after: tuple[str, ...]) -> part.Part:
        return part.Part(
            name=name,
            # Not `podyard` by PATH, which may be another installation's.
            command=(sys.executable, "-m", "routing.cli", name),
            env=self.environment,
            log=self._log(name),
            is_ready=is_ready,
            after=after,
            stop_timeout_s=STOP_S,
        )

    def _log(self, name: str) -> Path:
        return self.home / "parts" / f"{name}.log"


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def is_listening(address: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=0.3):
            return True
    except OSError:
        return False
