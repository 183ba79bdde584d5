"""What authors write for secrets and volumes attaches to the task container, and nonsense is told at once."""

import dataclasses
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from kubernetes import client

import dispatcher
from dispatcher import Secret, Volume, VolumeMount, errors
from dispatcher.manifests import kubernetes_types, merge


def base(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "base", **fields}]}}


def test_one_key_becomes_a_variable() -> None:
    assert Secret("env", "SQL_CONN", "database", "url").to_override() == base(
        env=[{"name": "SQL_CONN", "valueFrom": {"secretKeyRef": {"name": "database", "key": "url"}}}]
    )


@pytest.mark.parametrize("target", [None, "UNUSED"])
def test_a_whole_secret_becomes_environment(target: str | None) -> None:
    assert Secret("env", target, "database").to_override() == base(envFrom=[{"secretRef": {"name": "database"}}])


@pytest.mark.parametrize(
    ("secret", "source"),
    [
        (Secret("volume", "/etc/db", "database"), {"secretName": "database"}),
        (
            Secret("volume", "/etc/db", "database", "url"),
            {"secretName": "database", "items": [{"key": "url", "path": "url"}]},
        ),
        (
            Secret("volume", "/etc/db", "database", items=[{"key": "url", "path": "db/url", "mode": 0o400}]),
            {"secretName": "database", "items": [{"key": "url", "path": "db/url", "mode": 256}]},
        ),
        (
            Secret("volume", "/etc/db", "database", items=[client.V1KeyToPath(key="url", path="u")]),
            {"secretName": "database", "items": [{"key": "url", "path": "u"}]},
        ),
    ],
)
def test_a_secret_becomes_files_read_only(secret: Secret, source: dict[str, Any]) -> None:
    """With a key, that key alone is in the pod: least privilege."""
    override = secret.to_override()
    (volume,) = override["spec"]["volumes"]
    assert re.fullmatch(r"secret-database-[a-z0-9]{12}", volume["name"])
    assert volume == {"name": volume["name"], "secret": source}
    assert override["spec"]["containers"] == [
        {"name": "base", "volumeMounts": [{"name": volume["name"], "mountPath": "/etc/db", "readOnly": True}]}
    ]
    json.dumps(override)


def test_the_volume_of_a_secret_has_the_same_name_each_time() -> None:
    """So that a manifest can be compared with the one of yesterday; different mounts never share a volume."""
    names = [
        secret.to_override()["spec"]["volumes"][0]["name"]
        for secret in (
            Secret("volume", "/a", "s"),
            Secret("volume", "/a", "s"),
            Secret("volume", "/b", "s"),
            Secret("volume", "/a", "s", "k"),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("file", "/a", "s"), "deploy_type must be 'env' or 'volume', not 'file'"),
        ((None, "/a", "s"), "deploy_type must be 'env' or 'volume', not None"),
        ((["env"], "/a", "s"), "deploy_type must be 'env' or 'volume'"),
        (("env", None, "s", "k"), "target"),
        (("env", "", "s", "k"), "target"),
        (("volume", None, "s", "k"), "target"),
        (("volume", None, "s"), "target"),
        (("env", "A", ""), "secret must be the name of a secret"),
        (("env", "A", None), "secret must be the name of a secret"),
        (("env", "A", "s", "k", [{"key": "k", "path": "p"}]), "items select files of a volume"),
        (("volume", "/a", "s", "k", [{"key": "k", "path": "p"}]), "items select files of a volume"),
    ],
)
def test_a_secret_that_means_nothing_is_told_when_it_is_written(arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        Secret(*arguments)
    assert isinstance(raised.value, errors.InvalidPod)


def test_a_volume_has_its_source_as_the_api_spells_it() -> None:
    assert Volume("data", {"persistentVolumeClaim": {"claimName": "c"}}).to_override() == {
        "spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]}
    }
    assert Volume("tmp", {"emptyDir": {}}).to_override() == {"spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]}}


@pytest.mark.parametrize(
    ("configs", "told"),
    [
        ({"emptyDirr": {}}, r"""Volume 'v': spec\.volumes\[0\]\.emptyDirr: unknown field; did you mean "emptyDir"?"""),
        ({"emptyDir": []}, r"Volume 'v': spec\.volumes\[0\]\.emptyDir: must be a mapping"),
    ],
)
def test_a_volume_of_no_known_kind_is_told(configs: dict[str, Any], told: str) -> None:
    with pytest.raises(errors.InvalidPod, match=told):
        Volume("v", configs).to_override()


@pytest.mark.parametrize(
    ("mount", "entry"),
    [
        (VolumeMount("v", "/a"), {"name": "v", "mountPath": "/a"}),
        (VolumeMount("v", "/a", "b", True), {"name": "v", "mountPath": "/a", "subPath": "b", "readOnly": True}),
        (VolumeMount("v", "/a", sub_path=None, read_only=False), {"name": "v", "mountPath": "/a"}),
    ],
)
def test_a_volume_mount_is_one_of_the_task_container(mount: VolumeMount, entry: dict[str, Any]) -> None:
    assert mount.to_override() == base(volumeMounts=[entry])


def test_several_parts_become_one_override_that_keeps_what_the_template_has() -> None:
    override = kubernetes_types.override_of(
        [
            Secret("env", "A", "s", "a"),
            Secret("env", "B", "s", "b"),
            Secret("env", None, "whole"),
            Volume("v", {"emptyDir": {}}),
            VolumeMount("v", "/v"),
        ]
    )
    template = {
        "spec": {
            "volumes": [{"name": "w", "emptyDir": {}}],
            "containers": [
                {"name": "sidecar", "image": "s"},
                {"name": "base", "image": "i", "env": [{"name": "C", "value": "c"}]},
            ],
        }
    }
    merged = merge.merge_pod(template, override)["spec"]
    assert [volume["name"] for volume in merged["volumes"]] == ["w", "v"]
    assert merged["containers"][0] == {"name": "sidecar", "image": "s"}
    task = merged["containers"][1]
    assert [entry["name"] for entry in task["env"]] == ["C", "A", "B"]
    assert task["envFrom"] == [{"secretRef": {"name": "whole"}}]
    assert task["volumeMounts"] == [{"name": "v", "mountPath": "/v"}]
    assert kubernetes_types.override_of([]) == {}


def test_what_authors_hold_is_a_value() -> None:
    """Equal if it says the same, and nobody changes it behind an author's back."""
    assert Secret("env", "A", "s", "k") == Secret("env", "A", "s", key="k", items=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        VolumeMount("v", "/a").name = "w"  # type: ignore[misc] # the claim


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Sercet'"):
        dispatcher.Sercet  # the claim


def test_importing_the_package_is_light() -> None:
    """Every task pod imports it, and a pod lives for one task."""
    program = """
import sys
before = set(sys.modules)
import dispatcher
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(sorted(loaded))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "['dispatcher']"
