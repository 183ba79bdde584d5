"""The one node, as an object. Reads this machine's processors and memory."""

import os
import platform
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dispatcher.localcluster.objects import release, times


@dataclass(frozen=True, kw_only=True)
class Node:
    """The one machine."""

    name: str
    address: str = "127.0.0.1"
    max_pods: int = 110


def manifest(node: Node, *, now: datetime) -> dict[str, Any]:
    """A node that is Ready, with this machine's processors and memory."""
    system, machine = platform.system().lower(), {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{_memory_kib()}Ki", "pods": str(node.max_pods)}
    at = times.write(now)
    return {
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/arch": machine or platform.machine(),
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": system,
            },
            "annotations": {"podyard.dev/local-cluster": "pods are processes of this machine, without isolation"},
        },
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [{"type": "InternalIP", "address": node.address}, {"type": "Hostname", "address": node.name}],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "the local cluster runs pods as processes",
                    "lastHeartbeatTime": at,
                    "lastTransitionTime": at,
                }
            ],
            "nodeInfo": {
                "architecture": machine,
                "bootID": "",
                "containerRuntimeVersion": "process://1",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": release.GIT_VERSION,
                "machineID": "",
                "operatingSystem": system,
                "osImage": platform.platform(),
                "systemUUID": "",
            },
        },
    }


_UNREACHABLE = "node.kubernetes.io/unreachable"


def lost(node: dict[str, Any], *, now: datetime) -> dict[str, Any]:
    """The node as the control plane sees it when its kubelet says nothing any more."""
    taints = [{"key": _UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    unknown = {
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastTransitionTime": times.write(now),
    }
    conditions = [condition | unknown for condition in node["status"]["conditions"]]
    return node | {"spec": {"taints": taints}, "status": node["status"] | {"conditions": conditions}}


def _memory_kib() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    except (ValueError, OSError):
        return 0
