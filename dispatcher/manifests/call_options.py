"""Call options: what the sender of a Celery task may ask of its pod, checked where it is asked.

`on_pod` gives options for `apply_async`, `signature` and `send_task`: the queue, and the message header that the
dispatcher reads. A mistake in an override fails here, at the caller, and not minutes later in a result. Imported by
clients, which need not have anything of Kubernetes installed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.manifests import merge
from dispatcher.protocol.message import HEADER


def on_pod(
    *,
    queue: str | None = "kubernetes",
    pod_override: Any = None,
    pod_template_file: str | None = None,
    name: str | Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Options of a call that runs in a pod: `task.apply_async(args, **on_pod(pod_override={...}))`.

    `queue` None leaves the routing as it is. `pod_override` is a mapping or a `V1Pod`, laid over the task's own;
    `name` is what the pod's name begins with; `labels` are any texts; `headers` are further headers of the message.
    Raises InvalidOverride that names the path of what is wrong.
    """
    requested: dict[str, Any] = {}
    if pod_override is not None:
        requested["pod_override"] = merge.plain_override(pod_override)
    if pod_template_file is not None:
        requested["pod_template_file"] = str(pod_template_file)
    if name is not None:
        requested["name"] = [name] if isinstance(name, str) else list(name)
    if labels:
        requested["labels"] = dict(labels)
    options: dict[str, Any] = {"headers": {**(headers or {}), HEADER: requested}}
    return options if queue is None else {"queue": queue, **options}
