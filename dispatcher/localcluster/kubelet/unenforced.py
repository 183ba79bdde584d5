"""What processes cannot do that containers do: pod -> notes for its events, so that nothing is silent. Pure."""

from collections.abc import Iterator
from pathlib import Path

from dispatcher.localcluster.kubelet.runtime import Note
from dispatcher.localcluster.objects import manifest


def notes(pod: manifest.Pod, volumes: Path) -> tuple[Note, ...]:
    """One note for all that is not enforced, one for the paths that are rewritten."""
    found = []
    unmet = list(dict.fromkeys(_unmet(pod)))
    if unmet:
        found.append(Note("NotIsolated", "the local cluster runs processes and does not enforce: " + ", ".join(unmet)))
    mounted = [
        f"{mount.mount_path} in {container.name}"
        for container in _containers(pod)
        for mount in container.volume_mounts or []
    ]
    if mounted:
        words = (
            f"processes have no mount points: {', '.join(mounted)} stand for folders below {volumes}; these paths are "
            "replaced where they occur in command, args, workingDir and environment"
        )
        found.append(Note("MountPathRewritten", words))
    return tuple(found)


def _containers(pod: manifest.Pod) -> list[manifest.Container]:
    return [*(pod.spec.init_containers or []), *(pod.spec.containers or [])]


def _unmet(pod: manifest.Pod) -> Iterator[str]:
    spec = pod.spec
    if spec.security_context:
        yield "securityContext"
    if spec.affinity:
        yield "affinity"
    if spec.host_aliases or spec.dns_config:
        yield "hostAliases, dnsConfig"
    if spec.runtime_class_name:
        yield "runtimeClassName"
    if spec.automount_service_account_token:
        yield "automountServiceAccountToken (no token is mounted)"
    for container in _containers(pod):
        yield from _unmet_by(container)


def _unmet_by(container: manifest.Container) -> Iterator[str]:
    if container.resources and (container.resources.limits or container.resources.requests):
        yield "resources"
    if container.security_context:
        yield "securityContext"
    if container.liveness_probe or container.readiness_probe or container.startup_probe:
        yield "probes"
    if container.lifecycle:
        yield "lifecycle hooks"
    if any(mount.read_only for mount in container.volume_mounts or []):
        yield "readOnly mounts"
