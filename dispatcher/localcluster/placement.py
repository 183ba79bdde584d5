"""Whether the one node suits a pod. Pure; the words are the scheduler's."""

from collections.abc import Mapping

from dispatcher.localcluster import manifest


def why_not(pod: manifest.Pod, node: str, labels: Mapping[str, str]) -> str:
    """Empty where the pod may run here, else the reason."""
    spec = pod.spec
    if spec.node_name and spec.node_name != node:
        return f"the pod is bound to the node {spec.node_name}"
    if any(labels.get(key) != value for key, value in (spec.node_selector or {}).items()):
        return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
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
        if "/" in name and str(amount) != "0"
    }
