"""The labels and annotations of our pods: their keys, the selectors, and reading a pod's identity back. Pure."""

from collections.abc import Mapping
from typing import Any

from dispatcher.manifests import names
from dispatcher.manifests.merge import BASE
from dispatcher.protocol.message import LaunchKey

PREFIX = "podyard.dev/"
"""Of every label and annotation that is ours alone."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "podyard"
DEPLOYMENT_LABEL = f"{PREFIX}deployment"
QUEUE_LABEL = f"{PREFIX}queue"
ATTEMPT_LABEL = f"{PREFIX}attempt"
TASK_LABEL = f"{PREFIX}task"
OWNER_LABEL = f"{PREFIX}owner"

# The raw texts: a label value ends at 63 characters and may not hold most of what ids hold, annotations may.
ATTEMPT_ANNOTATION = f"{PREFIX}attempt-id"
RETRIES_ANNOTATION = f"{PREFIX}retries"
QUEUE_ANNOTATION = f"{PREFIX}queue"
TASK_ANNOTATION = f"{PREFIX}task"
MESSAGE_ANNOTATION = f"{PREFIX}message"
REPLACED_ANNOTATION = f"{PREFIX}replaced"
"""How often the task has replaced itself before; absent where it never has."""
CONTAINER_ANNOTATION = f"{PREFIX}container"
"""The name of the container that decides, where it is not `base`."""
DONE_LABEL = f"{PREFIX}done"
"""On a finished pod that is kept for people: it is out of every selector of ours."""


def selector(*, deployment: str, owner: str | None = None) -> str:
    """The label selector of all pods of a deployment, or of one dispatcher's, that are not marked as done."""
    parts = [f"{DEPLOYMENT_LABEL}={names.label_value(deployment)}", f"!{DONE_LABEL}"]
    if owner is not None:
        parts.append(f"{OWNER_LABEL}={names.label_value(owner)}")
    return ",".join(parts)


def owner_of(pod: Mapping[str, Any]) -> str:
    """The label of the dispatcher that has the pod."""
    return str(((pod.get("metadata") or {}).get("labels") or {}).get(OWNER_LABEL, ""))


def base_of(pod: Mapping[str, Any]) -> str:
    """The name of the container that decides."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(CONTAINER_ANNOTATION) or BASE)


def is_done(pod: Mapping[str, Any]) -> bool:
    """Whether the outcome of a pod is stored, and the pod only kept for people."""
    return DONE_LABEL in ((pod.get("metadata") or {}).get("labels") or {})


def key_of(pod: Mapping[str, Any]) -> LaunchKey | None:
    """The launch that a pod claims to be, or None where it does not say or says nonsense."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    try:
        return LaunchKey(
            attempt_id=str(annotations[ATTEMPT_ANNOTATION]),
            replaced=int(annotations.get(REPLACED_ANNOTATION) or 0),
            retries=int(annotations[RETRIES_ANNOTATION]),
        )
    except (KeyError, ValueError, TypeError):
        return None
