"""A manifest is shown without what may be a secret."""

import copy

import pytest

from dispatcher.manifests import redaction
from dispatcher.manifests.podspec import MESSAGE_ANNOTATION

POD = {
    "metadata": {"annotations": {MESSAGE_ANNOTATION: '{"args": ["hunter2"]}', "note": "n"}},
    "spec": {
        "initContainers": [{"name": "i", "env": [{"name": "GIT_TOKEN", "value": "hunter2"}]}],
        "containers": [
            {
                "name": "base",
                "env": [
                    {"name": "LEVEL", "value": "3"},
                    {"name": "SOURCE", "value": "postgresql://user:hunter2@db/x"},
                    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
            }
        ],
    },
}


def test_secrets_and_the_message_are_hidden_and_the_rest_is_shown() -> None:
    before = copy.deepcopy(POD)
    shown = redaction.redacted(POD)
    assert "hunter2" not in str(shown)
    env = shown["spec"]["containers"][0]["env"]
    assert env[0] == {"name": "LEVEL", "value": "3"}
    assert env[2] == POD["spec"]["containers"][0]["env"][2], "a reference is no secret"
    assert shown["metadata"]["annotations"]["note"] == "n"
    assert before == POD


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("DB_PASSWORD", "x", True),
        ("URL", "https://user:pw@host", True),
        ("URL", "https://host:8080/x", False),
        ("PODYARD_APP", "app:app", False),
    ],
)
def test_a_secret_is_known_by_its_name_or_by_a_password_inside(name: str, value: str, is_secret: bool) -> None:
    assert redaction.looks_secret(name, value) is is_secret
