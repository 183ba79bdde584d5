"""A template loads as it is written, or the error names the file, the field and what is wrong."""

import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client

from dispatcher import errors
from dispatcher.manifests import merge, template
from tests import client_objects

SHIPPED = ("airflow", "dags-in-image", "dags-in-volume", "default", "git-sync", "gpu")
MINIMAL = """
metadata: {name: a}
spec:
  containers:
    - {name: base, image: i}
"""


def written(folder: Path, text: str | bytes, name: str = "pod.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
    return path


@pytest.fixture(params=["str", "path"])
def as_given(request: pytest.FixtureRequest) -> Any:
    return str if request.param == "str" else Path


def test_a_template_loads_as_it_is_written(tmp_path: Path, as_given: Any) -> None:
    path = written(tmp_path, MINIMAL)
    assert template.load_template(as_given(path)) == yaml.safe_load(MINIMAL)


def test_the_task_container_is_found_by_its_name(tmp_path: Path) -> None:
    text = "{metadata: {name: a}, spec: {containers: [{name: sidecar}, {name: base, image: i}]}}"
    assert template.load_template(written(tmp_path, text))["spec"]["containers"][1]["name"] == "base"


def test_null_in_a_template_is_left_out(tmp_path: Path) -> None:
    """As tools write it that make a template of a running pod."""
    text = MINIMAL.replace("{name: a}", "{name: a, creationTimestamp: null, labels: }")
    assert template.load_template(written(tmp_path, text)) == yaml.safe_load(MINIMAL)


def test_a_byte_order_mark_and_a_leading_dash_line_are_fine(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf---\n" + MINIMAL.encode())
    assert template.load_template(path) == yaml.safe_load(MINIMAL)


def test_a_bare_date_is_a_text(tmp_path: Path) -> None:
    """As for the Kubernetes tools."""
    text = MINIMAL.replace("{name: a}", "{name: a, labels: {built: 2030-01-31}}")
    assert template.load_template(written(tmp_path, text))["metadata"]["labels"] == {"built": "2030-01-31"}


def test_anchors_and_merge_keys_work_and_leave_nothing_shared(tmp_path: Path) -> None:
    text = """
    metadata: {name: a}
    spec:
      containers:
        - {name: base, image: i, resources: &r {limits: {cpu: "1"}}}
        - {name: one, resources: *r}
        - {name: two, resources: {<<: *r, requests: {cpu: "1"}}}
    """
    containers = template.load_template(written(tmp_path, text))["spec"]["containers"]
    assert containers[1]["resources"] == containers[0]["resources"]
    assert containers[1]["resources"]["limits"] is not containers[0]["resources"]["limits"]
    assert containers[2]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}


EXPLODING = "a0: &a0 {k: v}\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
EXPLODING_MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("just text", "is not a mapping; a template is one Pod"),
        ("- a\n- b\n", "is not a mapping"),
        (MINIMAL + "---\n" + MINIMAL, "line 6: a second document starts"),
        (MINIMAL + "---\n# a comment\n---\nkind: Pod\n", "a second document starts"),
        ("metadata: {name: a\n", "line 2, column 1: is not valid YAML"),
        ("metadata:\n\tname: a\n", "line 2, column 1: is not valid YAML"),
        ("a: *b\n", "line 1, column 4: is not valid YAML"),
        ("a: \x07", "is not valid YAML"),
        (b"metadata:\n  name: \xff\n", "line 2: is not UTF-8 (byte 0xff)"),
        (MINIMAL.encode("utf-16"), "is not UTF-8"),
        (b"\x00" * 10, "is not valid YAML"),
        ("[" * 100_000, "is nested more than 64 deep"),
        ("{a: " * 100_000, "is nested more than 64 deep"),
        ("".join(" " * depth + "a:\n" for depth in range(500)), "is nested more than 64 deep"),
        ("- " * 5000, "is nested more than 64 deep"),
        (EXPLODING, "grows too large when its aliases are expanded"),
        (EXPLODING_MERGES, "grows too large when its aliases are expanded"),
        ("a: &a [*a]\n", "an alias stands inside of what it stands for"),
        ("a: &a\n  b: *a\n", "an alias stands inside of what it stands for"),
        ("a: [" + "1, " * 30_000 + "]", "holds more than 20000 values"),
        ("a: " + "x" * 1_100_000, "is larger than 1048576 bytes"),
        ("a: !!python/object/apply:os.system [ls]\n", "the YAML tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !secret b\n", "the YAML tag !secret has no meaning here"),
        ("a: !!binary aGk=\n", "has no meaning here"),
        ("a: !!timestamp nonsense\n", "has no meaning here"),
        ("a: !!int nonsense\n", "is not valid YAML"),
        ("a: !!bool nonsense\n", "is not valid YAML"),
        ("<<: 5\n", "is not valid YAML"),
        ("? [a]\n: b\n", "is not valid YAML"),
        ("kind: Pod\nkind: Pod\n", "line 2: kind: this key stands twice in one mapping"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_is_no_document_is_told(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(errors.InvalidTemplate) as raised:
        template.load_template(path)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)


def test_an_alias_that_is_expanded_too_deep_is_told(tmp_path: Path) -> None:
    text = "a0: &a0 {k: v}\n" + "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 500))
    with pytest.raises(errors.InvalidTemplate, match="grows too large"):
        template.load_template(written(tmp_path, text))


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}


BASE = {"name": "base", "image": "i"}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"spec": {"containers": [BASE]}}, "metadata.name: is missing"),
        ({"metadata": {"name": " "}, "spec": {"containers": [BASE]}}, "metadata.name: is missing"),
        (
            {"metadata": {"name": 5}, "spec": {"containers": [BASE]}},
            "metadata.name: must be a string, not the number 5",
        ),
        ({"metadata": {"name": "a"}}, "spec.containers: none is named 'base'"),
        (pod(), "spec.containers: none is named 'base'"),
        (pod(containers=[]), "spec.containers: none is named 'base'"),
        (pod(containers=None), "spec.containers: none is named 'base'"),
        (pod(containers=[{"name": "other", "image": "i"}]), "spec.containers: none is named 'base'"),
        (pod(containers=[{"name": "other"}], initContainers=[BASE]), "spec.containers: none is named 'base'"),
        (pod(containers=[{"name": "Base", "image": "i"}]), "spec.containers: none is named 'base'"),
        (pod(containers=[{"name": "a"}, {"name": "base"}]), "spec.containers[1].image: is missing"),
        (pod(containers=[{"name": "base", "image": "  "}]), "spec.containers[0].image: is missing"),
        (pod(containers=[{"name": "base", "image": 5}]), "spec.containers[0].image: must be a string"),
        (pod(containers=[{"image": "i"}]), "spec.containers[0].name: is missing"),
        (pod(containers=[BASE, BASE]), "spec.containers[1].name: a second container is named 'base'"),
        (pod(containers=[BASE], initContainers=[BASE]), "spec.containers[0].name: a second container is named 'base'"),
        (pod(containers=[{**BASE, "imagge": "i"}]), 'spec.containers[0].imagge: unknown field; did you mean "image"?'),
        (pod(containers=[{**BASE, "env": [{"name": "A", "value": 5}]}]), "spec.containers[0].env[0].value: must be a"),
        (pod(containers=[{**BASE, "env": [{"value": "a"}]}]), "spec.containers[0].env[0].name: is missing"),
        (pod(containers=[BASE], hostNetwork="no"), "spec.hostNetwork: must be true or false"),
        (pod(containers=BASE), "spec.containers: must be a list, not a mapping"),
        ({**pod(containers=[BASE]), "kind": "Deployment"}, "kind: must be Pod, not 'Deployment'"),
        ({"kind": "Deployment", "spec": {"replicas": 1}}, "kind: must be Pod, not 'Deployment'"),
        ({"containers": [BASE]}, "containers: is a field of a pod's spec: put it under spec"),
        ({"metadata": {"name": "t"}, "image": "i"}, "image: is a field of a container: put it into an entry of"),
        ({**pod(containers=[BASE]), "apiVersion": "v2"}, "apiVersion: must be v1, not 'v2'"),
        ({**pod(containers=[BASE]), "template": {}}, "template: unknown field"),
        ({**pod(containers=[BASE]), 5: 6}, "['5']: unknown field"),
    ],
)
def test_a_pod_that_breaks_a_rule_is_told_with_its_path(tmp_path: Path, document: Any, told: str) -> None:
    path = written(tmp_path, yaml.safe_dump(document))
    with pytest.raises(errors.InvalidTemplate) as raised:
        template.load_template(path)
    assert str(raised.value).startswith(f"pod template {path}: {told}")


def test_a_missing_file_is_told(tmp_path: Path, as_given: Any) -> None:
    with pytest.raises(errors.InvalidTemplate, match=r"nowhere\.yaml: the file does not exist"):
        template.load_template(as_given(tmp_path / "nowhere.yaml"))


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidTemplate, match=f"{tmp_path}: is a folder"):
        template.load_template(tmp_path)


def test_a_pipe_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.InvalidTemplate, match="pipe: is not a regular file"):
        template.load_template(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "file/below"])
def test_a_path_that_can_be_no_file_is_told(tmp_path: Path, name: str) -> None:
    written(tmp_path, MINIMAL, "file")
    with pytest.raises(errors.InvalidTemplate, match="pod template"):
        template.load_template(f"{tmp_path}/{name}")


def test_a_link_in_a_circle_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with pytest.raises(errors.InvalidTemplate, match="link: the file cannot be read"):
        template.load_template(tmp_path / "link")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.binary(max_size=60)
    | st.text("abk:-[]{}&*!<>|?'\"#%@\n \t0.~=,", max_size=60).map(str.encode)
    | st.text(max_size=60).map(lambda text: MINIMAL.replace("name: a", f"name: {text}").encode(errors="replace"))
)
def test_any_content_loads_or_is_told(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    try:
        loaded = template.load_template(path)
    except errors.InvalidTemplate as told:
        assert str(path) in str(told)  # either outcome is right
        return
    assert loaded["metadata"]["name"].strip()


def test_the_shipped_templates_are_these() -> None:
    assert tuple(sorted(path.stem for path in template.resolve("default").parent.glob("*.yaml"))) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_template_is_a_pod_for_the_client_too(name: str) -> None:
    loaded = template.load_template(template.resolve(name))
    assert client_objects.manifest_of(client_objects.pod_of(loaded))["metadata"]["name"] == "replaced-at-launch"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_template_keeps_to_the_restricted_standard(name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and no token of the API."""
    spec = template.load_template(template.resolve(name))["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert container["imagePullPolicy"] == "IfNotPresent"
    allowed = {"name", "configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "csi", "ephemeral"}
    assert all(volume.keys() <= allowed for volume in spec.get("volumes", []))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_template_mounts_only_volumes_that_it_has(name: str) -> None:
    spec = template.load_template(template.resolve(name))["spec"]
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in spec.get("volumes", [])}


@pytest.mark.parametrize("path", ["./mine.yaml", "mine.yaml", "/etc/podyard/gpu.yaml", "folder/mine"])
def test_what_is_no_word_is_a_path(path: str) -> None:
    assert template.resolve(path) == Path(path)


def test_a_word_is_a_name_on_the_shelf(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL, "own.yaml")
    assert template.resolve("own", folder=tmp_path) == path


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(errors.InvalidTemplate, match=r"'defualt': no template of that name; .* default, git-sync, gpu"):
        template.resolve("defualt")


def test_a_template_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL)
    templates = template.Templates()
    first = templates.get(str(path))
    assert templates.get(str(path)) is first
    written(tmp_path, MINIMAL.replace("image: i", "image: other"))
    assert templates.get(str(path))["spec"]["containers"][0]["image"] == "other"


def test_a_template_that_is_replaced_by_a_link_is_read_again(tmp_path: Path) -> None:
    """As a mounted ConfigMap changes: the times and sizes may be the same, the file is another."""
    one, two = written(tmp_path, MINIMAL, "one"), written(tmp_path, MINIMAL.replace("image: i", "image: j"), "two")
    for file in (one, two):
        os.utime(file, ns=(1, 1))
    link = tmp_path / "pod.yaml"
    link.symlink_to(one)
    templates = template.Templates()
    assert templates.get(str(link))["spec"]["containers"][0]["image"] == "i"
    link.unlink()
    link.symlink_to(two)
    assert templates.get(str(link))["spec"]["containers"][0]["image"] == "j"


def test_a_broken_template_fails_each_time_until_it_is_mended(tmp_path: Path) -> None:
    path = written(tmp_path, "nothing: here")
    templates = template.Templates()
    for _ in range(2):
        with pytest.raises(errors.InvalidTemplate, match="nothing: unknown field"):
            templates.get(str(path))
    written(tmp_path, MINIMAL)
    assert templates.get(str(path)) == yaml.safe_load(MINIMAL)


def test_a_missing_template_is_found_once_it_is_there(tmp_path: Path) -> None:
    templates = template.Templates()
    with pytest.raises(errors.InvalidTemplate, match="the file does not exist"):
        templates.get(str(tmp_path / "pod.yaml"))
    assert templates.get(str(written(tmp_path, MINIMAL))) == yaml.safe_load(MINIMAL)


@pytest.mark.parametrize("end", ["---\n", "---", "--- # the end\n", "---\n# only a comment\n\n---\n", "...\n---\n"])
def test_an_empty_document_at_the_end_is_no_second_one(tmp_path: Path, end: str) -> None:
    """`helm template` and others end a file with its mark."""
    whole = template.load_template(written(tmp_path, MINIMAL.encode()))
    assert template.load_template(written(tmp_path, f"{MINIMAL}{end}".encode())) == whole


def test_a_client_pod_spec_alone_is_told_where_it_belongs() -> None:
    """A `V1PodSpec` where a `V1Pod` is wanted."""
    spec = client.V1PodSpec(containers=[client.V1Container(name="base")])
    with pytest.raises(errors.InvalidOverride, match="containers: is a field of a pod's spec: put it under spec"):
        merge.plain_override(spec)
