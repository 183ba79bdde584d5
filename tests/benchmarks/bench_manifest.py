"""What building a pod costs: CPU per manifest, in the median, for the default template and for pods of any image.

The bar is 150 µs for template, override and identity. Run: `make bench ONLY=manifest`.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from dispatcher.manifests import builder
from dispatcher.options import Options, QueueProfile
from dispatcher.protocol.message import Message
from tests import builders

ROUNDS = 2_000
PROFILE = QueueProfile(
    image="registry.example.com/shop:1.2", env={f"SETTING_{number}": "value" for number in range(10)}
)
OPTIONS = Options(profile_for=lambda _: PROFILE, app_path="shop:app", deployment="prod")
OVERRIDE = {
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "nodeSelector": {"disk": "ssd"},
        "containers": [
            {"name": "base", "resources": {"limits": {"memory": "2Gi"}}, "env": [{"name": "A", "value": "1"}]}
        ],
    },
}
OPERATOR: dict[str, Any] = {
    "image": "ubuntu:16.04",
    "cmds": ["bash", "-cx"],
    "arguments": ["echo", "10"],
    "labels": {"foo": "bar"},
    "env_vars": {"LEVEL": "3", "DAY": "2030-01-31"},
    "secrets": [{"type": "env", "target": "SQL_CONN", "secret": "secrets", "key": "sql_conn"}],
    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}],
    "volume_mounts": [{"name": "v", "mountPath": "/data"}],
}


def message(task: str, number: int, *, wishes: dict[str, Any], kwargs: dict[str, Any]) -> Message:
    name = f"0b8f5ad4-9f0e-4a53-9a7b-{number:012}"
    return builders.message(name, name=task, kwargs=kwargs, headers={"podyard": wishes})


def measure(label: str, make: Callable[[int], Message]) -> None:
    for number in range(200):
        builder.build(make(number), profile=PROFILE, options=OPTIONS, owner="dispatcher@host")
    costs = []
    for number in range(ROUNDS):
        sent = make(number)
        start = time.thread_time_ns()
        builder.build(sent, profile=PROFILE, options=OPTIONS, owner="dispatcher@host")
        costs.append((time.thread_time_ns() - start) / 1000)
    costs.sort()
    print(f"{label:44} median {statistics.median(costs):6.1f} µs   p95 {costs[int(ROUNDS * 0.95)]:6.1f} µs")


def main() -> None:
    plain = {"name": ["census", "count"], "labels": {"dag_id": "census", "task_id": "count", "run_id": "r", "try": "1"}}
    task = {"dag_id": "census", "task_id": "count", "inputs": {"a": 1}}
    measure("task pod, default template", lambda n: message("routing.run", n, wishes=plain, kwargs=task))
    wishes = {**plain, "pod_override": OVERRIDE}
    measure("task pod, template and override", lambda n: message("routing.run", n, wishes=wishes, kwargs=task))
    measure("pod of any image", lambda n: message("dispatcher.pod", n, wishes=plain, kwargs=OPERATOR))
    result = {**OPERATOR, "do_xcom_push": True}
    measure(
        "pod of any image that leaves a result", lambda n: message("dispatcher.pod", n, wishes=plain, kwargs=result)
    )


if __name__ == "__main__":
    main()
