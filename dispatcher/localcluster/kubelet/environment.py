"""A container's environment: manifest -> variables, with `$(VAR)` expanded. Pure.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dispatcher.localcluster.kubelet import runtime
from dispatcher.localcluster.objects import manifest

Lookup = Callable[[str, str], Mapping[str, str] | None]
"""(`configmap` or `secret`, name) in the pod's namespace -> its data as text, or None."""
_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_KEYED_PATH = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a pod runs."""

    node: str
    host_ip: str
    pod_ip: str


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replaces `$(NAME)` by its value; an unknown name stays as it is, `$$` is a dollar sign."""
    if "$" not in text:
        return text
    return _REFERENCE.sub(lambda found: "$" if found[1] == "$" else values.get(found[2], found[0]), text)


def build(
    container: manifest.Container, pod: manifest.Pod, *, place: Place, lookup: Lookup, base: Mapping[str, str]
) -> dict[str, str]:
    """`base`, then envFrom, then env; raises NotReady `CreateContainerConfigError` that names what is missing."""
    values = dict(base)
    for source in container.env_from or []:
        values |= _all_of(source, lookup)
    for variable in container.env or []:
        value = _value(variable, pod, values, place=place, lookup=lookup)
        if value is not None:
            values[variable.name] = value
    return values


def _all_of(source: manifest.EnvFrom, lookup: Lookup) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind, ref in (("configmap", source.config_map_ref), ("secret", source.secret_ref)):
        if ref is not None:
            data = lookup(kind, ref.name)
            if data is None and not ref.optional:
                raise _missing(kind, ref.name)
            found |= {f"{source.prefix or ''}{key}": value for key, value in (data or {}).items()}
    return found


def _value(
    variable: manifest.EnvVar, pod: manifest.Pod, values: Mapping[str, str], *, place: Place, lookup: Lookup
) -> str | None:
    source = variable.value_from
    if source is None:
        return expand(variable.value or "", values)
    if source.field_ref is not None:
        return field(source.field_ref.field_path, pod, place)
    if source.config_map_key_ref is not None:
        return _key("configmap", source.config_map_key_ref, lookup)
    if source.secret_key_ref is not None:
        return _key("secret", source.secret_key_ref, lookup)
    raise runtime.NotReady(
        "CreateContainerConfigError",
        f"env {variable.name}: the local cluster has only fieldRef, configMapKeyRef and secretKeyRef",
    )


def _key(kind: str, ref: manifest.KeyRef, lookup: Lookup) -> str | None:
    data = lookup(kind, ref.name)
    if data is not None and ref.key in data:
        return data[ref.key]
    if ref.optional:
        return None
    if data is None:
        raise _missing(kind, ref.name)
    title = "ConfigMap" if kind == "configmap" else "Secret"
    raise runtime.NotReady("CreateContainerConfigError", f"couldn't find key {ref.key} in {title} {ref.name}")


def _missing(kind: str, name: str) -> runtime.NotReady:
    return runtime.NotReady("CreateContainerConfigError", f'{kind} "{name}" not found')


def field(path: str, pod: manifest.Pod, place: Place) -> str:
    """The value of a downward API field; validation let no other path pass."""
    metadata = pod.metadata
    if found := _KEYED_PATH.match(path):
        table = metadata.labels if found[1] == "labels" else metadata.annotations
        return (table or {}).get(found[2], "")
    return {
        "metadata.name": metadata.name or "",
        "metadata.namespace": metadata.namespace or "",
        "metadata.uid": metadata.uid or "",
        "spec.nodeName": place.node,
        "spec.serviceAccountName": pod.spec.service_account_name or "default",
        "status.hostIP": place.host_ip,
        "status.hostIPs": place.host_ip,
        "status.podIP": place.pod_ip,
        "status.podIPs": place.pod_ip,
    }[path]
