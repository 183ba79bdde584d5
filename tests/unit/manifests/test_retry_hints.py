"""What earlier attempts teach the next pod: learned by the scheduler, sent in the header, applied to the manifest."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher import errors
from dispatcher.manifests import retry_hints
from dispatcher.manifests.retry_hints import RetryHints
from dispatcher.options import QueueProfile
from routing.results import reported
from routing.scheduling import learning
from tests import builders

HOST = "kubernetes.io/hostname"
GROWS = QueueProfile(memory_growth=1.5, memory_growth_max="1Gi", avoid_failed_nodes=True)


def pod(**container: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "sidecar"}, {"name": "base", **container}]}}


def applied(manifest: dict[str, Any], **learned: Any) -> dict[str, Any]:
    retry_hints.apply(manifest, RetryHints(**learned), base="base")
    return manifest


def ended(reason: str = "OOMKilled", **told: Any) -> reported.EndReport:
    return reported.EndReport(
        attempt_id="a", verdict="failed", at=datetime(2026, 1, 1, tzinfo=UTC), reason=reason, diagnosis=told
    )


class TestTravel:
    @pytest.mark.parametrize(
        "learned",
        [
            RetryHints(),
            RetryHints(growths=2, memory_limit="1Gi", memory_request="512Mi"),
            RetryHints(avoid_nodes=("n1", "n2")),
        ],
    )
    def test_json_and_back(self, learned: RetryHints) -> None:
        assert RetryHints.read(learned.to_json()) == learned
        assert bool(learned) == bool(learned.to_json())

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ("more", "must be a mapping"),
            ({"memory": "1Gi"}, "lessons.memory.*unknown key"),
            ({"memory_limit": "much"}, "lessons.memory_limit.*not a quantity"),
            ({"growths": 6}, "0 to 5"),
            ({"avoid_nodes": "n1"}, "list of names"),
        ],
    )
    def test_a_header_of_somebody_else_is_checked(self, fields: object, words: str) -> None:
        with pytest.raises(errors.InvalidOverride, match=words):
            RetryHints.read(fields)


class TestMemory:
    def test_request_and_limit_grow_and_the_pod_says_so(self) -> None:
        resources = {"requests": {"cpu": "1", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
        found = applied(pod(resources=resources), growths=1, memory_limit="768Mi", memory_request="192Mi")
        assert builders.container_of(found)["resources"] == {
            "requests": {"cpu": "1", "memory": "192Mi"},
            "limits": {"memory": "768Mi"},
        }
        assert found["metadata"]["annotations"] == {
            "podyard.dev/memory-growth": ("growth 1: requests.memory 128Mi -> 192Mi, limits.memory 512Mi -> 768Mi")
        }

    def test_what_the_author_wrote_is_never_lowered(self) -> None:
        """The override may have been changed meanwhile."""
        resources = {"limits": {"memory": "2Gi"}}
        before = pod(resources=resources)
        assert applied(pod(resources=resources), growths=1, memory_limit="768Mi") == before

    def test_a_limit_that_came_from_the_namespace_grows_too(self) -> None:
        """The manifest has none; what the API server kept has."""
        found = applied(pod(), growths=1, memory_limit="768Mi")
        assert builders.container_of(found)["resources"] == {"limits": {"memory": "768Mi"}}

    def test_without_lessons_nothing_changes(self) -> None:
        """A first attempt, and what `dags render` shows."""
        assert applied(pod()) == pod()


class TestNodes:
    def test_a_failed_node_is_avoided_as_a_preference(self) -> None:
        """It may be the only one, or well again."""
        term = {"matchExpressions": [{"key": HOST, "operator": "NotIn", "values": ["n1", "n2"]}]}
        assert applied(pod(), avoid_nodes=("n1", "n2"))["spec"]["affinity"] == {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
        }

    def test_the_authors_affinity_stays(self) -> None:
        own = {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
        required = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "Exists"}]}]}
        manifest = pod()
        manifest["spec"]["affinity"] = {
            "podAffinity": {"x": 1},
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": required,
                "preferredDuringSchedulingIgnoredDuringExecution": [own],
            },
        }
        found = applied(manifest, avoid_nodes=("n1",))["spec"]["affinity"]
        assert found["podAffinity"] == {"x": 1}
        assert found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == required
        preferred = found["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert (len(preferred), preferred[0]) == (2, own)


class TestLearning:
    def test_memory_grows_step_by_step_to_the_cap_and_no_further(self) -> None:
        """512Mi, 768Mi, 1Gi: then the failure is the author's."""
        known, had, steps = RetryHints(), {"memory_limit": "512Mi", "memory_request": "128Mi"}, []
        while (grown := learning.after_growth(known, ended(**had), GROWS)) is not None:
            known, had = grown, {"memory_limit": grown.memory_limit, "memory_request": grown.memory_request}
            steps.append((grown.growths, grown.memory_limit, grown.memory_request))
        assert steps == [(1, "768Mi", "192Mi"), (2, "1Gi", "288Mi")]

    def test_growth_ends_after_five_steps_however_high_the_cap(self) -> None:
        known = RetryHints(growths=retry_hints.MAX_GROWTHS, memory_limit="1Mi")
        assert learning.after_growth(known, ended(memory_limit="1Mi"), GROWS) is None

    @pytest.mark.parametrize(
        ("end", "profile"),
        [
            (ended(memory_limit="512Mi"), QueueProfile()),
            (ended("Error", memory_limit="512Mi"), GROWS),
            (ended(), GROWS),
            (ended(memory_limit="0"), GROWS),
        ],
        ids=["not asked for", "another reason", "another container", "no limit"],
    )
    def test_nothing_else_grows(self, end: reported.EndReport, profile: QueueProfile) -> None:
        assert learning.after_growth(RetryHints(), end, profile) is None

    def test_of_a_pod_without_a_limit_the_request_grows(self) -> None:
        """The node ran out, not the container: a larger request finds a roomier node."""
        grown = learning.after_growth(RetryHints(), ended(memory_request="512Mi"), GROWS)
        assert grown == RetryHints(growths=1, memory_request="768Mi")

    def test_a_node_at_fault_is_avoided_and_only_such_a_one(self) -> None:
        told = ended("NodeShutdown", node="n1", is_of_node=True)
        assert learning.after_node(RetryHints(), told, GROWS) == RetryHints(avoid_nodes=("n1",))
        assert learning.after_node(RetryHints(), told, QueueProfile()) == RetryHints()
        assert learning.after_node(RetryHints(), ended("PodDeleted", node="n1"), GROWS) == RetryHints()

    def test_a_node_is_named_once_and_the_list_stays_short(self) -> None:
        known = RetryHints()
        for name in ["n1", *(f"n{number}" for number in range(20)), "n19"]:
            known = known.without_node(name)
        assert known.avoid_nodes == tuple(f"n{number}" for number in range(10, 20))
