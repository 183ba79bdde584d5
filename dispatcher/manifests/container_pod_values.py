"""Values of container pods: arguments of `dispatcher.pod` as plain parts of a manifest, or an error with their path."""

from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.manifests import container_pod_options, pod_schema


def plain(given: Mapping[str, Any], name: str, kind: str) -> Any:
    """A plain copy of the argument `name`, of the API's type `kind`; None if it was not given."""
    return checked(given[name], kind, (name,)) if name in given else None


def checked(value: object, kind: str, path: pod_schema.Path) -> Any:
    """A plain copy of a value of the API's type `kind`."""
    try:
        return pod_schema.plain_value(value, kind, path=path)
    except pod_schema.WrongField as wrong:
        raise container_pod_options.wrong(pod_schema.dotted(wrong.path), wrong.problem) from None


def entries(given: Mapping[str, Any], name: str, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a list, each with its path."""
    entries = plain(given, name, f"[{kind}]") or []
    return [(f"{name}[{index}]", entry) for index, entry in enumerate(entries)]


def sequence(name: str, value: object) -> Sequence[Any]:
    """The value, if it is a list."""
    if not isinstance(value, list | tuple):
        raise container_pod_options.wrong(name, f"must be a list, not {container_pod_options.described(value)}")
    return value
