"""The table of fields is the one of the Kubernetes client, and a copy of a pod is plain, checked and new."""

import enum
import json
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from dispatcher.manifests import pod_schema
from tests import client_objects, client_schema

ROOTS = ("Pod",)
DERIVED = client_schema.derived(ROOTS)


@pytest.mark.skipif(not client_objects.IS_PYDANTIC, reason="the table is that of the newest client")
def test_the_table_is_the_one_of_the_installed_client() -> None:
    """After an update of the client: put the table that is printed into the module, and read the difference."""
    assert pod_schema.types() == DERIVED, f"the table should be:\n{client_schema.table(DERIVED, roots=ROOTS)}"


def test_copying_a_client_object_imports_no_client() -> None:
    """A message pays nothing for a library that it does not use."""
    program = """
        import sys
        from dispatcher.manifests import kubernetes_types, merge, names, pod_schema, podspec
        from dispatcher.status import observation
        merge.merge_pod({"spec": {}}, {"spec": {"nodeName": "a"}})
        print(sorted({"kubernetes", "pydantic", "aiohttp", "yaml"} & set(sys.modules)))
    """
    shown = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            {"spec": {"containers": [{"imagge": "a"}]}},
            'spec.containers[0].imagge: unknown field; did you mean "image"?',
        ),
        ({"spec": {"node_selector": {}}}, 'spec.node_selector: unknown field; did you mean "nodeSelector"?'),
        ({"spec": {"NodeName": ""}}, 'spec.NodeName: unknown field; did you mean "nodeName"?'),
        ({"spec": {"zzz": 1}}, "spec.zzz: unknown field"),
        ({"sepc": {}}, 'sepc: unknown field; did you mean "spec"?'),
        ({1: 2}, "['1']: unknown field"),
        ({"spec": []}, "spec: must be a mapping, not a list"),
        ({"spec": "x"}, "spec: must be a mapping, not a string"),
        ({"spec": {"containers": {}}}, "spec.containers: must be a list, not a mapping"),
        ({"spec": {"containers": [None]}}, "spec.containers[0]: must be a mapping, not null"),
        ({"spec": {"hostNetwork": "false"}}, "spec.hostNetwork: must be true or false, not a string; write"),
        ({"spec": {"hostNetwork": 0}}, "spec.hostNetwork: must be true or false, not the number 0"),
        ({"spec": {"priority": True}}, "spec.priority: must be an integer, not true"),
        ({"spec": {"priority": "5"}}, "spec.priority: must be an integer, not a string; write it without quotes"),
        ({"spec": {"priority": 5.0}}, "spec.priority: must be an integer, not the number 5.0"),
        ({"spec": {"priority": 2**63}}, "spec.priority: is beyond 64 bits"),
        (
            {"metadata": {"labels": {"a/b": 1}}},
            "metadata.labels['a/b']: must be a string, not the number 1; put it in quotes",
        ),
        ({"metadata": {"labels": {"on": True}}}, "metadata.labels.on: must be a string, not true; put it in quotes"),
        ({"metadata": {"labels": {5: "a"}}}, "metadata.labels: has the number 5 for a key"),
        ({"metadata": {"name": "\ud800"}}, "metadata.name: holds half a surrogate pair"),
        ({"metadata": {"labels": ["a"]}}, "metadata.labels: must be a mapping, not a list"),
        ({"spec": {"overhead": {"cpu": []}}}, "spec.overhead.cpu: must be a quantity such as 500m or 1Gi, not a list"),
        (
            {"spec": {"overhead": {"cpu": float("inf")}}},
            "spec.overhead.cpu: must be a quantity such as 500m or 1Gi, not the number inf",
        ),
        (7, "the document: must be a mapping, not the number 7"),
        (
            {"spec": {"containers": [{"env": [{"name": "A", "value": b"x"}]}]}},
            "spec.containers[0].env[0].value: must be",
        ),
    ],
)
def test_a_mistake_is_told_with_its_path_and_the_way_out(document: Any, problem: str) -> None:
    with pytest.raises(pod_schema.WrongField) as told:
        pod_schema.plain_pod(document, keep_nulls=True)
    assert str(told.value).startswith(problem)


def test_a_value_is_never_shown() -> None:
    """What stands in the wrong place may be a password."""
    with pytest.raises(pod_schema.WrongField) as told:
        pod_schema.plain_pod({"spec": {"containers": [{"env": "hunter2"}]}}, keep_nulls=True)
    assert "hunter2" not in str(told.value)


def test_a_document_that_holds_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(pod_schema.WrongField, match="nested too deeply"):
        pod_schema.plain_pod({"status": endless}, keep_nulls=True)


class Word(enum.StrEnum):
    """A text that is not exactly a str."""

    NEVER = "Never"


class Number(enum.IntEnum):
    """A number that is not exactly an int."""

    TEN = 10


def test_the_copy_is_plain() -> None:
    """JSON types exactly, whatever was given."""
    document = MappingProxyType(
        {
            "metadata": {
                "creationTimestamp": datetime(2030, 1, 31, 13, tzinfo=timezone(timedelta(hours=1))),
                "deletionTimestamp": datetime(2030, 1, 31, 12),  # noqa: DTZ001 - as some clients give it
            },
            "spec": {
                "restartPolicy": Word.NEVER,
                "priority": Number.TEN,
                "containers": ({"name": "base", "command": ("a", "b")},),
                "overhead": {"cpu": 1, "memory": 0.5},
            },
            "status": {"any": [1, 1.5, None, True, {"a": (datetime(2030, 1, 1, tzinfo=UTC),)}]},
        }
    )
    copy = pod_schema.plain_pod(document, keep_nulls=True)
    assert copy == {
        "metadata": {"creationTimestamp": "2030-01-31T12:00:00Z", "deletionTimestamp": "2030-01-31T12:00:00Z"},
        "spec": {
            "restartPolicy": "Never",
            "priority": 10,
            "containers": [{"name": "base", "command": ["a", "b"]}],
            "overhead": {"cpu": 1, "memory": 0.5},
        },
        "status": {"any": [1, 1.5, None, True, {"a": ["2030-01-01T00:00:00Z"]}]},
    }
    assert _types_in(copy) <= {dict, list, str, int, float, bool, type(None)}


def test_a_probe_port_is_a_number_or_a_name() -> None:
    probes = {"livenessProbe": {"httpGet": {"port": "http"}}, "readinessProbe": {"tcpSocket": {"port": 80}}}
    document = {"spec": {"containers": [probes]}}
    assert pod_schema.plain_pod(document, keep_nulls=True) == document


def test_nulls_are_kept_for_overrides_and_left_out_of_templates() -> None:
    document = {"metadata": {"creationTimestamp": None, "labels": {"a": None}}, "spec": None}
    assert pod_schema.plain_pod(document, keep_nulls=True) == document
    assert pod_schema.plain_pod(document, keep_nulls=False) == {"metadata": {"labels": {}}}


def test_a_client_object_is_copied_in_the_spelling_of_the_api() -> None:
    """None in it means "not set"; false, 0, empty texts and empty objects are values."""
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(labels={"a": ""}, creation_timestamp=datetime(2030, 1, 1, tzinfo=UTC)),
        spec=client.V1PodSpec(
            host_network=False,
            priority=0,
            containers=[client.V1Container(name="", ports=[client.V1ContainerPort(container_port=80, host_ip="::")])],
            volumes=[client.V1Volume(name="v", empty_dir=client.V1EmptyDirVolumeSource())],
        ),
    )
    assert pod_schema.plain_pod(pod, keep_nulls=True) == {
        "metadata": {"labels": {"a": ""}, "creationTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {
            "hostNetwork": False,
            "priority": 0,
            "containers": [{"name": "", "ports": [{"containerPort": 80, "hostIP": "::"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    }


def test_a_client_object_may_stand_inside_a_mapping() -> None:
    document = {"spec": {"containers": [client.V1Container(name="base", image="a")], "tolerations": []}}
    assert pod_schema.plain_pod(document, keep_nulls=True) == {
        "spec": {"containers": [{"name": "base", "image": "a"}], "tolerations": []}
    }


def test_a_client_object_of_another_kind_is_refused() -> None:
    with pytest.raises(pod_schema.WrongField, match=r"^name: unknown field"):
        pod_schema.plain_pod(client.V1Container(name="base"), keep_nulls=True)


def test_an_unchecked_client_object_is_checked_here() -> None:
    pod = client_objects.unchecked_pod(host_network="yes")
    with pytest.raises(pod_schema.WrongField, match=r"^spec\.hostNetwork: must be true or false"):
        pod_schema.plain_pod(pod, keep_nulls=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
FIELDS = sorted({field for fields in pod_schema.types().values() for field in fields})
PODLIKE = st.recursive(
    JSON, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
)


@given(JSON | PODLIKE)
def test_any_document_is_copied_or_refused(document: Any) -> None:
    """Nothing else is raised, and what is copied can be sent."""
    try:
        copy = pod_schema.plain_pod(document, keep_nulls=True)
    except pod_schema.WrongField:
        return
    assert copy == document
    json.dumps(copy, allow_nan=False).encode()


def _types_in(value: Any) -> set[type]:
    found = {type(value)}
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        found.update(*(_types_in(item) for item in value))
    return found
