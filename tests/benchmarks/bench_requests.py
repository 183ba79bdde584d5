"""What one pod task costs the API server: requests per task, counted there, by kind of task.

Pods are real processes; logs are saved and pods deleted, as by default. What a dispatcher asks now and then, however
many pods there are, is shown by itself. Counts, not times: a busy machine does not change them. The aim is at most 4
per task in steady state.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dispatcher.localcluster.faults.client import Faults
from dispatcher.manifests import message_secret
from tests import parts
from tests.integration.yard_parts import Yard

PODS = 24
SHARED = frozenset({("pods", "list"), ("pods", "watch"), ("configmaps", "get"), ("configmaps", "patch")})
"""What a dispatcher asks however many pods there are: its watch, and what it shares with other dispatchers."""
Counts = dict[tuple[str, str], int]


def task(name: str, *args: Any) -> Callable[[Yard], Any]:
    return lambda yard: yard.send(name, *args)


def pod(script: str, **arguments: Any) -> Callable[[Yard], Any]:
    kwargs = {"image": "busybox", "cmds": ["sh", "-c", script], **arguments}
    return lambda yard: yard.client.send_task("dispatcher.pod", kwargs=kwargs, queue="kubernetes")


CASES = {
    "task": task("add", 1, 2),
    "task, result of 20 kB by the log": task("large", 20_000),
    "task, arguments in a Secret": task("total", [0] * message_secret.INLINE_BYTES),
    "task that fails": task("fail", "so it is"),
    "task whose process dies": task("leave", 3),
    "pod of any image": pod("true"),
    "pod of any image, small result": pod("echo 1 > /airflow/xcom/return.json", do_xcom_push=True),
    "pod of any image, fails": pod("exit 3"),
    "pod of any image, kept": pod("true", on_finish_action="keep_pod"),
}


def counted(yard: Yard, faults: Faults, send: Callable[[Yard], Any]) -> Counts:
    """Requests by resource and verb from the first message until all is cleaned up."""
    faults.reset_stats()
    sent = [send(yard) for _ in range(PODS)]
    for result in sent:
        parts.eventually(result.ready, 120, what=f"{result.id} ends")
    return parts.eventually(lambda: _quiet(faults), 30, every_s=1.0, what="the server is asked nothing more")


def _quiet(faults: Faults) -> Counts | None:
    """What was asked, once a second has passed in which nothing more was."""
    before = _counts(faults)
    time.sleep(1.0)  # nothing to wait for: that nothing happens is what is looked for
    after = _counts(faults)
    return after if _own(after) == _own(before) else None


def _own(found: Counts) -> Counts:
    return {key: count for key, count in found.items() if key not in SHARED}


def _counts(faults: Faults) -> Counts:
    requests = faults.stats()["requests"]
    return {(resource, verb): count for resource, verbs in requests.items() for verb, count in verbs.items()}


def show(case: str, found: Counts) -> None:
    own = {key: count / PODS for key, count in sorted(_own(found).items())}
    shared = sum(count for key, count in found.items() if key in SHARED)
    words = ", ".join(f"{verb} {resource} {each:.2f}" for (resource, verb), each in own.items())
    print(
        f"  {case:34} {sum(own.values()):5.2f}   {words}" + (f"; in all, for whatever pods, {shared}" if shared else "")
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podyard-bench-") as name:
        folder = Path(name)
        valkey = parts.Valkey.start(folder / "valkey")
        local = parts.LocalCluster.start(folder / "cluster")
        yard = Yard(folder=folder, broker=valkey.fresh().url, kubeconfig=local.kubeconfig, deployment="requests")
        try:
            yard.dispatcher()
            faults = Faults.of(local.kubeconfig)
            counted(yard, faults, CASES["task"])  # the first pods also open the watch
            print(f"requests per task, {PODS} tasks each:")
            for case, send in CASES.items():
                show(case, counted(yard, faults, send))
        finally:
            yard.stop()
            local.stop()
            valkey.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
