"""The message for one workload of Airflow: its body, the header for the pod, and until when it is good."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from dispatcher import errors
from routing.airflow import workload


def token(**claims: Any) -> str:
    parts = ({"alg": "HS512"}, claims)
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "x"]
    )


@dataclass(kw_only=True)
class Instance:
    """What the executor is given of a task instance."""

    dag_id: str = "sales"
    task_id: str = "load"
    run_id: str = "manual__2026-05-01T00:00:00+00:00"
    try_number: int = 2
    map_index: int = -1
    executor_config: dict[str, Any] | None = None


@dataclass(kw_only=True)
class Workload:
    """A workload by its shape; the real ones are looked at in the ring `airflow`."""

    token: str = ""
    ti: Instance = field(default_factory=Instance)

    def model_dump_json(self) -> str:
        return json.dumps({"token": self.token})


FACTS = {
    "dag_id": "sales",
    "task_id": "load",
    "run_id": "manual__2026-05-01T00:00:00+00:00",
    "try_number": "2",
}


def test_the_pod_is_named_and_labelled_after_the_task_instance() -> None:
    """As pods of Airflow's own Kubernetes executor are."""
    made = workload.build(Workload())
    assert made.body == '{"token": ""}'
    assert made.pod == {
        "name": ["sales", "load"],
        "labels": FACTS,
        "pod_override": {"metadata": {"annotations": FACTS}},
    }


def test_a_mapped_task_has_its_index() -> None:
    """Also where it is the first, number 0."""
    made = workload.build(Workload(ti=Instance(map_index=0)))
    assert made.pod["labels"]["map_index"] == "0"


@pytest.mark.parametrize(
    "override",
    [
        {"spec": {"containers": [{"name": "base", "image": "mine:1"}]}},
        client.V1Pod(spec=client.V1PodSpec(containers=[client.V1Container(name="base", image="mine:1")])),
    ],
)
def test_an_override_travels_as_json_whatever_it_was(override: Any) -> None:
    """The workload itself leaves it out."""
    made = workload.build(Workload(ti=Instance(executor_config={"pod_override": override})))
    assert made.pod["pod_override"]["spec"] == {"containers": [{"name": "base", "image": "mine:1"}]}
    json.dumps(made.pod)


def test_an_override_cannot_say_that_it_is_another_task() -> None:
    """Who it is stands above what its author wrote."""
    override = {"metadata": {"annotations": {"dag_id": "other", "mine": "yes"}}}
    made = workload.build(Workload(ti=Instance(executor_config={"pod_override": override})))
    assert made.pod["pod_override"]["metadata"]["annotations"] == {"mine": "yes", **FACTS}
    assert override["metadata"]["annotations"]["dag_id"] == "other"


def test_a_template_travels_by_name_or_path() -> None:
    """The dispatcher finds it."""
    made = workload.build(Workload(ti=Instance(executor_config={"pod_template_file": "gpu"})))
    assert made.pod["pod_template_file"] == "gpu"


def test_a_wrong_override_names_its_path() -> None:
    """Before anything is sent."""
    config = {"pod_override": {"spec": {"containers": [{"imagge": "x"}]}}}
    with pytest.raises(errors.InvalidOverride, match=r"spec\.containers\[0\]\.imagge"):
        workload.build(Workload(ti=Instance(executor_config=config)))


def test_a_callback_has_no_task_instance() -> None:
    """Deadline callbacks go to a queue like others."""

    class Callback:
        token = ""

        def model_dump_json(self) -> str:
            return "{}"

    assert workload.build(Callback()).pod == {"name": ["callback"]}


@pytest.mark.parametrize(
    ("claims", "until_s"),
    [
        ({"exp": 10_600, "iat": 10_000}, 10_570),
        ({"exp": 10_060, "iat": 10_000}, 10_054),
        ({"exp": 10_600}, 10_570),
        ({"iat": 10_000}, None),
        ({"exp": "soon"}, None),
    ],
)
def test_a_message_is_good_until_shortly_before_its_token_expires(claims: dict[str, Any], until_s: int | None) -> None:
    """A pod takes a while to start; where tokens are short-lived, a tenth of their life is held back."""
    wanted = None if until_s is None else datetime.fromtimestamp(until_s, UTC)
    assert workload.expires_at(token(**claims)) == wanted


@given(st.text())
def test_no_token_is_too_strange(text: str) -> None:
    """What is no JWT has no expiry; what says an impossible time neither."""
    assert workload.expires_at(text) is None


def test_an_expiry_beyond_all_dates_is_none() -> None:
    """A number that is no time."""
    assert workload.expires_at(token(exp=1e300)) is None
    assert workload.expires_at(token(exp=float("nan"))) is None
