"""Message Secrets: task messages that travel in a Secret owned by their pod, because they are large or confidential.

The pod is created first and waits for the Secret, which names the pod's uid as its owner, so that both go together.
What stays in the pod's annotations is a stub without arguments, callbacks and headers of the sender. Pure.
"""

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dispatcher import errors
from dispatcher.manifests import labels
from dispatcher.protocol.message import HEADER, Message

ANNOTATION = f"{labels.PREFIX}payload"
"""On a pod whose message is in a Secret: the Secret's name, which is the pod's."""
KEY = "message"
MOUNT_PATH = "/podyard/payload"
FILE = f"{MOUNT_PATH}/{KEY}"
INLINE_BYTES = 65_536
"""Larger messages travel in a Secret: an environment variable ends at 128 KiB, all annotations of a pod at 256 KiB."""
MAX_BYTES = 921_600
"""A Secret ends at 1 MiB, and a request to etcd, where it is base64, at about 1.5 MiB."""
_VOLUME = "podyard-payload"
_IN_STUB = frozenset(
    {
        "id",
        "task",
        "retries",
        "root_id",
        "parent_id",
        "timelimit",
        "ignore_result",
        "lang",
        "shadow",
        HEADER,
        "replaced_task_nesting",
    }
)


def is_secret(text: str, *, profile_payload: str) -> bool:
    """Whether a message travels in a Secret. Raises InvalidPod for one that is too large even for that."""
    # `surrogatepass`: JSON of a sender may hold half a surrogate pair, which must not fail here but arrive as it is.
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise errors.InvalidPod(
            f"the task message has {size} bytes, a pod can be given {MAX_BYTES}; store large arguments elsewhere and "
            "pass where they are, such as a path or a key"
        )
    return profile_payload == "secret" or size > INLINE_BYTES


def stub(message: Message) -> Message:
    """What of a message may stand in the pod: enough to know which launch it is, nothing that its sender said."""
    headers = {name: value for name, value in message.headers.items() if name in _IN_STUB}
    return replace(message, args=(), kwargs={}, embed={}, headers=headers, properties={})


def layer(name: str) -> dict[str, Any]:
    """What a pod has whose message is in the Secret `name`."""
    return {
        "metadata": {"annotations": {ANNOTATION: name}},
        "spec": {
            "volumes": [{"name": _VOLUME, "secret": {"secretName": name}}],
            "containers": [
                {
                    "name": "base",
                    "volumeMounts": [{"name": _VOLUME, "mountPath": MOUNT_PATH, "readOnly": True}],
                }
            ],
        },
    }


def is_layered(layer: Any) -> bool:
    """Whether a layer is one of ours."""
    return isinstance(layer, Mapping) and ANNOTATION in ((layer.get("metadata") or {}).get("annotations") or {})


def secret(pod: Mapping[str, Any], text: str, *, files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The Secret of a pod that was created, owned by it: the message, and what else its container reads as files."""
    metadata = pod["metadata"]
    # The uid, so that garbage collection removes the Secret with this pod, not with the next of its name.
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {
                label: text
                for label, text in (metadata.get("labels") or {}).items()
                if label in (labels.MANAGED_BY_LABEL, labels.DEPLOYMENT_LABEL, labels.ATTEMPT_LABEL)
            },
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "data": {
            key: base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()
            for key, value in {**(files or {}), KEY: text}.items()
        },
    }


def text_in(secret: Mapping[str, Any]) -> str:
    """The message in a Secret. Raises ValueError where there is none."""
    try:
        return base64.b64decode(secret["data"][KEY], validate=True).decode("utf-8", "surrogatepass")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the Secret holds no task message: {error}") from error


def name_in(pod: Mapping[str, Any]) -> str | None:
    """The name of the Secret that holds a pod's message, or None where the pod itself does."""
    return ((pod.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION)


def with_message(pod: Mapping[str, Any], text: str) -> dict[str, Any]:
    """A pod as if it carried its message itself."""
    metadata = pod["metadata"]
    annotations = {**metadata["annotations"], labels.MESSAGE_ANNOTATION: text}
    return {**pod, "metadata": {**metadata, "annotations": annotations}}
