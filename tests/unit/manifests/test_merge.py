"""Every field merges by its declared rule, explicit values win, and nothing is dropped in silence."""

import copy
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from dispatcher import errors
from dispatcher.manifests import merge, pod_schema
from tests import client_objects

Pod = dict[str, Any]


def base_container(**fields: Any) -> Pod:
    return {"spec": {"containers": [{"name": "base", **fields}]}}


def in_spec(**fields: Any) -> Pod:
    return {"spec": fields}


def in_metadata(**fields: Any) -> Pod:
    return {"metadata": fields}


Place = Callable[..., Pod]


@pytest.mark.parametrize(
    "override", [None, {}, client.V1Pod(), {"spec": {}, "metadata": {}}, {"spec": {"volumes": []}}]
)
def test_an_empty_override_changes_nothing(override: Any) -> None:
    base = {
        "metadata": {"name": "a", "labels": {"b": ""}},
        "spec": {"containers": [{"name": "base", "image": "i", "env": [], "args": None}]},
    }
    assert merge.merge_pod(base, override) == base


@pytest.mark.parametrize(
    ("place", "field", "empty_base"),
    [
        (in_metadata, "labels", {}),
        (in_metadata, "annotations", {}),
        (in_spec, "nodeSelector", {}),
        (in_spec, "overhead", {}),
    ],
)
def test_plain_mappings_merge_by_key(place: Place, field: str, empty_base: Pod) -> None:
    base, override = place(**{field: {"a": "1", "b": "2"}}), place(**{field: {"b": "3", "c": "4"}})
    assert merge.merge_pod(base, override) == place(**{field: {"a": "1", "b": "3", "c": "4"}})
    assert merge.merge_pod(place(**{field: empty_base}), override) == override


def test_resources_merge_by_key() -> None:
    """An override of the limits keeps the requests."""
    base = base_container(resources={"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}})
    override = base_container(resources={"limits": {"cpu": "2", "memory": "2Gi"}, "requests": {"cpu": 0}})
    assert merge.merge_pod(base, override) == base_container(
        resources={"requests": {"cpu": 0, "memory": "1Gi"}, "limits": {"memory": "2Gi", "cpu": "2"}}
    )


def test_security_contexts_merge_deeply() -> None:
    base = in_spec(
        securityContext={"runAsUser": 1000, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        containers=[{"name": "base", "securityContext": {"capabilities": {"drop": ["ALL"]}, "privileged": False}}],
    )
    override = in_spec(
        securityContext={"runAsUser": 0, "runAsNonRoot": False, "seccompProfile": {"localhostProfile": "a"}},
        containers=[{"name": "base", "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["X"]}}}],
    )
    assert merge.merge_pod(base, override) == in_spec(
        securityContext={
            "runAsUser": 0,
            "runAsNonRoot": False,
            "seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "a"},
        },
        containers=[
            {
                "name": "base",
                "securityContext": {"capabilities": {"drop": ["X"], "add": ["NET_ADMIN"]}, "privileged": False},
            }
        ],
    )


def test_containers_merge_by_name_field_by_field() -> None:
    """Order of the base first, wherever the override names a container; new ones after."""
    base = in_spec(
        containers=[
            {"name": "sidecar", "image": "s", "tty": True},
            {"name": "base", "image": "b", "workingDir": "/"},
        ]
    )
    override = in_spec(
        containers=[
            {"name": "new", "image": "n"},
            {"name": "base", "image": "b2"},
            {"name": "sidecar", "tty": False},
        ]
    )
    assert merge.merge_pod(base, override)["spec"]["containers"] == [
        {"name": "sidecar", "image": "s", "tty": False},
        {"name": "base", "image": "b2", "workingDir": "/"},
        {"name": "new", "image": "n"},
    ]


def test_init_containers_merge_by_name() -> None:
    base = in_spec(initContainers=[{"name": "fetch", "image": "f"}, {"name": "unpack", "image": "u"}])
    override = in_spec(initContainers=[{"name": "warm", "image": "w"}, {"name": "unpack", "args": ["-v"]}])
    assert merge.merge_pod(base, override)["spec"]["initContainers"] == [
        {"name": "fetch", "image": "f"},
        {"name": "unpack", "image": "u", "args": ["-v"]},
        {"name": "warm", "image": "w"},
    ]


@pytest.mark.parametrize("unnamed", [{}, {"name": ""}, {"name": None}])
def test_the_first_container_without_a_name_is_the_task_container(unnamed: Pod) -> None:
    base = in_spec(containers=[{"name": "sidecar", "image": "s"}, {"name": "base", "image": "b"}])
    override = in_spec(containers=[{**unnamed, "image": "b2"}, {"name": "extra", "image": "e"}])
    assert merge.merge_pod(base, override)["spec"]["containers"] == [
        {"name": "sidecar", "image": "s"},
        {"name": "base", "image": "b2"},
        {"name": "extra", "image": "e"},
    ]


def test_an_empty_first_container_leaves_room_for_a_sidecar() -> None:
    override = in_spec(containers=[{}, {"name": "sidecar", "image": "s"}])
    assert merge.merge_pod(base_container(image="b"), override) == in_spec(
        containers=[{"name": "base", "image": "b"}, {"name": "sidecar", "image": "s"}]
    )


def test_a_first_container_of_another_name_is_one_of_its_own() -> None:
    override = in_spec(containers=[{"name": "sidecar", "image": "s"}])
    assert merge.merge_pod(base_container(image="b"), override) == in_spec(
        containers=[{"name": "base", "image": "b"}, {"name": "sidecar", "image": "s"}]
    )


def test_a_container_named_twice_is_merged_twice() -> None:
    override = in_spec(containers=[{"image": "b2"}, {"name": "base", "tty": True}])
    assert merge.merge_pod(base_container(image="b"), override) == base_container(image="b2", tty=True)


def test_volumes_of_the_same_name_are_replaced_whole() -> None:
    base = in_spec(volumes=[{"name": "a", "emptyDir": {"medium": "Memory"}}, {"name": "b", "configMap": {"name": "x"}}])
    override = in_spec(volumes=[{"name": "c", "emptyDir": {}}, {"name": "a", "hostPath": {"path": "/"}}])
    assert merge.merge_pod(base, override)["spec"]["volumes"] == [
        {"name": "a", "hostPath": {"path": "/"}},
        {"name": "b", "configMap": {"name": "x"}},
        {"name": "c", "emptyDir": {}},
    ]


def test_variables_of_the_same_name_are_replaced_whole() -> None:
    """A value does not join a reference to a secret, and an empty value is a value."""
    reference = {"secretKeyRef": {"name": "s", "key": "k"}}
    base = base_container(env=[{"name": "A", "valueFrom": reference}, {"name": "B", "value": "b"}])
    override = base_container(
        env=[{"name": "C", "value": "c"}, {"name": "B", "value": ""}, {"name": "A", "value": "a"}]
    )
    assert merge.merge_pod(base, override) == base_container(
        env=[{"name": "A", "value": "a"}, {"name": "B", "value": ""}, {"name": "C", "value": "c"}]
    )


def test_volume_mounts_merge_by_their_path() -> None:
    base = base_container(
        volumeMounts=[{"name": "a", "mountPath": "/a", "readOnly": True}, {"name": "a", "mountPath": "/b"}]
    )
    override = base_container(volumeMounts=[{"name": "b", "mountPath": "/c"}, {"name": "b", "mountPath": "/a"}])
    assert merge.merge_pod(base, override) == base_container(
        volumeMounts=[
            {"name": "b", "mountPath": "/a"},
            {"name": "a", "mountPath": "/b"},
            {"name": "b", "mountPath": "/c"},
        ]
    )


def test_volume_devices_merge_by_their_path() -> None:
    base = base_container(volumeDevices=[{"name": "a", "devicePath": "/dev/a"}])
    override = base_container(
        volumeDevices=[{"name": "b", "devicePath": "/dev/a"}, {"name": "c", "devicePath": "/dev/c"}]
    )
    assert merge.merge_pod(base, override) == override


def test_ports_merge_by_number_and_protocol() -> None:
    """A port without a protocol is TCP."""
    base = base_container(
        ports=[
            {"containerPort": 53, "name": "dns"},
            {"containerPort": 53, "protocol": "UDP", "name": "dns-udp"},
            {"containerPort": 80, "protocol": "TCP", "hostPort": 8080},
        ]
    )
    override = base_container(
        ports=[
            {"containerPort": 80, "name": "web"},
            {"containerPort": 53, "protocol": "TCP"},
            {"containerPort": 80, "protocol": "UDP"},
        ]
    )
    assert merge.merge_pod(base, override) == base_container(
        ports=[
            {"containerPort": 53, "protocol": "TCP"},
            {"containerPort": 53, "protocol": "UDP", "name": "dns-udp"},
            {"containerPort": 80, "name": "web"},
            {"containerPort": 80, "protocol": "UDP"},
        ]
    )


@pytest.mark.parametrize(
    ("place", "field", "one", "two"),
    [
        (base_container, "envFrom", {"secretRef": {"name": "a"}}, {"configMapRef": {"name": "a"}}),
        (in_metadata, "finalizers", "a.example/x", "b.example/x"),
        (in_metadata, "ownerReferences", {"name": "a", "uid": "1"}, {"name": "a", "uid": "2"}),
    ],
)
def test_some_lists_are_appended_without_exact_duplicates(place: Place, field: str, one: Any, two: Any) -> None:
    merged = merge.merge_pod(place(**{field: [one]}), place(**{field: [two, one, two]}))
    assert merged == place(**{field: [one, two]})


PROBE = {"exec": {"command": ["a"]}, "periodSeconds": 5}
REPLACED = [
    (base_container, "command", ["a", "b"], ["c"]),
    (base_container, "args", ["a", "b"], ["c"]),
    (in_spec, "tolerations", [{"key": "a"}, {"key": "b"}], [{"key": "c"}]),
    (in_spec, "imagePullSecrets", [{"name": "a"}], [{"name": "b"}]),
    (in_spec, "hostAliases", [{"ip": "::1", "hostnames": ["a"]}], [{"ip": "::2"}]),
    (in_spec, "topologySpreadConstraints", [{"topologyKey": "a", "maxSkew": 1}], [{"topologyKey": "b"}]),
    (
        in_spec,
        "affinity",
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
        {"podAffinity": {}},
    ),
    (in_spec, "dnsConfig", {"searches": ["a"], "nameservers": ["::1"]}, {"searches": ["b"]}),
    (base_container, "lifecycle", {"preStop": {"exec": {"command": ["a"]}}}, {"postStart": {"exec": {}}}),
    (base_container, "livenessProbe", PROBE, {"periodSeconds": 6}),
    (base_container, "readinessProbe", PROBE, {"periodSeconds": 6}),
    (base_container, "startupProbe", PROBE, {"periodSeconds": 6}),
]


@pytest.mark.parametrize(("place", "field", "old", "new"), REPLACED)
def test_some_fields_are_replaced_whole(place: Place, field: str, old: Any, new: Any) -> None:
    assert merge.merge_pod(place(**{field: old}), place(**{field: new})) == place(**{field: new})


@pytest.mark.parametrize(("place", "field", "old", "new"), REPLACED)
def test_an_empty_list_or_mapping_does_not_replace(place: Place, field: str, old: Any, new: Any) -> None:
    assert merge.merge_pod(place(**{field: old}), place(**{field: type(new)()})) == place(**{field: old})


@pytest.mark.parametrize(
    ("place", "field", "old", "new"),
    [
        (in_spec, "hostNetwork", True, False),
        (in_spec, "automountServiceAccountToken", True, False),
        (in_spec, "terminationGracePeriodSeconds", 30, 0),
        (in_spec, "priority", 5, 0),
        (base_container, "tty", True, False),
        (base_container, "image", "a", "b"),
        (in_spec, "serviceAccountName", "a", "b"),
    ],
)
def test_explicit_values_win_false_and_zero_too(place: Place, field: str, old: Any, new: Any) -> None:
    assert merge.merge_pod(place(**{field: old}), place(**{field: new})) == place(**{field: new})
    assert merge.merge_pod(place(), place(**{field: new})) == place(**{field: new})


def test_an_empty_string_is_not_set() -> None:
    base = in_spec(nodeName="a", containers=[{"name": "base", "image": "i"}])
    override = in_spec(nodeName="", containers=[{"name": "base", "image": "", "workingDir": ""}])
    assert merge.merge_pod(base, override) == base


def test_an_empty_string_is_a_value_of_a_label_an_annotation_or_a_node_label() -> None:
    base = {"metadata": {"labels": {"a": "1"}, "annotations": {"a": "1"}}, "spec": {"nodeSelector": {"a": "1"}}}
    override = {
        "metadata": {"labels": {"a": "", "b": ""}, "annotations": {"a": ""}},
        "spec": {"nodeSelector": {"a": "", "node-role.kubernetes.io/gpu": ""}},
    }
    assert merge.merge_pod(base, override) == override


def test_an_empty_string_in_another_mapping_is_not_set() -> None:
    base = base_container(resources={"limits": {"cpu": "1"}})
    assert merge.merge_pod(base, base_container(resources={"limits": {"cpu": "", "memory": ""}})) == base


@pytest.mark.parametrize(
    ("base", "override", "merged"),
    [
        (in_metadata(labels={"a": "1", "b": "2"}), in_metadata(labels={"a": None}), in_metadata(labels={"b": "2"})),
        (in_metadata(annotations={"a": "1"}), in_metadata(annotations={"a": None}), in_metadata(annotations={})),
        (in_metadata(labels={"a": "1"}), in_metadata(labels=None), in_metadata()),
        (in_spec(nodeSelector={"a": "1"}), in_spec(nodeSelector={"a": None}), in_spec(nodeSelector={})),
        (in_spec(volumes=[{"name": "a"}]), in_spec(volumes=None), in_spec()),
        (in_spec(affinity={"podAffinity": {}}), in_spec(affinity=None), in_spec()),
        (base_container(env=[{"name": "A"}], image="i"), base_container(env=None), base_container(image="i")),
        (
            base_container(resources={"limits": {"cpu": "1", "memory": "1Gi"}}),
            base_container(resources={"limits": {"cpu": None}}),
            base_container(resources={"limits": {"memory": "1Gi"}}),
        ),
        (
            in_spec(securityContext={"runAsUser": 1, "seccompProfile": {"type": "a"}}),
            in_spec(securityContext={"seccompProfile": None}),
            in_spec(securityContext={"runAsUser": 1}),
        ),
        (in_spec(priority=1), {"spec": None}, {}),
    ],
)
def test_null_removes(base: Pod, override: Pod, merged: Pod) -> None:
    assert merge.merge_pod(base, override) == merged


@pytest.mark.parametrize(
    "override",
    [
        {"metadata": {"labels": {"a": None}}},
        {"metadata": {"name": None}},
        {"spec": {"securityContext": {"runAsUser": None, "seccompProfile": {"type": ""}}}},
    ],
)
def test_null_and_empty_add_nothing_to_nothing(override: Pod) -> None:
    assert merge.merge_pod({}, override) == {}


def test_a_new_container_holds_only_what_is_set() -> None:
    override = in_spec(
        containers=[{"name": "new", "image": "i", "args": [], "command": None, "resources": {"limits": {}}}]
    )
    assert merge.merge_pod(in_spec(), override) == in_spec(containers=[{"name": "new", "image": "i"}])


@pytest.mark.parametrize(
    ("place", "field", "entry"),
    [
        (in_spec, "volumes", {"name": "a", "emptyDir": {}, "hostPath": None}),
        (base_container, "env", {"name": "A", "value": ""}),
        (base_container, "env", {"name": "A", "value": None, "valueFrom": {"secretKeyRef": {"key": "", "name": "s"}}}),
        (base_container, "volumeMounts", {"mountPath": "/a", "name": "a", "subPath": ""}),
        (in_spec, "tolerations", {"key": "", "operator": "Exists"}),
    ],
)
def test_inside_an_entry_that_is_replaced_whole_nothing_is_reinterpreted(place: Place, field: str, entry: Pod) -> None:
    assert merge.merge_pod(place(), place(**{field: [entry]})) == place(**{field: [entry]})


def test_inside_a_mapping_that_is_replaced_whole_nothing_is_reinterpreted() -> None:
    override = in_spec(affinity={"podAffinity": {}, "nodeAffinity": None})
    assert merge.merge_pod(in_spec(affinity={"podAntiAffinity": {}}), override) == override


def test_none_in_a_client_object_means_not_set() -> None:
    base = in_spec(
        priority=7,
        containers=[{"name": "base", "image": "i", "env": [{"name": "A", "value": "a"}]}],
        volumes=[{"name": "a", "emptyDir": {}}],
    )
    override = client.V1Pod(
        metadata=client.V1ObjectMeta(labels={"a": ""}),
        spec=client.V1PodSpec(
            containers=[client.V1Container(name="", tty=False, resources=client.V1ResourceRequirements())],
            volumes=[client.V1Volume(name="b", empty_dir=client.V1EmptyDirVolumeSource())],
        ),
    )
    assert merge.merge_pod(base, override) == {
        "metadata": {"labels": {"a": ""}},
        "spec": {
            "priority": 7,
            "containers": [{"name": "base", "image": "i", "env": [{"name": "A", "value": "a"}], "tty": False}],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}],
        },
    }


def test_a_client_object_and_its_mapping_merge_to_the_same() -> None:
    written = {
        "metadata": {"annotations": {"a": "b"}},
        "spec": {
            "hostNetwork": False,
            "containers": [{"name": "base", "image": "i", "ports": [{"containerPort": 80}]}],
            "tolerations": [{"key": "a", "operator": "Exists"}],
        },
    }
    base = in_spec(hostNetwork=True, containers=[{"name": "base", "image": "old"}])
    assert merge.merge_pod(base, client_objects.pod_of(written)) == merge.merge_pod(base, written)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            {"spec": {"containers": [{}, {"imagge": "a"}]}},
            r"spec\.containers\[1\]\.imagge: unknown field; did you mean",
        ),
        ({"spec": {"containers": [{"imagge": "a"}]}}, r'spec\.containers\[0\]\.imagge: .*"image"'),
        ({"spec": {"volumes": "a"}}, r"spec\.volumes: must be a list, not a string"),
        ({"spec": {"containers": [{}, {"image": "a"}]}}, r"spec\.containers\[1\]\.name: is missing"),
        ({"spec": {"initContainers": [{"image": "a"}]}}, r"spec\.initContainers\[0\]\.name: is missing"),
        ({"spec": {"volumes": [{"emptyDir": {}}]}}, r"spec\.volumes\[0\]\.name: is missing"),
        (base_container(env=[{"name": "A"}, {"value": "a"}]), r"spec\.containers\[0\]\.env\[1\]\.name: is missing"),
        (base_container(env=[{"name": ""}]), r"spec\.containers\[0\]\.env\[0\]\.name: is missing"),
        (
            base_container(env=[{"name": "A", "value": 5}]),
            r"env\[0\]\.value: must be a string, not the number 5; put it",
        ),
        (base_container(volumeMounts=[{"name": "a"}]), r"volumeMounts\[0\]\.mountPath: is missing"),
        (base_container(volumeDevices=[{"name": "a"}]), r"volumeDevices\[0\]\.devicePath: is missing"),
        (base_container(ports=[{"name": "a"}]), r"ports\[0\]\.containerPort: is missing"),
        ("pod", "must be a mapping, not a string"),
        ([], "must be a mapping, not a list"),
        (client.V1Container(name="base"), "name: unknown field"),
    ],
)
def test_a_mistake_in_the_override_names_its_path_there(override: Any, told: str) -> None:
    base = in_spec(containers=[{"name": name} for name in ("a", "b", "base")])
    with pytest.raises(errors.InvalidOverride, match=told):
        merge.merge_pod(base, override)


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ({"spec": {"containers": {}}}, r"spec\.containers: must be a list"),
        ({"spec": {"containers": [{"imagge": "a"}]}}, r"spec\.containers\[0\]\.imagge: unknown field"),
        ([], "must be a mapping"),
    ],
)
def test_a_mistake_in_the_base_is_told_as_one_of_the_template(base: Any, told: str) -> None:
    with pytest.raises(errors.InvalidTemplate, match=told):
        merge.merge_pod(base, {"spec": {"containers": [{"name": "a"}]}})


TEXT = st.text("ab/", max_size=2)
NAME = st.sampled_from(["base", "a", "b", "c"])


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Pod]:
    return st.fixed_dictionaries({}, optional={name: strategy | st.none() for name, strategy in fields.items()})


def entries(key: str, keys: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Pod]]:
    return st.lists(st.fixed_dictionaries({key: keys}, optional=fields), max_size=3)


CONTAINER = {
    "image": TEXT,
    "tty": st.booleans(),
    "args": st.lists(TEXT, max_size=2),
    "env": entries("name", NAME, value=TEXT),
    "envFrom": st.lists(st.fixed_dictionaries({"prefix": TEXT}), max_size=2),
    "ports": entries("containerPort", st.integers(1, 3), protocol=st.sampled_from(["TCP", "UDP", ""]), name=TEXT),
    "volumeMounts": entries("mountPath", NAME, readOnly=st.booleans()),
    "resources": maybe(limits=st.dictionaries(NAME, TEXT | st.none(), max_size=2)),
    "livenessProbe": maybe(periodSeconds=st.integers(0, 3)),
    "securityContext": maybe(runAsUser=st.integers(0, 2), capabilities=maybe(drop=st.lists(TEXT, max_size=2))),
}
PODS = maybe(
    metadata=maybe(
        labels=st.dictionaries(NAME, TEXT | st.none(), max_size=3),
        finalizers=st.lists(TEXT, max_size=2),
    ),
    spec=maybe(
        hostNetwork=st.booleans(),
        priority=st.integers(0, 2),
        nodeName=TEXT,
        nodeSelector=st.dictionaries(NAME, TEXT, max_size=2),
        tolerations=st.lists(maybe(key=TEXT), max_size=2),
        volumes=entries("name", NAME, emptyDir=st.just({})),
        containers=entries("name", NAME, **CONTAINER),
        initContainers=entries("name", NAME, **CONTAINER),
    ),
)


@given(PODS, PODS)
def test_inputs_stay_as_they_are_and_share_nothing_with_the_result(base: Pod, override: Pod) -> None:
    before = copy.deepcopy((base, override))
    merged = merge.merge_pod(base, override)
    _spoil(merged)
    assert (base, override) == before


@given(PODS, PODS)
def test_merging_the_same_override_again_changes_nothing(base: Pod, override: Pod) -> None:
    once = merge.merge_pod(base, override)
    assert merge.merge_pod(once, override) == once


@given(PODS)
def test_merging_nothing_changes_nothing(base: Pod) -> None:
    assert merge.merge_pod(base, None) == base
    assert merge.merge_pod(base, {}) == base


@given(PODS, PODS)
def test_names_keep_the_order_of_the_base_and_new_ones_follow(base: Pod, override: Pod) -> None:
    merged = merge.merge_pod(base, override)
    for field in ("containers", "initContainers", "volumes"):
        old, new = _names(base, field), _names(override, field)
        if new:
            expected = list(dict.fromkeys([*old, *new]))
            assert list(dict.fromkeys(_names(merged, field))) == expected


LABELS = st.dictionaries(NAME, TEXT, max_size=4)


@given(LABELS, st.dictionaries(NAME, TEXT | st.none(), max_size=4))
def test_every_label_is_the_overrides_or_else_the_bases(old: dict[str, str], new: dict[str, str | None]) -> None:
    merged = merge.merge_pod(in_metadata(labels=old), in_metadata(labels=new))
    assert merged["metadata"]["labels"] == {key: value for key, value in {**old, **new}.items() if value is not None}


@given(PODS, PODS)
def test_a_merge_is_a_pod_again(base: Pod, override: Pod) -> None:
    """What comes out can go in: as a template, as an override, or to the API."""
    merged = merge.merge_pod(base, override)
    assert pod_schema.plain_pod(merged, keep_nulls=True) == merged


@given(PODS, PODS)
def test_other_mappings_and_sequences_count_as_dicts_and_lists(base: Pod, override: Pod) -> None:
    assert merge.merge_pod(_frozen(base), _frozen(override)) == merge.merge_pod(base, override)


def _spoil(value: Any) -> None:
    """Changes everything that can be changed."""
    if isinstance(value, dict):
        for item in value.values():
            _spoil(item)
        value["spoiled"] = True
    elif isinstance(value, list):
        for item in value:
            _spoil(item)
        value.append("spoiled")


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _names(pod: Pod, field: str) -> list[str]:
    return [entry["name"] for entry in (pod.get("spec") or {}).get(field) or []]
