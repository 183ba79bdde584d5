"""What no pod may be is refused with its path and the rule; what a site allows is allowed."""

from pathlib import Path
from typing import Any

import pytest

from dispatcher import errors, policy
from dispatcher.manifests import template

TEMPLATES = sorted((Path(__file__).parents[2] / "templates").glob("*.yaml"))


def pod(*, namespace: str = "work", container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    base = {"name": "base", "image": "registry.example.com/task:1", **(container or {})}
    return {"metadata": {"namespace": namespace}, "spec": {"containers": [base], **spec}}


def secured(**context: Any) -> dict[str, Any]:
    return pod(container={"securityContext": context})


def refusal(manifest: dict[str, Any], **allowed: Any) -> str | None:
    try:
        policy.check(manifest, policy.Policy(**allowed), namespaces=("work",))
    except errors.InvalidPod as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("manifest", "path", "allowing"),
    [
        (pod(namespace="kube-system"), "metadata.namespace: 'kube-system'", {"namespaces": ("kube-*",)}),
        (pod(serviceAccountName="admin"), "spec.serviceAccountName: 'admin'", {"service_accounts": ("admin",)}),
        (pod(serviceAccount="admin"), "spec.serviceAccount: 'admin'", {"service_accounts": ("*",)}),
        (pod(hostNetwork=True), "spec.hostNetwork: true", {"host_network": True}),
        (pod(hostPID=True), "spec.hostPID: true", {"host_pid": True}),
        (pod(hostIPC=True), "spec.hostIPC: true", {"host_ipc": True}),
        (
            pod(volumes=[{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/data/x"}}]),
            "spec.volumes[1].hostPath.path: '/data/x'",
            {"host_paths": ("/data",)},
        ),
        (pod(container={"ports": [{"hostPort": 80}]}), "ports[0].hostPort: 80", {"host_ports": True}),
        (secured(privileged=True), "securityContext.privileged: true", {"privileged": True}),
        (secured(capabilities={"add": ["KILL", "CAP_SYS_ADMIN"]}), "capabilities.add[1]", {"capabilities": ("*",)}),
        (secured(procMount="Unmasked"), "procMount: Unmasked", {"unconfined": True}),
        (secured(seccompProfile={"type": "Unconfined"}), "seccompProfile.type", {"unconfined": True}),
        (secured(seLinuxOptions={"user": "root"}), "seLinuxOptions.user", {"unconfined": True}),
        (secured(windowsOptions={"hostProcess": True}), "windowsOptions.hostProcess", {"privileged": True}),
        (
            pod(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}),
            "spec.securityContext.sysctls[0].name: kernel.msgmax",
            {"unconfined": True},
        ),
    ],
)
def test_it_is_refused_with_its_path_unless_the_site_allows_it(
    manifest: dict[str, Any], path: str, allowing: dict[str, Any]
) -> None:
    words = refusal(manifest)
    assert words is not None
    assert path in words
    assert f"policy.{next(iter(allowing))}" in words
    assert refusal(manifest, **allowing) is None


def test_images_may_be_limited_for_every_container() -> None:
    words = refusal(pod(initContainers=[{"name": "i", "image": "evil"}]), images=("registry.example.com/*",))
    assert words is not None
    assert words.startswith("pod: spec.initContainers[0].image: 'evil' is not allowed")


@pytest.mark.parametrize("path", ["/database", "/data/../etc", "data", "/", ""])
def test_a_folder_of_the_node_is_what_is_below_it_and_nothing_else(path: str) -> None:
    assert refusal(pod(volumes=[{"name": "a", "hostPath": {"path": path}}]), host_paths=("/data",))


def test_dropping_capabilities_and_a_user_are_no_privilege() -> None:
    assert refusal(secured(capabilities={"drop": ["ALL"]}, runAsUser=0, readOnlyRootFilesystem=True)) is None


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_the_default_lets_every_template_of_ours_pass(file: Path) -> None:
    manifest = template.load_template(file)
    manifest["metadata"]["namespace"] = "work"
    assert refusal(manifest) is None


def test_patterns_are_known_from_names() -> None:
    rules = policy.Policy(namespaces=("jobs", "team-*"))
    assert rules.plain_namespaces == ("jobs",)
    assert rules.has_namespace_patterns
