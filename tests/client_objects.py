"""Objects of the Kubernetes client from mappings, in any of its releases: those of 37 are pydantic's."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from kubernetes import client

IS_PYDANTIC = int(version("kubernetes").partition(".")[0]) >= 37


def pod_of(written: Mapping[str, Any]) -> Any:
    """The `V1Pod` of a manifest."""
    if IS_PYDANTIC:
        return client.V1Pod.from_dict(written)
    return client.ApiClient()._ApiClient__deserialize(written, "V1Pod")


def manifest_of(pod: Any) -> Any:
    """The manifest of a `V1Pod`, as the client would send it."""
    return pod.to_dict(serialize=True) if IS_PYDANTIC else client.ApiClient().sanitize_for_serialization(pod)


def unchecked_pod(**spec: Any) -> Any:
    """A `V1Pod` whose spec holds whatever it is given."""
    if IS_PYDANTIC:
        return client.V1Pod.model_construct(spec=client.V1PodSpec.model_construct(**spec))
    return client.V1Pod(spec=client.V1PodSpec(containers=[], **spec))
