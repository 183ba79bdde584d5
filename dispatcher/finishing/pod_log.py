"""Pod logs: what is saved of a pod's containers, and what is added about its end.

One container's log is saved as it is; of several, each line says whose it is. A container that is not there, or that
never started, gets a line that says so instead of an error. Called by the clean-up, which writes the file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher import errors
from dispatcher.kubeapi import client
from dispatcher.manifests.container_pod_options import Logs
from dispatcher.protocol import outcome


def containers(pod: Mapping[str, Any], logs: Logs, *, base: str, failed: str | None = None) -> list[str]:
    """The names of the containers whose logs are wanted, those of init containers first. Pure.

    `failed` is the container that failed the pod: its log says why, so it is among them unless none are wanted, and
    takes the place of a task container that never started because of it.
    """
    spec = pod.get("spec") or {}
    # A native sidecar (Kubernetes 1.29) is listed among them, and is told from them by `restartPolicy: Always` alone.
    inits = [str(one.get("name")) for one in spec.get("initContainers") or () if one.get("restartPolicy") != "Always"]
    names = [str(one.get("name")) for one in spec.get("containers") or ()]
    main = names if logs.is_all else [base] if logs.containers is None else logs.containers
    wanted = [*(inits if logs.is_all_inits else logs.inits), *main]
    if failed is None or failed in wanted or logs.containers == ():
        return wanted
    return [failed, *(name for name in wanted if name != base)]


async def read(
    cluster: client.KubeClient, namespace: str, pod: str, *, names: Sequence[str], limit_bytes: int, has_prefix: bool
) -> bytes | None:
    """The logs of some containers of a pod, one after the other; None where a single one has none.

    Raises ApiError and ApiUnavailable, but not for a container that is not there or has not started.
    """
    if len(names) == 1:
        return await _read_one(cluster, namespace, pod, names[0], limit_bytes=limit_bytes)
    parts = []
    for name in names:
        text = await _read_one(cluster, namespace, pod, name, limit_bytes=limit_bytes)
        if text is None:
            text = b"(no log: there is no such container, or it has not started)\n"
        parts.append(prefixed(text, name) if has_prefix else text)
    return b"".join(parts)


async def _read_one(
    cluster: client.KubeClient, namespace: str, pod: str, container: str, *, limit_bytes: int
) -> bytes | None:
    try:
        log = await cluster.read_log(namespace, pod, container=container, limit_bytes=limit_bytes)
    except errors.ApiError as error:
        # The API server says 400 of a container that is not there or has not started; a 404 is about the pod.
        if error.status != 400:
            raise
        return None
    return outcome.strip_frames(log)


def prefixed(log: bytes, container: str) -> bytes:
    """The log with `[container] ` before each line, and a line end behind the last. Pure."""
    mark = f"[{container}] ".encode()
    return b"".join(mark + line.removesuffix(b"\n") + b"\n" for line in log.splitlines(keepends=True))
