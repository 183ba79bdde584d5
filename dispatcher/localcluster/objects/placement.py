"""Whether the one node suits a pod. Pure; the words are the scheduler's."""

from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.localcluster.objects import manifest

Json = dict[str, Any]


def why_not(pod: manifest.Pod, node: str, labels: Mapping[str, str], taints: Sequence[Json] = ()) -> str:
    """Empty where the pod may run here, else the reason."""
    spec = pod.spec
    if spec.node_name and spec.node_name != node:
        return f"the pod is bound to the node {spec.node_name}"
    # One node, so the words of a scheduler that has looked at one.
    if any(labels.get(key) != value for key, value in (spec.node_selector or {}).items()):
        return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    for taint in taints:
        # PreferNoSchedule is a wish of the node, and there is no other one to prefer.
        if taint.get("effect") != "PreferNoSchedule" and not tolerates(spec.tolerations or [], taint):
            said = f"{taint['key']}: {taint.get('value', '')}"
            return f"0/1 nodes are available: 1 node(s) had untolerated taint {{{said}}}."
    missing = sorted(_extended(pod))
    if missing:
        return "0/1 nodes are available: " + ", ".join(f"1 Insufficient {name}" for name in missing) + "."
    return ""


def _extended(pod: manifest.Pod) -> set[str]:
    """Resources such as `nvidia.com/gpu`, of which this node has none."""
    return {
        name
        for container in [*(pod.spec.containers or []), *(pod.spec.init_containers or [])]
        if container.resources
        for declared in (container.resources.limits, container.resources.requests)
        for name, amount in (declared or {}).items()
        # Extended resources alone are checked; processes share the machine's cpu and memory without limit.
        if "/" in name and str(amount) != "0"
    }


def tolerates(tolerations: Sequence[Json], taint: Json) -> bool:
    """Whether one of the tolerations covers the taint."""
    for toleration in tolerations:
        key, operator = toleration.get("key", ""), toleration.get("operator", "Equal")
        covers = not key if operator == "Exists" and not key else key == taint["key"]
        same = operator == "Exists" or toleration.get("value", "") == taint.get("value", "")
        if covers and same and toleration.get("effect") in {None, "", taint.get("effect")}:
            return True
    return False
