"""Secrets and volumes as authors write them, and the pod override that each one means.

Pure, and light: authors' files import these through `dispatcher`. What is made here is JSON;
`dispatcher.manifests.merge` attaches it to a pod, always at the task container.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dispatcher import errors
from dispatcher.manifests import merge, names, pod_schema


class Attachable(Protocol):
    """What `override_of` takes: `Secret`, `Volume`, `VolumeMount`."""

    def to_override(self) -> dict[str, Any]:
        """The pod override that attaches this to the task container."""


@dataclass(frozen=True)
class Secret:
    """A Kubernetes secret for the task container: as environment, or as files.

    Raises InvalidPod (a ValueError) for arguments that mean nothing.
    """

    deploy_type: Literal["env", "volume"]
    deploy_target: str | None
    """The name of the variable, or the folder to mount at. Not used where a whole secret becomes environment."""
    secret: str
    """The name of the secret."""
    key: str | None = None
    """One key of it; None means all keys, each under its own name."""
    items: Sequence[Any] | None = None
    """For a volume: which keys become which files, `{"key": …, "path": …, "mode": …}`; mode is optional."""

    def __post_init__(self) -> None:
        if self.deploy_type not in ("env", "volume"):
            raise errors.InvalidPod(f"Secret: deploy_type must be 'env' or 'volume', not {self.deploy_type!r}")
        if not isinstance(self.secret, str) or not self.secret.strip():
            raise errors.InvalidPod("Secret: secret must be the name of a secret")
        if self.key is not None and not self.deploy_target:
            raise errors.InvalidPod(
                f"Secret {self.secret!r}: a key needs a target; give deploy_target, the variable or folder for it"
            )
        if self.deploy_type == "volume" and not self.deploy_target:
            raise errors.InvalidPod(f"Secret {self.secret!r}: a volume needs a target; give deploy_target, a folder")
        if self.items and (self.deploy_type == "env" or self.key is not None):
            raise errors.InvalidPod(f"Secret {self.secret!r}: items select files of a volume; give them without a key")

    def to_override(self) -> dict[str, Any]:
        """The pod override that attaches this to the task container."""
        if self.deploy_type == "volume":
            return self._as_volume()
        if self.key is None:
            return _at_base(envFrom=[{"secretRef": {"name": self.secret}}])
        reference = {"secretKeyRef": {"name": self.secret, "key": self.key}}
        return _at_base(env=[{"name": self.deploy_target, "valueFrom": reference}])

    def _as_volume(self) -> dict[str, Any]:
        """A read-only mount; its volume has the same name in every pod, so that a manifest can be compared."""
        source: dict[str, Any] = {"secretName": self.secret}
        if self.key is not None:
            source["items"] = [{"key": self.key, "path": self.key}]
        elif self.items:
            source["items"] = list(self.items)
        name = names.pod_name("secret", self.secret, key=repr((self.deploy_target, source)))
        mount = {"name": name, "mountPath": self.deploy_target, "readOnly": True}
        return _plain(
            f"Secret {self.secret!r}",
            {"spec": {"volumes": [{"name": name, "secret": source}], **_at_base(volumeMounts=[mount])["spec"]}},
        )


@dataclass(frozen=True)
class Volume:
    """A volume of the pod: `configs` is its source as the API spells it, such as `{"emptyDir": {}}`."""

    name: str
    configs: Mapping[str, Any]

    def to_override(self) -> dict[str, Any]:
        """The pod override that adds the volume."""
        # The name last: what stands in `configs` cannot rename the volume.
        return _plain(f"Volume {self.name!r}", {"spec": {"volumes": [{**self.configs, "name": self.name}]}})


@dataclass(frozen=True)
class VolumeMount:
    """Where the task container sees a volume."""

    name: str
    mount_path: str
    sub_path: str | None = None
    read_only: bool = False

    def to_override(self) -> dict[str, Any]:
        """The pod override that mounts the volume."""
        mount: dict[str, Any] = {"name": self.name, "mountPath": self.mount_path}
        if self.sub_path:
            mount["subPath"] = self.sub_path
        if self.read_only:
            mount["readOnly"] = True
        return _at_base(volumeMounts=[mount])


def _at_base(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": merge.BASE, **fields}]}}


def _plain(what: str, override: Mapping[str, Any]) -> dict[str, Any]:
    """A checked plain copy; what authors gave may hold objects of the Kubernetes client."""
    try:
        return pod_schema.plain_pod(override, keep_nulls=False)
    except pod_schema.WrongField as wrong:
        raise errors.InvalidPod(f"{what}: {wrong}") from None


def override_of(parts: Iterable[Attachable]) -> dict[str, Any]:
    """One pod override that attaches all parts, in their order."""
    merged: dict[str, Any] = {}
    for part in parts:
        merged = merge.merge_pod(merged, part.to_override())
    return merged
