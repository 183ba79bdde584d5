"""Redaction: a manifest as people may see it. Pure.

Values of environment variables whose name or value looks like a secret are hidden, and so is the task message, which
holds the arguments of the task. What stands in commands and arguments of containers is shown: `kubectl describe` shows
it to the same people.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

from dispatcher.manifests import podspec

HIDDEN = "•••"
_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|dsn|auth|conn", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/\s]*:[^/\s]*@|-----BEGIN ")


def redacted(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a pod manifest without the values that look like secrets, and with its task message shortened."""
    pod: dict[str, Any] = copy.deepcopy(dict(manifest))
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    message = annotations.get(podspec.MESSAGE_ANNOTATION)
    if message is not None:
        annotations[podspec.MESSAGE_ANNOTATION] = f"{HIDDEN} ({len(str(message).encode())} bytes)"
    spec = pod.get("spec") or {}
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for entry in container.get("env") or ():
            if entry.get("value") and looks_secret(str(entry.get("name")), str(entry["value"])):
                entry["value"] = HIDDEN
    return pod


def looks_secret(name: str, value: str) -> bool:
    """Whether an environment variable may be a secret, by its name or by a password inside of its value."""
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))
