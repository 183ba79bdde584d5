"""Pods created by way of an API server that is slow and sick: the dispatcher beside a bare loop with the same faults.

Each create takes 500 ms more; 5 % are refused with 429 (`Retry-After: 1`, as Kubernetes' flow control says), 1 %
succeed and never answer, so that the caller sees a time-out. Pods are processes that append a line to a file. What
counts is that no pod is there twice and none is lost: by the uids that a watch of its own sees, and by the lines of
the file.
The bare loop knows nothing but the name of each pod; it tries again what was refused, each pod by itself.
"""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dispatcher import errors, options
from dispatcher.kubeapi import client, server_access
from dispatcher.localcluster.faults import kinds
from dispatcher.localcluster.faults.client import Faults
from dispatcher.manifests import builder, labels
from tests import builders, parts
from tests.integration.yard_parts import Yard

PODS = int(os.environ.get("BENCH_PODS", "1000"))
CONCURRENCY = options.Options.create_concurrency
PODS_ARE = {"verb": "create", "resource": "pods"}
FAULTS = (
    kinds.Delay(seconds=0.5, **PODS_ARE),
    kinds.Fail(status=429, retry_after_s=1, probability=0.05, **PODS_ARE),
    kinds.Fail(how="hang", done=True, probability=0.01, **PODS_ARE),
)
ATTEMPT = {"fieldRef": {"fieldPath": f"metadata.annotations['{labels.ATTEMPT_ANNOTATION}']"}}


@dataclass
class Watched:
    """What a watch saw: when pods came, and the uids of each attempt."""

    times: list[float] = field(default_factory=list)
    uids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def rate(self) -> float:
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])

    async def watch(self, kubeconfig: Path, *, deployment: str, ready: threading.Event, stop: threading.Event) -> None:
        async with client.KubeClient(server_access.connect(kubeconfig=kubeconfig)) as api:
            selector = f"{labels.DEPLOYMENT_LABEL}={deployment}"
            listed = await api.list_pods("default", selector=selector)
            ready.set()
            async for event in api.watch_pods(
                "default", selector=selector, resource_version=listed.resource_version, silence_s=120
            ):
                if event["type"] == "ADDED":
                    metadata = event["object"]["metadata"]
                    self.times.append(time.monotonic())
                    self.uids[metadata["annotations"][labels.ATTEMPT_ANNOTATION]].add(metadata["uid"])
                if stop.is_set():
                    return


def kwargs(trace: Path) -> dict[str, object]:
    return {
        "image": "busybox",
        "cmds": ["sh", "-c", f'echo "$ATTEMPT" >> {trace}'],
        "env_vars": [{"name": "ATTEMPT", "valueFrom": ATTEMPT}],
    }


async def bare(kubeconfig: Path, *, deployment: str, trace: Path) -> None:
    """Posts manifests built before, and each again until it is there."""
    chosen = options.Options(profile_for=lambda _: options.QueueProfile(), app_path="a:b", deployment=deployment)
    bodies = [
        json.dumps(
            builder.build(
                builders.message(f"bare-{number}", name=builder.ANY_IMAGE_TASK, kwargs=kwargs(trace)),
                profile=options.QueueProfile(),
                options=chosen,
                owner="bare",
            )
        ).encode()
        for number in range(PODS)
    ]
    slots = asyncio.Semaphore(CONCURRENCY)

    async def post(body: bytes) -> None:
        while True:
            try:
                async with slots:
                    await api.create_pod("default", body)
            except errors.ApiUnavailable:
                continue
            except errors.ApiError as error:
                if error.status == 409:
                    return
                await asyncio.sleep((error.retry_after_s or 0.5) * (1 + random.random() / 4))
            else:
                return

    async with client.KubeClient(server_access.connect(kubeconfig=kubeconfig)) as api:
        await asyncio.gather(*map(post, bodies))


def dispatched(yard: Yard, trace: Path) -> None:
    """The same pods by the dispatcher, whose queue is full before it starts, until all outcomes are stored."""
    ids = [f"ours-{number}" for number in range(PODS)]
    for task_id in ids:
        yard.client.send_task(builder.ANY_IMAGE_TASK, kwargs=kwargs(trace), queue="kubernetes", task_id=task_id)
    yard.dispatcher(YARD_MAX_PODS=str(PODS))
    keys = [f"celery-task-meta-{task_id}" for task_id in ids]
    client = yard.client.backend.client
    parts.eventually(lambda: client.exists(*keys) == PODS, 300, every_s=0.2, what="all outcomes")
    states = Counter(json.loads(text)["status"] for text in client.mget(keys))
    print(f"  outcomes of the dispatcher's tasks: {dict(states)}")


def measured(label: str, kubeconfig: Path, deployment: str, trace: Path, work: Callable[[], None]) -> float:
    """Runs one of the two, and prints what became of its pods."""
    watched, ready, stop = Watched(), threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(
            lambda: asyncio.run(watched.watch(kubeconfig, deployment=deployment, ready=ready, stop=stop))
        )
        ready.wait(10)
        work()
        parts.eventually(lambda: trace.exists() and len(trace.read_text().split()) >= PODS, 30, what="all lines")
        stop.set()
        watching.result(60)  # a bookmark at the latest wakes it
    lines = Counter(trace.read_text().split())
    doubled = sum(len(uids) > 1 for uids in watched.uids.values()), sum(count > 1 for count in lines.values())
    lost = PODS - len(watched.uids), PODS - len(lines)
    print(f"  {label:12} {watched.rate:6.0f} pods/s; twice: {doubled[0]} by uid, {doubled[1]} by line;", end="")
    print(f" lost: {lost[0]} by uid, {lost[1]} by line", flush=True)
    return watched.rate


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        valkey = parts.Valkey.start(folder / "valkey")
        local = parts.LocalCluster.start(folder / "cluster", "--faults", "--max-pods", str(PODS))
        os.environ["YARD_CONCURRENCY"] = str(PODS)
        yard = Yard(folder=folder, broker=valkey.fresh().url, kubeconfig=local.kubeconfig, deployment="faulty")
        faults = Faults.of(local.kubeconfig)
        try:
            faults.play(kinds.Script(seed=7, faults=FAULTS))
            print(f"{PODS} pods, {CONCURRENCY} creates at once, creates take 500 ms, 5 % 429, 1 % without an answer:")
            trace = folder / "bare.trace"
            plain = measured(
                "bare loop",
                local.kubeconfig,
                "bare",
                trace,
                lambda: asyncio.run(bare(local.kubeconfig, deployment="bare", trace=trace)),
            )
            faults.play(kinds.Script(seed=7, faults=FAULTS))
            trace = folder / "ours.trace"
            ours = measured("dispatcher", local.kubeconfig, "faulty", trace, lambda: dispatched(yard, trace))
            print(f"  ratio        {ours / plain:6.2f}")
        finally:
            yard.stop()
            local.stop()
            valkey.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
