"""Volumes as folders: emptyDir, configMap, secret, hostPath and claims; anything else is said to be missing here."""

import posixpath
from collections.abc import Mapping
from pathlib import Path

from dispatcher.localcluster.kubelet import environment, runtime
from dispatcher.localcluster.objects import manifest

SUPPORTED = "emptyDir, configMap, secret, hostPath, persistentVolumeClaim"


def make(volumes: list[manifest.Volume], *, folder: Path, claims: Path, lookup: environment.Lookup) -> dict[str, Path]:
    """Volume name -> its folder, filled; raises NotReady `FailedMount` that says what is missing.

    `claims` holds a folder per claim of the pod's namespace, made when first used: there are no claims as objects.
    """
    try:
        return {
            volume.name: _claimed(volume, volume.persistent_volume_claim.claim_name, claims)
            if volume.persistent_volume_claim is not None
            else _make_one(volume, folder / volume.name, lookup)
            for volume in volumes
        }
    except OSError as error:
        raise runtime.NotReady("FailedMount", f"the volumes cannot be made: {error}") from error


def in_use(pod: manifest.Pod) -> list[manifest.Volume]:
    """The volumes that at least one container mounts."""
    containers = [*(pod.spec.init_containers or []), *(pod.spec.containers or [])]
    names = {mount.name for container in containers for mount in container.volume_mounts or []}
    return [volume for volume in pod.spec.volumes or [] if volume.name in names]


def _make_one(volume: manifest.Volume, folder: Path, lookup: environment.Lookup) -> Path:
    if volume.host_path is not None:
        return Path(volume.host_path.path)
    if volume.config_map is not None:
        source, kind, name = volume.config_map, "configmap", volume.config_map.name
        _fill(folder, volume, _data(volume, kind, name, optional=bool(source.optional), lookup=lookup), source.items)
    elif volume.secret is not None:
        hidden, kind, name = volume.secret, "secret", volume.secret.secret_name
        _fill(folder, volume, _data(volume, kind, name, optional=bool(hidden.optional), lookup=lookup), hidden.items)
    elif volume.empty_dir is not None:
        folder.mkdir(parents=True, exist_ok=True)
    else:
        words = f'volume "{volume.name}" is of a kind that the local cluster does not have (it has {SUPPORTED})'
        raise runtime.NotReady("FailedMount", words)
    return folder


def _claimed(volume: manifest.Volume, name: str, claims: Path) -> Path:
    # A claim is a folder beside those of others: its name must not lead out of there.
    if not name or "/" in name or name.startswith("."):
        raise runtime.NotReady("FailedMount", f'volume "{volume.name}": {name!r} is no name of a claim')
    folder = claims / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _data(
    volume: manifest.Volume, kind: str, name: str, *, optional: bool, lookup: environment.Lookup
) -> Mapping[str, str]:
    data = lookup(kind, name)
    if data is None and not optional:
        raise runtime.NotReady(
            "FailedMount", f'MountVolume.SetUp failed for volume "{volume.name}" : {kind} "{name}" not found'
        )
    return data or {}


def _fill(
    folder: Path, volume: manifest.Volume, data: Mapping[str, str], items: list[manifest.KeyToPath] | None
) -> None:
    files = {key: key for key in data} if items is None else {item.path: item.key for item in items}
    folder.mkdir(parents=True, exist_ok=True)
    for path, key in files.items():
        if key not in data:
            words = f'MountVolume.SetUp failed for volume "{volume.name}" : references non-existent config key: {key}'
            raise runtime.NotReady("FailedMount", words)
        if path.startswith("/") or ".." in path.split("/"):
            raise runtime.NotReady("FailedMount", f'volume "{volume.name}": {path} leaves the volume')
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data[key].encode(errors="surrogateescape"))
        # Secrets: the pods are processes of this user, and nobody else's.
        file.chmod(0o600)


def mounted(container: manifest.Container, folders: Mapping[str, Path]) -> dict[str, str]:
    """Mount path -> real path for one container; a `subPath` that is missing becomes a folder."""
    paths = {}
    for mount in container.volume_mounts or []:
        if mount.sub_path_expr:
            raise runtime.NotReady(
                "CreateContainerConfigError", f"subPathExpr of {mount.mount_path} is not supported by the local cluster"
            )
        real = folders[mount.name]
        if mount.sub_path:
            real = real / mount.sub_path
            # A `subPath` of a file in a ConfigMap is that file; only what is missing becomes a folder.
            if not real.exists():
                real.mkdir(parents=True)
        # Text is replaced by text: `/data/` and `/data` are one.
        paths[posixpath.normpath(mount.mount_path)] = str(real)
    return paths
