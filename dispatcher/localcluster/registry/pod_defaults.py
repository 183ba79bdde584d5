"""What the API server fills in when a pod is created: defaults, quality of service, first status. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from typing import Any

Json = dict[str, Any]
GRACE_S = 30
_TOLERATIONS = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for key in ("not-ready", "unreachable")
]


def set_defaults(pod: Json) -> None:
    """Fills in the fields that a real API server would."""
    spec = pod.setdefault("spec", {})
    for field, value in (
        ("restartPolicy", "Always"),
        ("terminationGracePeriodSeconds", GRACE_S),
        ("dnsPolicy", "ClusterFirst"),
        ("serviceAccountName", "default"),
        ("securityContext", {}),
        ("schedulerName", "default-scheduler"),
        ("enableServiceLinks", True),
        ("preemptionPolicy", "PreemptLowerPriority"),
        ("priority", 0),
    ):
        spec.setdefault(field, value)
    # The deprecated field is filled with the new one's value; some clients still read it.
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    # The admission plugin DefaultTolerationSeconds: pods survive five minutes of a lost node.
    if "tolerations" not in spec:
        spec["tolerations"] = [dict(toleration) for toleration in _TOLERATIONS]
    for container in (spec.get("containers") or []) + (spec.get("initContainers") or []):
        _set_container_defaults(container)
    for volume in spec.get("volumes") or []:
        # A misspelt source was taken out as an unknown field: what is left is an empty one, as on a real server.
        if set(volume) <= {"name"}:
            volume["emptyDir"] = {}
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}


def _set_container_defaults(container: Json) -> None:
    image = container.get("image") or ""
    _set_requests(container.setdefault("resources", {}))
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", "Always" if _is_latest(image) else "IfNotPresent")
    for variable in container.get("env") or []:
        source = (variable.get("valueFrom") or {}).get("fieldRef")
        if source is not None:
            source.setdefault("apiVersion", "v1")


def _set_requests(declared: Json) -> None:
    """Quantities are text; what is limited and not requested is requested as limited."""
    for part in ("limits", "requests"):
        if part in declared:
            declared[part] = {name: str(amount) for name, amount in declared[part].items()}
    if declared.get("limits"):
        declared["requests"] = declared["limits"] | declared.get("requests", {})


def _is_latest(image: str) -> bool:
    last = image.rpartition("/")[2]
    return "@" not in image and (":" not in last or last.endswith(":latest"))


def qos_class(spec: Json) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`, by the containers' cpu and memory."""
    containers = (spec.get("containers") or []) + (spec.get("initContainers") or [])
    pairs = []
    for container in containers:
        declared = container.get("resources") or {}
        limits, requests = declared.get("limits") or {}, declared.get("requests") or {}
        pairs += [(limits.get(what), requests.get(what)) for what in ("cpu", "memory")]
    if not any(limit is not None or request is not None for limit, request in pairs):
        return "BestEffort"
    if all(limit is not None and request in {None, limit} for limit, request in pairs):
        return "Guaranteed"
    return "Burstable"
