"""Intake: what an attempt needs for its launch is made before it waits, or the reason why it cannot be launched."""

import json
from pathlib import Path
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.launching import intake
from dispatcher.manifests import message_secret
from dispatcher.options import Options, QueueProfile
from tests import builders

OWNER = "me@host"


def options(**fields: Any) -> Options:
    """Those of a dispatcher."""
    return Options(profile_for=lambda queue: QueueProfile(), app_path="tests.app:app", image="i", **fields)


def prepared(made: Any, **fields: Any) -> Any:
    """Its pod's name, and what the create needs."""
    return intake.prepare(made, options=options(**fields), owner=OWNER)


def test_the_manifest_is_ready_to_be_sent_and_says_whose_it_is() -> None:
    """Name and namespace are those of the manifest; nothing is known of a pod yet."""
    one = builders.attempt(profile=QueueProfile(namespace="jobs"))
    pod, launch = prepared(one)
    manifest = json.loads(launch.manifest)
    assert (pod.namespace, pod.name) == ("jobs", manifest["metadata"]["name"])
    assert (pod.uid, launch.failures, launch.is_in_doubt) == (None, 0, False)
    assert manifest["metadata"]["annotations"]["podyard.dev/attempt-id"] == one.id


def test_an_attempt_has_one_name_however_often_it_is_taken_in() -> None:
    """Creating it twice is adopting it. A retry is another launch."""
    first, again = builders.attempt(task_id="a"), builders.attempt(task_id="a")
    retry = builders.attempt(task_id="a", headers={"retries": 1})
    assert prepared(first)[0] == prepared(again)[0]
    assert prepared(first)[0] != prepared(retry)[0]


def test_a_message_that_may_not_be_seen_travels_in_a_secret() -> None:
    """Which is made after the pod; the launch says so."""
    plain = prepared(builders.attempt(kwargs={"word": "hush"}))[1]
    hidden = prepared(builders.attempt(kwargs={"word": "hush"}, profile=QueueProfile(payload="secret")))[1]
    assert (plain.has_secret, hidden.has_secret) == (False, True)
    assert b"hush" in plain.manifest
    assert b"hush" not in hidden.manifest
    assert message_secret.name_in(json.loads(hidden.manifest)) is not None


def test_what_a_quota_counts_of_it_is_known() -> None:
    """In the words of a quota."""
    resources = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    override = {"spec": {"containers": [{"name": "base", "resources": resources}]}}
    launch = prepared(builders.attempt(task_options={"pod_override": override}))[1]
    assert {"pods", "requests.cpu", "limits.memory"} <= launch.resources


def test_its_time_limits_are_in_the_pod() -> None:
    """The cluster ends it some time after the hard one, should nobody else do so."""
    bounded = json.loads(prepared(builders.attempt(timeout_s=60.0, soft_timeout_s=30.0))[1].manifest)
    free = json.loads(prepared(builders.attempt())[1].manifest)
    assert bounded["spec"]["activeDeadlineSeconds"] > 60
    assert "activeDeadlineSeconds" not in free["spec"]


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"profile": QueueProfile(template="/no/such/template.yaml")}, errors.InvalidTemplate, "/no/such"),
        ({"task_options": {"pod_override": {"spec": {"imagge": 1}}}}, errors.InvalidOverride, "imagge"),
        ({"headers": {"podyard": {"pod_override": {"spec": "x"}}}}, errors.InvalidOverride, "spec"),
    ],
)
def test_what_cannot_be_built_says_where_the_mistake_is(fields: Any, error: type[Exception], words: str) -> None:
    """Whoever wrote it: the queue, the task or the call."""
    with pytest.raises(error, match=words):
        prepared(builders.attempt(**fields))


def test_a_template_that_broke_fails_the_next_attempt_and_not_the_ones_before(tmp_path: Path) -> None:
    """Each is built when it is taken in."""
    template = tmp_path / "pod.yaml"
    good = {**builders.manifest(), "metadata": {"name": "p"}}
    template.write_text(json.dumps(good))
    profile = QueueProfile(template=str(template))
    before = builders.attempt(profile=profile)
    pod, _ = prepared(before)
    template.write_text("{")
    with pytest.raises(errors.InvalidTemplate):
        prepared(builders.attempt(profile=profile))
    template.write_text(json.dumps(good))
    assert prepared(before)[0] == pod
