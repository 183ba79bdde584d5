"""Airflow 1's `executor_config={"KubernetesExecutor": {…}}`, and the `pod_override` that says the same. Pure.

The old form is refused, with the new one in the message: guessing would hide that half of it never meant the pod.
"""

from collections.abc import Mapping
from typing import Any

from routing.authoring import pod_parameters

_SPEC = {
    "affinity": "affinity",
    "image_pull_secrets": "imagePullSecrets",
    "node_selectors": "nodeSelector",
    "service_account_name": "serviceAccountName",
    "tolerations": "tolerations",
    "volumes": "volumes",
}
_CONTAINER = {"image": "image", "image_pull_policy": "imagePullPolicy", "volume_mounts": "volumeMounts"}
_METADATA = ("annotations", "labels")


def written_today(config: Any) -> str:
    """The `executor_config` that says the same, as an author writes it; a sketch where nothing of it can be said."""
    modern = override(config) if isinstance(config, Mapping) else {}
    shown = repr(modern) if modern else "{'spec': {'containers': [{'name': 'base', …}]}}"
    return f"{{'pod_override': {shown}}}"


def override(config: Mapping[Any, Any]) -> dict[str, Any]:
    """The override with the same meaning; what has none today is left out."""
    given = {name: value for name, value in config.items() if value not in (None, {}, [])}
    container = {new: given[old] for old, new in _CONTAINER.items() if old in given}
    resources = pod_parameters.nested_resources(given)
    if resources:
        container["resources"] = resources
    spec: dict[str, Any] = {new: given[old] for old, new in _SPEC.items() if old in given}
    if container:
        spec["containers"] = [{"name": "base", **container}]
    metadata = {name: given[name] for name in _METADATA if name in given}
    return {name: part for name, part in (("metadata", metadata), ("spec", spec)) if part}
