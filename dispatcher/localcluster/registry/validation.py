"""Which objects a real API server would refuse, whatever they are: object -> causes, in its own words. Pure.

Names, labels, annotations, finalizers, owners; and the data of ConfigMaps and Secrets. Pods have `podvalidation`.
"""

from collections.abc import Iterator

from dispatcher.localcluster.objects import causes, manifest, resources
from dispatcher.localcluster.objects.refusal import Cause
from dispatcher.localcluster.registry import naming

_ANNOTATIONS_BYTES = 256 * 1024
_DATA_BYTES = 1024 * 1024


def check_metadata(resource: resources.Resource, metadata: manifest.ObjectMeta) -> list[Cause]:
    """The metadata of any object."""
    return [
        *_name(resource, metadata.name or ""),
        *naming.labels("metadata.labels", metadata.labels or {}),
        *_annotations(metadata.annotations or {}),
        *_finalizers(metadata.finalizers or []),
        *_owners(metadata.owner_references or []),
    ]


def _name(resource: resources.Resource, name: str) -> Iterator[Cause]:
    if not name:
        yield causes.required("metadata.name", "name or generateName is required")
    elif resource is resources.NAMESPACES:
        yield from naming.label("metadata.name", name)
    else:
        yield from naming.subdomain("metadata.name", name)


def _annotations(annotations: dict[str, str]) -> Iterator[Cause]:
    for key in annotations:
        # In keys of annotations capitals do not matter, says the real server's rule.
        yield from naming.qualified("metadata.annotations", key.lower())
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        yield causes.too_long("metadata.annotations", _ANNOTATIONS_BYTES)


def _finalizers(finalizers: list[str]) -> Iterator[Cause]:
    for finalizer in finalizers:
        yield from naming.qualified("metadata.finalizers", finalizer)
        if "/" not in finalizer:
            words = "name is neither a standard finalizer name nor is it fully qualified"
            yield causes.invalid("metadata.finalizers", finalizer, words)


def _owners(owners: list[manifest.Owner]) -> Iterator[Cause]:
    field = "metadata.ownerReferences"  # a real server names no index here
    for owner in owners:
        if not owner.api_version:
            yield causes.invalid(f"{field}.apiVersion", "", "version must not be empty")
        for name, value in (("kind", owner.kind), ("name", owner.name), ("uid", owner.uid)):
            if not value:
                yield causes.invalid(f"{field}.{name}", "", "must not be empty")
        if (owner.api_version, owner.kind) == ("v1", "Event"):
            yield causes.invalid(field, "", "/v1, Kind=Event is disallowed from being an owner")
    controllers = [f"{owner.kind}/{owner.name}" for owner in owners if owner.controller]
    for further in controllers[1:]:
        found = f'Found "true" in references for {controllers[0]} and {further}'
        yield causes.invalid(field, "", f"Only one reference can have Controller set to true. {found}")


def check_data(config: manifest.ConfigData) -> list[Cause]:
    """Keys and size of a ConfigMap or Secret."""
    found: list[Cause] = []
    plain, binary = config.data or {}, config.binary_data or {}
    for part, data in (("data", plain), ("binaryData", binary)):
        for key in data:
            found += naming.config_key(f"{part}[{key}]", key)
    found += [
        causes.invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in plain if key in binary
    ]
    # 4/3: the values of a Secret are base64, and the limit is of what they stand for.
    if sum(len(value.encode()) for value in [*plain.values(), *binary.values()]) > _DATA_BYTES * 4 // 3:
        found.append(causes.too_long("data", _DATA_BYTES))
    return found
