"""Conditions in the status of a pod: made, added, dated. Pure.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions
"""

from datetime import datetime
from typing import Any

from dispatcher.localcluster.objects import times

Json = dict[str, Any]


def condition(kind: str, value: str, reason: str = "", message: str = "") -> Json:
    """One condition, without its times."""
    made: Json = {"type": kind, "status": value}
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    return made


def with_condition(status: Json, added: Json, *, now: datetime) -> Json:
    """The status with a condition that the kubelet does not own, such as DisruptionTarget; it stays from then on."""
    others = [old for old in status.get("conditions") or [] if old["type"] != added["type"]]
    return status | {"conditions": [*others, {"lastProbeTime": None, "lastTransitionTime": times.write(now)} | added]}


def disruption(reason: str, message: str) -> Json:
    """The condition of a pod that is about to end for no fault of its own.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    return condition("DisruptionTarget", "True", reason, message)


def unready(status: Json, *, now: datetime) -> Json:
    """What the control plane makes of the status of a pod whose node is lost."""
    for kind in ("Ready", "ContainersReady"):
        status = with_condition(status, condition(kind, "False", "NodeNotReady", "Node is not ready"), now=now)
    return status
