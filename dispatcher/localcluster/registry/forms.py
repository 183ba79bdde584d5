"""The form of an object: as it is asked for -> as it is stored, or a refusal. Pure but for the uid.

Types first, then what the server fills in, then its rules, as an API server goes about it.
"""

import base64
import binascii
import uuid
from datetime import datetime
from typing import Any

from dispatcher.localcluster.objects import manifest, quantities, refusal, resources, times
from dispatcher.localcluster.registry import pod_defaults, pod_validation, schema, validation, workload_validation

Json = dict[str, Any]
HEAD = frozenset({"kind", "apiVersion", "metadata"})
_SERVER_FIELDS = ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink")
"""Metadata that a caller may send and the server alone decides."""


def without_nulls(value: Any) -> Any:
    """null means "not set"; a copy without them."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [without_nulls(entry) for entry in value]
    return value


def check_address(resource: resources.Resource, namespace: str, thing: Json) -> None:
    """Raises Refusal 400 where the object is not of the kind or namespace of its address."""
    kind, version = thing.get("kind", resource.kind), thing.get("apiVersion", resource.api_version)
    if kind != resource.kind or version != resource.api_version:
        raise refusal.bad_request(
            f"{kind} in version {version!r} cannot be handled as a {resource.kind}: this address takes "
            f"apiVersion {resource.api_version}, kind {resource.kind}"
        )
    check_types(resource, thing)
    if thing.get("metadata", {}).get("namespace", namespace) != namespace:
        raise refusal.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def check_types(resource: resources.Resource, thing: Json) -> None:
    """Raises Refusal 400 that names the first field of a wrong type."""
    manifest.check_types(resource.kind, thing)
    if resource is resources.PODS:
        quantities.check(thing)
    elif resource.is_only_checked:
        schema.check_types(resource.kind, thing)


def fill(resource: resources.Resource, thing: Json, *, now: datetime) -> None:
    """Identity, time and defaults of a new object that has a name."""
    given = thing.pop("metadata")
    for field in _SERVER_FIELDS:
        given.pop(field, None)
    metadata = given | {"uid": str(uuid.uuid4()), "creationTimestamp": times.write(now)}
    rest = {key: value for key, value in thing.items() if key not in HEAD}
    thing.clear()
    thing.update({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata, **rest})
    if resource is resources.PODS:
        metadata.setdefault("generation", 1)
        pod_defaults.set_defaults(thing)
    elif resource is resources.NAMESPACES:
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
        # As every real namespace has it; nothing here waits for it.
        thing["spec"] = {"finalizers": ["kubernetes"]}
        thing["status"] = {"phase": "Active"}
    elif resource is resources.SECRETS:
        encode_strings(thing)


def encode_strings(secret: Json) -> None:
    """`stringData` is for writing only: it ends up in `data`. Raises Refusal 400."""
    data = secret.get("data") or {}
    for key, value in data.items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise refusal.bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: data.{key}: illegal base64 data'
            ) from None
    for key, value in (secret.pop("stringData", None) or {}).items():
        data[key] = base64.b64encode(value.encode()).decode()
    if data:
        secret["data"] = data
    secret.setdefault("type", "Opaque")


def check(resource: resources.Resource, thing: Json) -> None:
    """The rules of a kind; raises Refusal 422 that names all fields that are wrong."""
    found = validation.check_metadata(resource, manifest.view(thing, manifest.Thing).metadata)
    if resource is resources.PODS:
        found += pod_validation.check(manifest.view(thing, manifest.Pod), thing["spec"])
    elif resource in {resources.CONFIGMAPS, resources.SECRETS}:
        found += validation.check_data(manifest.view(thing, manifest.ConfigData))
    elif resource.is_only_checked:
        found += workload_validation.check(resource.kind, thing)
    if found:
        raise refusal.invalid(resource.qualified_kind, thing["metadata"]["name"], found)
