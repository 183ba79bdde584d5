"""An idle dispatcher, without and with 2,000 kept finished pods in its namespace: CPU, requests and bytes.

CPU is user and system time of its process over 20 s in which nothing is sent; requests are counted at the server, bytes
by a relay through which it speaks to the server. Then it is killed and started again, with the pods there: they must be
as they were, and no outcome may be stored again. The aim is less than 5 % of a core.
"""

import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import sqlalchemy as sa
import yaml

from dispatcher.attempts import status_store
from dispatcher.localcluster.faults.client import Faults
from tests import parts
from tests.benchmarks.bench_replay import cpu_s, ended
from tests.integration.yard_parts import Yard, pods_of

PODS = int(os.environ.get("BENCH_PODS", "2000"))
IDLE_S = 20.0
KWARGS = {"image": "busybox", "cmds": ["true"], "on_finish_action": "keep_pod"}


class Relay:
    """Passes bytes between a client and a server, and counts them. A thread of its own."""

    def __init__(self, kubeconfig: Path, *, to: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server = urlsplit(cluster["server"])
        self.bytes = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._ready.wait(10)
        cluster["server"] = f"{self._server.scheme}://127.0.0.1:{self._port}"
        to.write_text(yaml.safe_dump(config))

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._server.hostname, self._server.port)
        await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer), return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                self.bytes += len(piece)
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()


def idle(yard: Yard, faults: Faults, relay: Relay, label: str) -> None:
    """Prints what the dispatcher does while there is nothing to do."""
    process = psutil.Process(yard.processes[-1].pid)
    faults.reset_stats()
    before, bytes_before, begun = cpu_s(process), relay.bytes, time.monotonic()
    time.sleep(IDLE_S)  # what is measured is that nothing happens
    took = time.monotonic() - begun
    share, sent = 100 * (cpu_s(process) - before) / took, relay.bytes - bytes_before
    requests = {f"{verb} {what}": n for what, verbs in faults.stats()["requests"].items() for verb, n in verbs.items()}
    words = ", ".join(f"{count} {name}" for name, count in requests.items()) or "none"
    print(
        f"  {label:34} {share:5.2f} % of a core, {sent / 1024:6.1f} KiB to and fro, requests: {words}; "
        f"{process.memory_info().rss / 2**20:.0f} MiB",
        flush=True,
    )


def state(yard: Yard, ids: list[str]) -> tuple[dict[str, str], list[bytes]]:
    """Each pod with its version, and the stored outcomes."""
    pods = {name: pod["metadata"]["resourceVersion"] for name, pod in pods_of(yard).items()}
    return pods, yard.client.backend.client.mget([f"celery-task-meta-{task_id}" for task_id in ids])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        valkey = parts.Valkey.start(folder / "valkey")
        local = parts.LocalCluster.start(folder / "cluster", "--instant")
        relay = Relay(local.kubeconfig, to=folder / "kubeconfig")
        url = f"sqlite:///{folder / 'pods.db'}"
        status_store.METADATA.create_all(sa.create_engine(url))
        yard = Yard(
            folder=folder,
            broker=valkey.fresh().url,
            kubeconfig=folder / "kubeconfig",
            deployment="idle",
            database=url,
        )
        try:
            measure(yard, Faults.of(local.kubeconfig), relay)
        finally:
            yard.stop()
            local.stop()
            valkey.stop()


def measure(yard: Yard, faults: Faults, relay: Relay) -> None:
    yard.dispatcher()
    idle(yard, faults, relay, "no pods:")
    ids = [f"kept-{number}" for number in range(PODS)]
    for task_id in ids:
        yard.client.send_task("dispatcher.pod", kwargs=KWARGS, queue="kubernetes", task_id=task_id)
    ended(yard, ids)
    parts.eventually(lambda: faults.stats()["requests"]["pods"].get("patch", 0) >= PODS, 120, every_s=0.2)
    idle(yard, faults, relay, f"{PODS} kept pods:")
    before = state(yard, ids)
    yard.kill(yard.processes[-1])
    faults.reset_stats()
    bytes_before = relay.bytes
    yard.dispatcher()
    parts.eventually(lambda: faults.stats()["openWatches"] > 0, 20, what="the watch is open")
    print(f"  restart: {(relay.bytes - bytes_before) / 1024:.1f} KiB, requests {faults.stats()['requests']}")
    idle(yard, faults, relay, f"{PODS} kept pods, after the restart:")
    after = state(yard, ids)
    changed = sum(before[0].get(name) != version for name, version in after[0].items())
    print(
        f"  pods kept {len(after[0])} of {PODS}, changed {changed}; "
        f"outcomes stored again {sum(one != other for one, other in zip(before[1], after[1], strict=True))}"
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
