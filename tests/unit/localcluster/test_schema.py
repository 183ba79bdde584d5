"""The fields of kinds that are only checked: as the client library has them."""

from typing import Any

import pytest

from dispatcher.localcluster.objects import refusal, resources
from dispatcher.localcluster.registry import schema
from dispatcher.manifests import pod_schema
from tests import client_objects, client_schema

ROOTS = sorted({one.kind for one in resources.ALL if one.is_only_checked} | {"ServiceAccount"})
BY_HAND = {"ConfigMap", "Secret"}


@pytest.mark.skipif(not client_objects.IS_PYDANTIC, reason="the table is that of the newest client")
def test_the_table_is_the_one_of_the_installed_client() -> None:
    """After an update of the client: put the table that is printed into the module, and read the difference."""
    pods = pod_schema.types()
    derived = {name: fields for name, fields in client_schema.derived(ROOTS).items() if name not in pods}
    own = {name: fields for name, fields in schema.types().items() if name not in pods and name not in BY_HAND}
    assert own == derived, f"the table should be:\n{client_schema.table(derived, roots=ROOTS)}"


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ({"spec": {"replicas": "2"}}, "spec.replicas: expected number, got string"),
        ({"spec": {"replicas": True}}, "spec.replicas: expected number, got boolean"),
        ({"spec": []}, "spec: expected object, got array"),
        ({"metadata": {"labels": {"a": 1}}}, "metadata.labels.a: expected string, got number"),
        (
            {"spec": {"template": {"spec": {"containers": [{"args": "x"}]}}}},
            "spec.template.spec.containers[0].args: expected array, got string",
        ),
    ],
)
def test_a_wrong_type_is_refused_with_its_path(thing: dict[str, Any], words: str) -> None:
    with pytest.raises(refusal.Refusal) as refused:
        schema.check_types("Deployment", thing)
    assert refused.value.code == 400
    assert words in refused.value.message


def test_a_number_or_a_text_is_taken_where_both_may_be() -> None:
    for value in (1, "50%"):
        schema.check_types("PodDisruptionBudget", {"spec": {"minAvailable": value}})


def test_unknown_fields_are_taken_out_and_named() -> None:
    thing = {"spec": {"replica": 2, "template": {"spec": {"containers": [{"imagge": "x"}]}}}}
    assert schema.prune("Deployment", thing) == ["spec.replica", "spec.template.spec.containers[0].imagge"]
    assert thing == {"spec": {"template": {"spec": {"containers": [{}]}}}}
