"""The resources of a pod in a quota's words, and the API server's own words about a quota that is full."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.manifests import quota_resources

COUNTED = {"pods", "count/pods"}


def test_every_pod_counts_for_itself() -> None:
    """Even one that asks for nothing."""
    assert quota_resources.of({"spec": {"containers": [{"name": "base"}]}}) == COUNTED
    assert quota_resources.of({}) == COUNTED


def test_what_a_whole_pod_asks_for_counts() -> None:
    """Resources of the pod itself, Kubernetes 1.34."""
    pod = {"spec": {"containers": [{"name": "base"}], "resources": {"requests": {"memory": "1Gi"}}}}
    assert quota_resources.of(pod) == COUNTED | {"requests.memory", "memory"}


def test_a_limit_is_the_request_where_none_is_given() -> None:
    """As the API server defaults it; init containers count, too."""
    pod = {
        "spec": {
            "containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}],
            "initContainers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}],
        }
    }
    cpu = {"cpu", "requests.cpu"}
    memory = {"memory", "requests.memory", "limits.memory"}
    gpu = {"requests.nvidia.com/gpu", "limits.nvidia.com/gpu"}
    assert quota_resources.of(pod) == COUNTED | cpu | memory | gpu


@pytest.mark.parametrize(
    ("message", "resources", "is_too_large"),
    [
        (
            (
                'pods "a-1" is forbidden: exceeded quota: compute, requested: limits.cpu=2,limits.memory=2Gi, '
                "used: limits.cpu=1,limits.memory=1Gi, limited: limits.cpu=2,limits.memory=2Gi"
            ),
            {"limits.cpu", "limits.memory"},
            False,
        ),
        (
            'pods "a-1" is forbidden: exceeded quota: object-counts, requested: pods=1, used: pods=2, limited: pods=2',
            {"pods"},
            False,
        ),
        (
            (
                'pods "a-1" is forbidden: exceeded quota: closed, requested: count/pods=1, used: count/pods=0, '
                "limited: count/pods=0"
            ),
            {"count/pods"},
            False,
        ),
        (
            (
                'pods "a-1" is forbidden: exceeded quota: cpus, requested: requests.cpu=2500m, used: requests.cpu=0, '
                "limited: requests.cpu=2"
            ),
            {"requests.cpu"},
            True,
        ),
        (
            (
                'pods "a-1" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, '
                "used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=4"
            ),
            {"requests.nvidia.com/gpu"},
            False,
        ),
        ('pods "a-1" is forbidden: failed quota: compute: must specify limits.cpu', set(), False),
        ("exceeded quota: q, requested: cpu=, used: cpu=x, limited: cpu=y", {"cpu"}, False),
    ],
)
def test_what_is_exhausted_stands_in_the_servers_message(message: str, resources: set[str], is_too_large: bool) -> None:
    """A pod that asks for more than all of a quota can never be made, but a count that allows none is only closed."""
    assert quota_resources.exhausted(message) == (resources, is_too_large)


@given(st.text(max_size=200))
def test_no_message_raises(text: str) -> None:
    """A webhook may say anything."""
    quota_resources.exhausted(text)
    quota_resources.exhausted(f"exceeded quota: {text}, requested: {text}, limited: {text}")
