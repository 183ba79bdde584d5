"""A pod manifest as far as this cluster acts on it: typed views of the JSON. Unknown fields are left alone.

Decoding doubles as the check of types: a number where a text belongs is refused before anything looks at it.
"""

import re
from typing import Any, TypeVar

import msgspec

from dispatcher.localcluster.objects import refusal


class _Part(msgspec.Struct, rename="camel", kw_only=True):
    """A JSON object; null counts as not set."""


T = TypeVar("T", bound=_Part)


class KeyRef(_Part):
    name: str = ""
    key: str = ""
    optional: bool | None = None


class Ref(_Part):
    name: str = ""
    optional: bool | None = None


class FieldRef(_Part):
    field_path: str = ""


class EnvSource(_Part):
    field_ref: FieldRef | None = None
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    resource_field_ref: dict[str, Any] | None = None
    file_key_ref: dict[str, Any] | None = None


class EnvVar(_Part):
    name: str = ""
    value: str | None = None
    value_from: EnvSource | None = None


class EnvFrom(_Part):
    prefix: str | None = None
    config_map_ref: Ref | None = None
    secret_ref: Ref | None = None


class VolumeMount(_Part):
    name: str = ""
    mount_path: str = ""
    sub_path: str | None = None
    sub_path_expr: str | None = None
    read_only: bool | None = None


class Port(_Part):
    name: str | None = None
    container_port: int = 0
    host_port: int | None = None
    protocol: str | None = None


class Resources(_Part):
    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class Container(_Part):
    name: str = ""
    image: str | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str | None = None
    env: list[EnvVar] | None = None
    env_from: list[EnvFrom] | None = None
    volume_mounts: list[VolumeMount] | None = None
    ports: list[Port] | None = None
    resources: Resources | None = None
    restart_policy: str | None = None
    termination_message_path: str | None = None
    termination_message_policy: str | None = None
    image_pull_policy: str | None = None
    liveness_probe: dict[str, Any] | None = None
    readiness_probe: dict[str, Any] | None = None
    startup_probe: dict[str, Any] | None = None
    lifecycle: dict[str, Any] | None = None
    security_context: dict[str, Any] | None = None

    @property
    def is_sidecar(self) -> bool:
        """Said of an init container: it serves the others until they have ended."""
        return self.restart_policy == "Always"


class KeyToPath(_Part):
    key: str = ""
    path: str = ""
    mode: int | None = None


class ConfigMapVolume(_Part):
    name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class SecretVolume(_Part):
    secret_name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class HostPathVolume(_Part):
    path: str = ""


class ClaimVolume(_Part):
    claim_name: str = ""


class Volume(_Part):
    name: str = ""
    empty_dir: dict[str, Any] | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    host_path: HostPathVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None


class PodSpec(_Part):
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    restart_policy: str | None = None
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    node_name: str | None = None
    node_selector: dict[str, str] | None = None
    tolerations: list[dict[str, Any]] | None = None
    service_account_name: str | None = None
    priority_class_name: str | None = None
    dns_policy: str | None = None
    automount_service_account_token: bool | None = None
    security_context: dict[str, Any] | None = None
    affinity: dict[str, Any] | None = None
    host_network: bool | None = None
    hostname: str | None = None
    subdomain: str | None = None
    host_aliases: list[dict[str, Any]] | None = None
    dns_config: dict[str, Any] | None = None
    runtime_class_name: str | None = None


class Owner(_Part):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class ObjectMeta(_Part):
    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[Owner] | None = None
    deletion_grace_period_seconds: int | None = None


class Thing(_Part):
    """Any object."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


class ConfigData(_Part):
    """A ConfigMap or Secret."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None


class Pod(_Part):
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)


_POD = msgspec.json.Decoder(Pod)
_TYPES: dict[str, type[_Part]] = {"Pod": Pod, "ConfigMap": ConfigData, "Secret": ConfigData}
_WORDS = {"str": "string", "int": "number", "float": "number", "array": "array", "object": "object", "bool": "boolean"}


def read_pod(body: bytes) -> Pod:
    """A stored pod."""
    return _POD.decode(body)


def check_types(kind: str, thing: Any) -> None:
    """Raises Refusal 400 that names the first field of a wrong type."""
    try:
        msgspec.convert(thing, _TYPES.get(kind, Thing))
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at ")
        words = re.sub(r"`(\w+)`", lambda found: _WORDS.get(found[1], found[1]), words)
        path = place.strip("`").removeprefix("$.") or "the body"
        raise refusal.bad_request(
            f'{kind} in version "v1" cannot be handled as a {kind}: {path}: {words[:1].lower()}{words[1:]}'
        ) from None


def view(thing: Any, shape: type[T]) -> T:
    """A typed view of an object whose types were checked."""
    return msgspec.convert(thing, shape)
